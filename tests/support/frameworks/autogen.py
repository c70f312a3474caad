"""AutoGen: one assistant, one answer."""

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

REQUIRES = ["autogen-agentchat", "autogen-ext[openai]"]
ABLE = {"vision": False, "function_calling": True, "json_output": False, "structured_output": False}


async def work(url):
    model = OpenAIChatCompletionClient(
        model="test-model", base_url=url, api_key="sk-x", model_info={**ABLE, "family": "unknown"}
    )
    done = await AssistantAgent("writer", model_client=model).run(task="How is it?")
    await model.close()
    return done.messages[-1].content
