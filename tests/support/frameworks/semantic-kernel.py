"""Semantic Kernel: one chat agent, one answer."""

from openai import AsyncOpenAI
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

REQUIRES = ["semantic-kernel"]


async def work(url):
    service = OpenAIChatCompletion("test-model", async_client=AsyncOpenAI(base_url=url, api_key="sk-x"))
    return str(await ChatCompletionAgent(service=service, name="writer").get_response(messages="How is it?"))
