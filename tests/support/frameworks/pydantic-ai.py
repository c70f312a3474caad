"""Pydantic AI: one agent, one answer."""

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

REQUIRES = ["pydantic-ai-slim[openai]"]


async def work(url):
    model = OpenAIChatModel("test-model", provider=OpenAIProvider(base_url=url, api_key="sk-x"))
    return (await Agent(model).run("How is it?")).output
