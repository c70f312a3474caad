"""What agents of the real packages give at the end of a run, as the result of a flow; see test_agents_apart.py."""

from __future__ import annotations

from typing import Any

import agents
from llama_index.core.base.llms.types import ChatMessage

from kodo.testing import run
from tests.integration.agents_of_libraries import DEPRECATED, llama_agent, openai_agent, pydantic_agent
from tests.support.chat import ChatServer, say


@DEPRECATED
def test_of_what_an_agent_gave_its_answer_is_the_result_and_not_the_conversation():
    async def pydantic() -> Any:
        return await pydantic_agent(server, instructions="of the house").run("x")

    async def openai() -> Any:
        return {"said": await agents.Runner.run(openai_agent(server), "x")}

    async def llama() -> Any:
        return await llama_agent(ChatMessage(role="assistant", content="all is well")).run("x")

    with ChatServer([say("all is well")]) as server:
        results = [run(flow).result for flow in (pydantic, openai, llama)]
    assert results == ["all is well", {"said": "all is well"}, "all is well"]
