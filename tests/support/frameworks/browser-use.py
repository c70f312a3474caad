"""Browser Use: imported and set up; to do something it needs a browser."""

from browser_use import Agent
from browser_use.llm import ChatOpenAI

REQUIRES = ["browser-use"]


def work(url):
    Agent(task="look around", llm=ChatOpenAI(model="test-model", base_url=url, api_key="sk-x"))
    return "all is well"
