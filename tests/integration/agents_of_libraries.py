"""Tests of the adapters for Pydantic AI, OpenAI Agents, LlamaIndex and LangChain, against the real packages.

`test_agents_apart.py` runs them, in a virtual environment that has those. Models are on this machine.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import agents
import pydantic_ai
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from openai import AsyncOpenAI
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.adapters.genai_spans import Provider, Spans
from kodo.flow.adapters.telling import Teller
from kodo.flow.decorator import FlowDefinition
from kodo.testing import EXPIRE, Lock, Run, run
from tests.support.chat import ChatServer, call_tool, fail, say

KEY = "sk-canary-0c5d1b7e"


@pytest.fixture(autouse=True)
def _as_in_a_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def schema_of(target: Any) -> dict[str, Any]:
    return LoadedFlow("f", "m:f", target, FlowDefinition(name="f"), "").inputs_schema()


def phases(made: Run, name: str) -> list[tuple[Any, str]]:
    return [(data[name], data["phase"]) for data in made.told("action") if name in data]


# Pydantic AI


def pydantic_agent(server: ChatServer, **more: Any) -> pydantic_ai.Agent[None, Any]:
    model = OpenAIChatModel("test-model", provider=OpenAIProvider(base_url=server.url, api_key=KEY))
    agent = pydantic_ai.Agent(model, name="Writer", **more)

    @agent.tool_plain
    def lookup(word: str) -> str:
        """Look a word up."""
        if word == "dark":
            raise ValueError("nothing to see")
        return f"meaning of {word}"

    @agent.tool_plain(requires_approval=True)
    def delete(what: str) -> str:
        """Delete something."""
        return f"deleted {what}"

    @agent.tool_plain
    def ask_elsewhere(question: str) -> str:
        """Ask somebody."""
        raise pydantic_ai.CallDeferred

    return agent


def test_an_agent_of_pydantic_ai_is_told_wherever_a_flow_runs_one():
    with ChatServer([call_tool("lookup", word="star"), say(f"it shines, says {KEY}")]) as server:

        async def flow(topic: str) -> str:
            return str((await pydantic_agent(server).run(topic)).output)

        made = run(flow, topic="stars")
    assert made.told("agent") == [{"name": "Writer", "model": "test-model"}]
    assert phases(made, "name") == [("Writer", "start"), ("Writer", "end")]
    assert phases(made, "model") == [("test-model", "start"), ("test-model", "end")] * 2
    started, ended = [data for data in made.told("action") if "tool" in data]
    assert (started["tool"], started["arguments"]) == ("lookup", {"word": "star"})
    assert (ended["phase"], ended["output"]) == ("end", "meaning of star")
    assert KEY not in str(made.events)


def test_an_agent_of_pydantic_ai_is_a_flow_that_takes_a_prompt():
    with ChatServer([say("all is well")]) as server:
        agent = pydantic_agent(server)
        assert schema_of(agent)["required"] == ["prompt"]
        assert run(agent, {"prompt": "How is it?"}).result == "all is well"
        assert server.asked[0]["messages"][-1]["content"] == "How is it?"


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"decision": "approve"}, "deleted a"),
        ({"decision": "edit", "arguments": {"what": "b"}}, "deleted b"),
        ({"decision": "reject", "message": "keep it"}, "keep it"),
    ],
)
def test_a_tool_of_pydantic_ai_that_needs_approval_asks_by_a_lock(answer: dict[str, Any], sent: str):
    with ChatServer([call_tool("delete", what="a"), say("done")]) as server:
        made = run(lambda: pydantic_agent(server), answers={"Call delete?": answer})
        assert server.asked[1]["messages"][-1]["content"] == sent
    (lock,) = made.locks
    assert lock.schema["properties"]["decision"]["enum"] == ["approve", "edit", "reject"]
    assert lock.schema["properties"]["arguments"]["default"] == {"what": "a"}
    assert made.result == "done"


def test_a_deferred_tool_of_pydantic_ai_gives_the_answer_of_its_lock():
    with ChatServer([call_tool("ask_elsewhere", question="why?"), say("done")]) as server:
        made = run(lambda: pydantic_agent(server), answers={"What does ask_elsewhere give?": "because"})
        assert server.asked[1]["messages"][-1]["content"] == "because"
    assert made.locks[0].schema["description"] == "question: why?"
    assert made.told("action-error") == []


def test_an_agent_of_pydantic_ai_that_handles_deferred_tools_itself_is_left_alone():
    with ChatServer([call_tool("delete", what="a"), say("done")]) as server:

        async def flow() -> list[str]:
            agent = pydantic_agent(server, output_type=[str, pydantic_ai.DeferredToolRequests])
            output = (await agent.run("x")).output
            assert isinstance(output, pydantic_ai.DeferredToolRequests)
            return [call.tool_name for call in output.approvals]

        made = run(flow)
    assert (made.result, made.locks) == (["delete"], [])


def test_a_tool_and_a_model_of_pydantic_ai_that_fail_are_told():
    with ChatServer([call_tool("lookup", word="dark")]) as server:
        made = run(lambda: pydantic_agent(server), check=False)
    tool, agent = made.told("action-error")
    assert (tool["tool"], tool["type"], tool["message"]) == ("lookup", "ValueError", "nothing to see")
    assert agent["name"] == "Writer"
    assert isinstance(made.error, ValueError)
    with ChatServer([fail(400, f"no such key {KEY}")]) as server:
        made = run(lambda: pydantic_agent(server), check=False)
    assert [data.get("model") for data in made.told("action-error")] == ["test-model", None]
    assert KEY not in str(made.events)


# OpenAI Agents


def openai_agent(server: ChatServer) -> agents.Agent[Any]:
    model = agents.OpenAIChatCompletionsModel("test-model", AsyncOpenAI(base_url=server.url, api_key=KEY))

    @agents.function_tool
    def lookup(word: str) -> str:
        """Look a word up."""
        if word == "dark":
            raise ValueError("nothing to see")
        return f"meaning of {word}"

    @agents.function_tool(needs_approval=True)
    def delete(what: str) -> str:
        """Delete something."""
        return f"deleted {what}"

    return agents.Agent(name="Writer", instructions="Write.", model=model, tools=[lookup, delete])


def test_an_agent_of_openai_is_told_wherever_a_flow_runs_one():
    with ChatServer([call_tool("lookup", word="star"), say(f"it shines, says {KEY}")]) as server:

        async def flow(topic: str) -> str:
            return str((await agents.Runner.run(openai_agent(server), topic)).final_output)

        made = run(flow, topic="stars")
    assert made.told("agent") == [{"name": "Writer"}]
    assert phases(made, "name") == [("Writer", "start"), ("Writer", "end")]
    assert phases(made, "model") == [("test-model", "start"), ("test-model", "end")] * 2
    _, ended = [data for data in made.told("action") if "tool" in data]
    assert (ended["tool"], ended["arguments"], ended["output"]) == ("lookup", {"word": "star"}, "meaning of star")
    assert KEY not in str(made.events)


def test_an_agent_of_openai_is_a_flow_that_takes_a_prompt():
    with ChatServer([say("all is well")]) as server:
        agent = openai_agent(server)
        assert schema_of(agent)["required"] == ["prompt"]
        assert run(agent, prompt="How is it?").result == "all is well"


@pytest.mark.parametrize(
    ("answer", "sent"),
    [({"decision": "approve"}, "deleted a"), ({"decision": "reject", "message": "keep it"}, "keep it")],
)
def test_a_tool_of_openai_that_needs_approval_asks_by_a_lock(answer: dict[str, Any], sent: str):
    with ChatServer([call_tool("delete", what="a"), say("done")]) as server:
        made = run(lambda: openai_agent(server), answers={"Call delete?": answer})
        assert server.asked[1]["messages"][-1]["content"] == sent
    assert "'what': 'a'" in made.locks[0].schema["description"]
    assert made.result == "done"
    # It is told once, although the framework ends the agent to ask, and a tool begins when it may.
    assert phases(made, "name") == [("Writer", "start"), ("Writer", "end")]
    tools = [("delete", "start"), ("delete", "end")] if answer["decision"] == "approve" else []
    assert phases(made, "tool") == tools
    order = [event.event for event in made.events if event.event == "lock" or "tool" in event.data]
    assert order == ["lock", *["action"] * len(tools)]


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_streamed_agent_of_openai_is_told_and_asks_and_goes_on(decision: str):
    sent = {"approve": "deleted a", "reject": "keep it"}[decision]
    with ChatServer([call_tool("delete", what="a"), say("all is well")]) as server:

        async def flow() -> list[Any]:
            result = agents.Runner.run_streamed(openai_agent(server), "x")
            kinds = [event.type async for event in result.stream_events()]
            return [result.final_output, len(kinds) > 2]

        made = run(flow, answers={"Call delete?": {"decision": decision, "message": "keep it"}})
        assert server.asked[1]["messages"][-1]["content"] == sent
    assert made.result == ["all is well", True]
    assert "".join(data["text"] for data in made.told("action") if data["phase"] == "text") == "all is well"
    assert phases(made, "tool") == ([("delete", "start"), ("delete", "end")] if decision == "approve" else [])


def test_hooks_of_the_flow_are_called_and_an_agent_that_is_a_tool_and_waits_is_told_once():
    seen: list[str] = []

    class Hooks(agents.RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            seen.append(f"begins {tool.name}")

        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            seen.append(f"ends {tool.name}")

    script = [call_tool("writer", input="x"), call_tool("delete", what="a"), say("deleted"), say("done")]
    with ChatServer(script) as server:

        async def flow() -> Any:
            inner = openai_agent(server)
            tool = inner.as_tool("writer", "Writes.")
            outer = agents.Agent(name="Boss", model=inner.model, tools=[tool])
            return (await agents.Runner.run(outer, "x", hooks=Hooks())).final_output

        made = run(flow, answers={"Call delete?": {"decision": "approve"}})
    assert (made.result, len(made.locks)) == ("done", 1)
    assert (seen[0], seen[-1]) == ("begins writer", "ends writer")
    for name in ("Boss", "Writer"):
        assert [phase for each, phase in phases(made, "name") if each == name] == ["start", "end"]
    assert sorted(phases(made, "tool")) == sorted(
        (each, p) for each in ("delete", "writer") for p in ("start", "end")
    )


def test_code_that_reads_interruptions_of_a_stream_decides_itself():
    with ChatServer([call_tool("delete", what="a"), say("done")]) as server:

        async def flow() -> list[str | None]:
            result = agents.Runner.run_streamed(openai_agent(server), "x")
            async for _ in result.stream_events():
                pass
            return [each.tool_name for each in result.interruptions]

        made = run(flow)
    assert (made.result, made.locks) == (["delete"], [])


def test_code_that_reads_interruptions_decides_itself():
    with ChatServer([call_tool("delete", what="a"), say("done")]) as server:

        async def flow() -> list[str | None]:
            result = await agents.Runner.run(openai_agent(server), "x")
            return [each.tool_name for each in result.interruptions]

        made = run(flow)
    assert (made.result, made.locks) == (["delete"], [])


def test_an_agent_of_openai_that_fails_is_told():
    with ChatServer([fail(400, "no such model")]) as server:
        made = run(lambda: openai_agent(server), check=False)
    model, agent = made.told("action-error")
    assert (model["model"], model["agent"], "no such model" in model["message"]) == ("test-model", "Writer", True)
    assert agent["name"] == "Writer"
    assert made.error is not None


def test_a_tool_of_openai_that_fails_is_told_as_its_model_is_told():
    with ChatServer([call_tool("lookup", word="dark"), say("fine")]) as server:
        made = run(lambda: openai_agent(server))
        [told] = made.told("action-error")
        given = server.asked[1]["messages"][-1]["content"]
    assert (told["tool"], given in told["message"]) == ("lookup", True)


def test_traces_of_openai_are_taken_in_process_alone_and_off_again_after_the_run():
    provider: Any = agents.tracing.get_trace_provider()

    def flow() -> agents.Agent[Any]:
        assert [type(each).__module__ for each in provider._multi_processor._processors] == [
            "kodo.flow.adapters.openai_agents"
        ]
        return openai_agent(server)

    with ChatServer([say("fine")]) as server:
        run(flow)
    assert provider._multi_processor._processors == ()
    assert isinstance(agents.trace("x"), agents.tracing.traces.NoOpTrace)


# LlamaIndex


class Draft(Event):
    text: str


class Token(Event):
    delta: str


class Begin(StartEvent):
    topic: str


class Written(Workflow):
    @step
    async def write(self, ctx: Context, ev: Begin) -> Draft:
        for delta in ("all ", "is ", "well"):
            ctx.write_event_to_stream(Token(delta=delta))
        return Draft(text=f"about {ev.topic}")

    @step
    async def publish(self, ev: Draft) -> StopEvent:
        if ev.text == "about nothing":
            raise ValueError("empty")
        return StopEvent(result=ev.text)


def test_a_workflow_is_told_wherever_a_flow_runs_one():
    async def flow(topic: str) -> str:
        return str(await Written().run(topic=topic))

    made = run(flow, topic="stars")
    assert [(task["name"], task["input"]) for task in made.told("task")] == [("write", "Begin"), ("publish", "Draft")]
    ended = [(data["name"], data["output"]) for data in made.told("action") if data["phase"] == "end"]
    assert ended == [("write", "Draft"), ("publish", "StopEvent")]
    written = [data["text"] for data in made.told("action") if data.get("event") == "Token"]
    assert "".join(written) == "all is well"
    assert made.result == "about stars"


def test_a_workflow_is_a_flow_whose_form_is_its_start_event():
    assert schema_of(Written())["required"] == ["topic"]
    assert run(Written(), topic="moons").result == "about moons"
    assert run(Written, topic="moons").result == "about moons"


def test_a_workflow_that_fails_is_told():
    made = run(Written(), topic="nothing", check=False)
    (error,) = made.told("action-error")
    assert (error["name"], error["type"], error["message"]) == ("publish", "ValueError", "empty")
    assert ("publish", "end") not in phases(made, "name"), "it did not end as well"
    assert isinstance(made.error, ValueError)


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Your name?", detail="for the card")

    @step
    async def greet(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"Hello {ev.response}")


class Choice(HumanResponseEvent):
    way: Literal["left", "right"]
    count: int = 1


class AsksWithForm(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        made = await ctx.wait_for_event(Choice, waiter_event=InputRequiredEvent(question="Which way?"))
        return StopEvent(result=[made.way, made.count])

    @step
    async def never(self, ev: Choice) -> StopEvent:
        return StopEvent(result=[ev.way, ev.count])


def test_what_a_workflow_requires_is_asked_by_a_lock():
    made = run(Asks(), answers={"Your name?": "Ada"})
    assert made.locks[0].schema == {"type": "string", "description": "detail: for the card"}
    assert made.result == "Hello Ada"


def test_an_answer_with_fields_is_the_form():
    made = run(AsksWithForm(), answers={"Which way?": {"way": "left"}})
    assert made.locks[0].schema["required"] == ["way"]
    assert made.result == ["left", 1]


def test_time_in_which_a_workflow_waits_for_a_person_does_not_count():
    def answer(lock: Lock) -> str:
        time.sleep(0.5)  # longer than the workflow may take
        return "Ada"

    assert run(Asks(timeout=0.3), answers=answer).result == "Hello Ada"


def test_a_lock_of_a_workflow_that_expires_ends_it():
    made = run(Asks(), answers={"Your name?": EXPIRE}, check=False)
    assert type(made.error).__name__ == "LockExpiredError", made.error


def test_code_that_streams_a_workflow_answers_itself():
    async def flow() -> str:
        handler = Asks().run()
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                handler.ctx.send_event(HumanResponseEvent(response="Bob"))
        return str(await handler)

    made = run(flow)
    assert (made.result, made.locks) == ("Hello Bob", [])


# LangChain's agents, on LangGraph


class Scripted(BaseChatModel):
    answers: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.answers.pop(0))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"decision": "approve"}, "deleted a"),
        ({"decision": "edit", "arguments": {"what": "b"}}, "deleted b"),
        ({"decision": "reject", "message": "keep it"}, "keep it"),
        ({"decision": "answer", "message": "did it myself"}, "did it myself"),
    ],
)
def test_the_middleware_that_has_people_review_tools_asks_by_a_lock(mode: Any, answer: Any, sent: str):
    @tool
    def delete(what: str) -> str:
        """Delete something."""
        return f"deleted {what}"

    call = {"name": "delete", "args": {"what": "a"}, "id": "1", "type": "tool_call"}
    model = Scripted(answers=[AIMessage("", tool_calls=[call]), AIMessage("done")])
    allowed: Any = {"allowed_decisions": ["approve", "edit", "reject", "respond"]}
    review = HumanInTheLoopMiddleware({"delete": allowed}, interrupt_mode=mode)
    made = run(create_agent(model, [delete], middleware=[review]), messages="x", answers={"Call delete?": answer})
    said = [(message["type"], message["content"]) for message in made.result["messages"]]
    assert said[-1] == ("ai", "done")
    assert sent in next(content for kind, content in said if kind == "tool")
    assert made.locks[0].schema["properties"]["decision"]["enum"] == ["approve", "edit", "reject", "answer"]


# OpenTelemetry: spans of a real framework, which has an adapter of its own, for which they are left out


@pytest.mark.parametrize("is_left_out", [False, True])
def test_spans_of_agents_models_and_tools_are_told_unless_an_adapter_does(is_left_out: bool):
    async def flow() -> str:
        spans = Spans(Teller()) if is_left_out else Spans(Teller(), without=())
        pydantic_ai.Agent.instrument_all(pydantic_ai.InstrumentationSettings(tracer_provider=Provider(spans)))
        try:
            return str((await pydantic_agent(server).run("stars")).output)
        finally:
            pydantic_ai.Agent.instrument_all(False)

    with ChatServer([call_tool("lookup", word="star"), say(f"it shines, says {KEY}")]) as server:
        made = run(flow)
    once = [data for data in made.told("action") if data.get("tool")]
    assert len(once) == (2 if is_left_out else 4)
    assert [data["tool"] for data in once] == ["lookup"] * len(once)
    assert "meaning of star" in str(once[-1]["output"] if is_left_out else [data.get("output") for data in once])
    models = [data for data in made.told("action") if data.get("model") == "test-model" and data["phase"] == "end"]
    assert len(models) == (2 if is_left_out else 4)
    assert all(data["usage"]["input_tokens"] for data in models)
    assert KEY not in str(made.events)


# All


def test_a_framework_that_a_flow_imports_itself_is_told_too():
    import subprocess
    import sys

    program = """
import sys
from kodo.testing import run
from tests.support.chat import ChatServer, say

def flow(url: str):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    model = OpenAIChatModel("test-model", provider=OpenAIProvider(base_url=url, api_key="sk-of-nobody"))
    return Agent(model, name="Late").run_sync("x").output

assert "pydantic_ai" not in sys.modules
with ChatServer([say("fine")]) as server:
    print(run(flow, url=server.url).told("agent"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[{'name': 'Late', 'model': 'test-model'}]\n", done.stderr


def test_after_a_run_frameworks_are_as_before():
    from workflows.plugins.basic import InternalAsyncioAdapter

    patched = (
        (pydantic_ai.Agent, "iter"),
        (agents.run.AgentRunner, "run"),
        (agents.run.AgentRunner, "run_streamed"),
        (agents.result.RunResultStreaming, "stream_events"),
        (Workflow, "run"),
        (InternalAsyncioAdapter, "write_to_event_stream"),
    )
    before = [getattr(owner, name) for owner, name in patched]
    assert run(lambda: 1).result == 1
    assert [getattr(owner, name) for owner, name in patched] == before


# LlamaIndex's own agents, of its full package


DEPRECATED = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""LlamaIndex asks for all attributes of an agent, deprecated ones too."""


def llama_agent(*replies: ChatMessage) -> FunctionAgent:
    left = list(replies)

    def lookup(word: str) -> str:
        """Look a word up."""
        if word == "dark":
            raise ValueError("nothing to see")
        return f"meaning of {word}"

    model = MockFunctionCallingLLM(response_generator=lambda messages, **_: left.pop(0))
    return FunctionAgent(name="Writer", tools=[lookup], llm=model, system_prompt="Write.")


def calling(word: str) -> ChatMessage:
    call = ToolCallBlock(tool_call_id="1", tool_name="lookup", tool_kwargs={"word": word})
    return ChatMessage(role="assistant", blocks=[call])


@DEPRECATED
def test_an_agent_of_llama_index_is_a_flow_told_as_an_agent_and_not_by_its_steps():
    agent = llama_agent(calling("star"), ChatMessage(role="assistant", content="it shines"))
    assert schema_of(agent)["required"] == ["prompt"]
    made = run(agent, prompt="What is a star?")
    assert made.result == "it shines"
    assert [data["name"] for data in made.told("agent")] == ["Writer"]
    assert [data["phase"] for data in made.told("action") if data.get("agent") == "Writer"] == ["start", "end"] * 2
    started, ended = [data for data in made.told("action") if data.get("tool") == "lookup"]
    assert (started["arguments"], ended["output"]) == ({"word": "star"}, "meaning of star")
    assert "".join(data["text"] for data in made.told("action") if data["phase"] == "text") == "it shines"
    assert made.told("task") == []
    assert "What is a star?" not in str(made.events)


@DEPRECATED
def test_a_tool_of_llama_index_that_fails_is_told_wherever_a_flow_runs_an_agent():
    async def flow() -> str:
        agent = llama_agent(calling("dark"), ChatMessage(role="assistant", content="it is dark"))
        return str(await AgentWorkflow(agents=[agent]).run(user_msg="x"))

    made = run(flow)
    (error,) = made.told("action-error")
    assert (error["tool"], made.result) == ("lookup", "it is dark")
    assert "nothing to see" in error["message"]
