"""Agno: one agent, one answer."""

from agno.agent import Agent
from agno.models.openai.like import OpenAILike

REQUIRES = ["agno", "openai", "sqlalchemy"]
HEEDS = ["AGNO_TELEMETRY"]


def work(url):
    return Agent(model=OpenAILike(id="test-model", base_url=url, api_key="sk-x")).run("How is it?").content
