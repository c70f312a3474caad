"""Strands Agents: one agent, one answer; it says so as it comes."""

from strands import Agent
from strands.models.openai import OpenAIModel

REQUIRES = ["strands-agents[openai]"]


def work(url):
    model = OpenAIModel(client_args={"base_url": url, "api_key": "sk-x"}, model_id="test-model")
    return str(Agent(model=model, callback_handler=None)("How is it?")).strip()
