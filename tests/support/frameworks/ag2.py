"""AG2: one agent, one answer."""

from ag2 import Agent
from ag2.config import OpenAIConfig

REQUIRES = ["ag2[openai]"]


async def work(url):
    agent = Agent("writer", config=OpenAIConfig(model="test-model", base_url=url, api_key="sk-x"))
    return (await agent.ask("How is it?")).body
