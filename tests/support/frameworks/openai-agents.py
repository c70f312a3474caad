"""OpenAI Agents: one agent, one answer. Its traces hold inputs and outputs, and go to its maker."""

from agents import Agent, OpenAIChatCompletionsModel, Runner
from openai import AsyncOpenAI

REQUIRES = ["openai-agents"]


async def work(url):
    model = OpenAIChatCompletionsModel("test-model", AsyncOpenAI(base_url=url, api_key="sk-x"))
    done = await Runner.run(Agent(name="Writer", instructions="Write.", model=model), "How is it?")
    return done.final_output
