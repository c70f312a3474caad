"""DSPy: a question and its answer; its cache keeps both."""

import dspy

from tests.support.chat import say

REQUIRES = ["dspy"]
SCRIPT = [say("[[ ## answer ## ]]\nall is well\n\n[[ ## completed ## ]]")]


def work(url):
    dspy.configure(lm=dspy.LM("openai/test-model", api_base=url, api_key="sk-x"))
    return dspy.Predict("question -> answer")(question="How is it?").answer
