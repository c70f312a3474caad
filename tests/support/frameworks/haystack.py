"""Haystack: a pipeline of a prompt and a model."""

from haystack import Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

REQUIRES = ["haystack-ai"]
HEEDS = ["HAYSTACK_TELEMETRY_ENABLED"]


def work(url):
    pipeline = Pipeline()
    pipeline.add_component("prompt", ChatPromptBuilder([ChatMessage.from_user("How is {{what}}?")]))
    pipeline.add_component("model", OpenAIChatGenerator(Secret.from_token("sk-x"), "test-model", api_base_url=url))
    pipeline.connect("prompt.prompt", "model.messages")
    return pipeline.run({"prompt": {"what": "it"}})["model"]["replies"][0].text
