"""Google's Agent Development Kit, with a model behind LiteLLM."""

from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types

REQUIRES = ["google-adk", "litellm"]
HEEDS = ["LITELLM_LOCAL_MODEL_COST_MAP"]


async def work(url):
    agent = LlmAgent(name="writer", model=LiteLlm("openai/test-model", api_base=url, api_key="sk-x"))
    runner = InMemoryRunner(agent, app_name="silence")
    session = await runner.session_service.create_session(app_name="silence", user_id="u")
    asked = types.Content(role="user", parts=[types.Part(text="How is it?")])
    told = [each async for each in runner.run_async(user_id="u", session_id=session.id, new_message=asked)]
    return told[-1].content.parts[0].text
