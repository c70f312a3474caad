"""LangGraph graphs as flows: forms, messages, config, threads, reviews of tools, text as it comes."""

import asyncio
import contextlib
import operator
import typing
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import jsonschema
import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from kodo.flow._runtime.console import ConsoleContext
from kodo.flow._runtime.current import install
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.adapters.langgraph_threads import Threads
from kodo.flow.adapters.telling import Deltas, Teller
from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import UsageError
from kodo.testing import run


class State(TypedDict, total=False):
    topic: str
    notes: Annotated[list[str], operator.add]


def graph_of(node: Any, state: Any = State, **options: Any) -> Any:
    builder = StateGraph(state, context_schema=options.pop("context_schema", None))
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(**options)


def loaded(target: Any) -> LoadedFlow:
    return LoadedFlow("f", "m:f", target, FlowDefinition(name="f"), "")


def fits(target: Any, inputs: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(loaded(target).inputs_schema()).is_valid(inputs)


def echo(state: Any) -> Any:
    return {"messages": [AIMessage(f"{len(state['messages'])}: {state['messages'][-1].content}")]}


CHAT = graph_of(echo, MessagesState)


@pytest.mark.parametrize(
    "messages",
    [
        "hello",
        [{"role": "user", "content": "hello"}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": "hello"}],
    ],
)
def test_a_chat_takes_a_text_or_messages_with_roles(messages: Any):
    assert fits(CHAT, {"messages": messages})
    result = run(CHAT, messages=messages).result
    said = [message["content"] for message in result["messages"]]
    assert said[-2:] == ["hello", f"{len(said) - 1}: hello"]


def makes() -> CompiledStateGraph:
    return CHAT


async def makes_later() -> CompiledStateGraph[Any, Any, Any, Any]:
    return CHAT


@pytest.mark.parametrize("factory", [makes, makes_later])
def test_what_a_factory_says_that_it_makes_has_the_form_and_takes_the_inputs(factory: Any):
    assert loaded(factory).inputs_schema() == loaded(CHAT).inputs_schema()
    result = run(factory, messages="hello").result
    assert [message["content"] for message in result["messages"]] == ["hello", "1: hello"]


def test_a_factory_that_makes_nothing_here_takes_anything_and_one_with_parameters_has_a_form_of_its_own():
    def needs_a_key() -> CompiledStateGraph:
        raise RuntimeError("no key")

    def asks(topic: str) -> CompiledStateGraph:
        raise RuntimeError("not called for its form")

    assert fits(needs_a_key, {"messages": 3})
    assert list(loaded(asks).inputs_schema()["properties"]) == ["topic"]


def configured(config: RunnableConfig):
    return graph_of(lambda state: {"notes": [str(config["configurable"].get("tone"))]})


def configured_unhinted(config) -> CompiledStateGraph:
    return configured(config)


async def configured_later(config: RunnableConfig | None = None) -> Any:
    return configured(config or {"configurable": {}})


@contextlib.asynccontextmanager
async def configured_within(config: RunnableConfig) -> AsyncIterator[CompiledStateGraph]:
    loop = asyncio.get_running_loop()

    async def node(state: Any) -> Any:
        assert asyncio.get_running_loop() is loop, "what is held belongs to this loop"
        return {"notes": [config["configurable"].get("tone"), *held]}

    held = ["held"]
    yield graph_of(node)
    held.clear()


@contextlib.contextmanager
def configured_in_a_block(config):
    yield configured(config)


@pytest.mark.parametrize("factory", [configured, configured_unhinted, configured_later, configured_in_a_block])
def test_a_factory_that_takes_the_config_has_the_form_of_what_it_makes_and_gets_it(factory: Any):
    schema = loaded(factory).inputs_schema()
    assert schema == loaded(configured({"configurable": {}})).inputs_schema()
    assert run(factory, topic="x", configurable={"tone": "dry"}).result == {"topic": "x", "notes": ["dry"]}


def test_what_a_factory_holds_open_is_there_while_its_graph_runs():
    assert "notes" in loaded(configured_within).inputs_schema()["properties"]
    result = run(configured_within, topic="x", configurable={"tone": "dry"}).result
    assert result == {"topic": "x", "notes": ["dry", "held"]}


def test_a_factory_may_have_parameters_beside_the_config_and_may_take_all_inputs_at_once():
    def beside(topic: str, config: RunnableConfig) -> Any:
        return graph_of(lambda state: {"notes": [sorted(config)[0]]})

    def whole(inputs: dict[str, Any]) -> CompiledStateGraph:
        return graph_of(lambda state: {"notes": sorted(inputs)})

    assert list(loaded(beside).inputs_schema()["properties"]) == ["topic"]
    assert run(beside, topic="x").result == {"topic": "x", "notes": ["configurable"]}
    assert "topic" in loaded(whole).inputs_schema()["properties"]
    assert run(whole, topic="x").result["notes"] == ["topic"]


def test_a_function_that_a_project_names_as_a_graph_need_not_say_what_it_makes():
    def unsaid():
        return graph_of(lambda state: {"notes": ["made"]})

    named = replace(loaded(unsaid), makes=True)
    assert "topic" in named.inputs_schema()["properties"]
    assert loaded(unsaid).inputs_schema()["properties"] == {}
    install(ConsoleContext())
    assert invoke(named, {"topic": "x"}) == {"topic": "x", "notes": ["made"]}


def test_a_factory_that_wants_what_only_a_server_has_is_refused_with_what_to_take():
    class ServerRuntime:
        pass

    def serves(runtime: ServerRuntime) -> CompiledStateGraph:
        raise AssertionError

    serves.__annotations__["runtime"] = ServerRuntime
    with pytest.raises(UsageError, match=r"takes a ServerRuntime, .* take `config: RunnableConfig`"):
        loaded(serves).inputs_schema()


@pytest.mark.parametrize("wrong", [{}, {"messages": 3}, {"messages": [{"role": "robot", "content": "x"}]}])
def test_a_chat_refuses_what_is_no_message(wrong: dict[str, Any]):
    assert not fits(CHAT, wrong)


def test_the_form_of_a_chat_is_small():
    assert len(str(loaded(CHAT).inputs_schema())) < 2000


def test_an_entrypoint_of_a_number_takes_it():
    @entrypoint()
    def double(n: int) -> int:
        return 2 * n

    assert fits(double, {"input": 4})
    assert not fits(double, {"input": "four"})
    assert run(double, {"input": 4}).result == 8


@dataclass
class Settings:
    language: str = "en"


def test_context_configurable_and_recursion_limit_are_inputs():
    def speak(state: Any, config: Any, runtime: Any) -> Any:
        return {"notes": [runtime.context.language, config["configurable"]["mood"], str(config["recursion_limit"])]}

    from langchain_core.runnables import RunnableConfig
    from langgraph.runtime import Runtime

    speak.__annotations__ |= {"config": RunnableConfig, "runtime": Runtime[Settings]}
    graph = graph_of(speak, context_schema=Settings)
    given = {"context": {"language": "fa"}, "configurable": {"mood": "calm"}, "recursion_limit": 7}
    assert fits(graph, {"topic": "x", **given})
    assert not fits(graph, {"topic": "x", "recursion_limit": 0})
    assert run(graph, {"topic": "x", **given}).result["notes"] == ["fa", "calm", "7"]


class OfTheStandardLibrary(typing.TypedDict, total=False):
    topic: str
    notes: Annotated[list[str], operator.add]


def test_a_typed_dict_of_the_standard_library_makes_the_same_form_and_leaves_config_to_the_config():
    def node(state: Any, config: RunnableConfig) -> Any:
        return {"notes": [str(config["configurable"].get("tone"))]}

    graph = graph_of(node, OfTheStandardLibrary)
    assert loaded(graph).inputs_schema() == loaded(graph_of(node)).inputs_schema()
    assert run(graph, topic="x", configurable={"tone": "dry"}).result == {"topic": "x", "notes": ["dry"]}


def test_a_field_of_the_state_is_not_taken_for_config():
    class Named(TypedDict):
        thread: str

    graph = graph_of(lambda state: {"thread": state["thread"].upper()}, Named)
    assert run(graph, thread="a").result == {"thread": "A"}


@pytest.fixture
def _one_process() -> Iterator[None]:
    """Several runs whose memory stays, as on a node."""
    install(ConsoleContext())
    yield
    install(None)


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("saver", [None, InMemorySaver])
def test_a_thread_goes_on_over_runs(saver: Any):
    graph = graph_of(echo, MessagesState, checkpointer=saver and saver())
    for number in range(3):
        result = invoke(loaded(graph), {"messages": "again", "thread": "a"})
        assert len(result["messages"]) == 2 * (number + 1)
    assert len(invoke(loaded(graph), {"messages": "again", "thread": "b"})["messages"]) == 2
    assert len(invoke(loaded(graph), {"messages": "again"})["messages"]) == 2


@pytest.mark.usefixtures("_one_process")
def test_a_checkpointer_on_the_memory_serves_sync_code_and_forgets():
    config = {"configurable": {"thread_id": "sync"}}
    for number in range(2):
        graph = graph_of(echo, MessagesState, checkpointer=Threads())
        assert len(graph.invoke({"messages": "x"}, config)["messages"]) == 2 * (number + 1)
    history = [
        state.values for state in graph_of(echo, MessagesState, checkpointer=Threads()).get_state_history(config)
    ]
    assert len(history) == 6
    Threads().delete_thread("sync")
    assert Threads().get_tuple(config) is None


@pytest.mark.usefixtures("_one_process")
def test_of_a_thread_its_latest_state_alone_is_kept():
    graph = graph_of(echo, MessagesState)
    for _ in range(3):
        invoke(loaded(graph), {"messages": "x", "thread": "short"})
    assert len([*Threads().list({"configurable": {"thread_id": "short"}})]) == 1


def request_of(*decisions: str, name: str = "delete") -> dict[str, Any]:
    """What `HumanInTheLoopMiddleware` interrupts with."""
    return {
        "action_requests": [{"name": name, "args": {"path": "a"}, "description": "It is for good."}],
        "review_configs": [{"action_name": name, "allowed_decisions": list(decisions)}],
    }


ALL = ("approve", "edit", "reject", "respond")


@pytest.mark.parametrize(
    ("allowed", "answer", "decision"),
    [
        (ALL, {"decision": "approve"}, {"type": "approve"}),
        (ALL, {"decision": "approve", "arguments": {"path": "a"}}, {"type": "approve"}),
        (
            ALL,
            {"decision": "edit", "arguments": {"path": "b"}},
            {"type": "edit", "edited_action": {"name": "delete", "args": {"path": "b"}}},
        ),
        (ALL, {"decision": "reject", "message": "no"}, {"type": "reject", "message": "no"}),
        (("approve", "reject"), {"decision": "reject"}, {"type": "reject"}),
        (ALL, {"decision": "answer", "message": "done"}, {"type": "respond", "message": "done"}),
    ],
)
def test_a_review_of_a_tool_is_a_lock(allowed: Any, answer: Any, decision: Any):
    graph = graph_of(lambda state: {"notes": [interrupt(request_of(*allowed))]})
    made = run(graph, {"topic": "x"}, answers={"Call delete?": answer})
    assert made.result["notes"] == [{"decisions": [decision]}]
    form = made.locks[0].schema
    assert form["description"].startswith("It is for good.")
    assert len(form["properties"]["decision"]["enum"]) == len(allowed)
    assert ("arguments" in form["properties"]) == ("edit" in allowed)


def test_text_of_a_model_is_told_as_it_comes():
    def talk(state: Any) -> Any:
        model = GenericFakeChatModel(messages=iter([AIMessage("all is well here")]))
        return {"messages": [model.invoke(state["messages"])]}

    made = run(graph_of(talk, MessagesState), messages="How is it?")
    told = [data for data in made.told("action") if data.get("phase") == "text"]
    assert "".join(data["text"] for data in told) == "all is well here"
    assert {data["node"] for data in told} == {"node"}


def test_deltas_come_at_a_bounded_rate_and_none_is_lost(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    teller = Teller()
    monkeypatch.setattr(teller, "say", lambda event, **data: said.append(data["text"]))
    now = [0.0]
    deltas = Deltas(teller, lambda: now[0])
    for number in range(100):
        now[0] = number / 100
        deltas.feed(f"{number} ", node="a")
    assert len(said) == 1
    deltas.feed("x" * 5000, node="a")
    assert len(said) == 2
    deltas.feed("end", node="a")
    deltas.flush()
    deltas.flush()
    assert "".join(said) == "".join(f"{number} " for number in range(100)) + "x" * 5000 + "end"


def test_keys_of_the_environment_are_cut_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELS_API_KEY", "sk-canary-0c5d1b7e")
    made = run(graph_of(lambda state: {"notes": ["it is sk-canary-0c5d1b7e"]}), topic="x")
    assert "sk-canary" not in str(made.events)
