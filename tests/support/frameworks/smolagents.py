"""smolagents: an agent that ends by a tool, as it does."""

from smolagents import OpenAIServerModel, ToolCallingAgent

from tests.support.chat import call_tool

REQUIRES = ["smolagents[openai]"]
SCRIPT = [call_tool("final_answer", answer="all is well")]


def work(url):
    model = OpenAIServerModel("test-model", api_base=url, api_key="sk-x")
    return ToolCallingAgent(tools=[], model=model).run("How is it?")
