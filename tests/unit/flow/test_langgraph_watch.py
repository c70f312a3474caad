"""LangGraph graphs that a flow's own code runs: told and asked wherever they are, and otherwise as before."""

import subprocess
import sys
import threading
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._loop import PregelLoop
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from kodo.flow import lock
from kodo.p2p.errors import DeadlineError
from kodo.testing import EXPIRE, Run, run

KEY = "sk-canary-0c5d1b7e"


class State(TypedDict, total=False):
    topic: str
    kept: Any


def graph_of(*nodes: Any, **options: Any) -> Any:
    builder = StateGraph(State)
    for before, node in zip([None, *nodes], nodes, strict=False):
        builder.add_node(node.__name__, node)
        builder.add_edge(before.__name__ if before else START, node.__name__)
    builder.add_edge(nodes[-1].__name__, END)
    return builder.compile(**options)


def research(state: Any) -> Any:
    return {"topic": state["topic"].upper()}


def ask(state: Any) -> Any:
    return {"topic": interrupt({"question": f"What of {state['topic']}?", "schema": {"type": "string"}})}


def fail(state: Any) -> Any:
    raise ValueError(f"no model takes {KEY}")


def told(made: Run) -> list[tuple[str, Any]]:
    return [
        (event, data.get("name") or data.get("node"))
        for event, data in ((each.event, each.data) for each in made.events)
        if event in ("agent", "task", "action", "action-error", "result")
    ]


WAYS: dict[str, Any] = {
    "invoke": lambda graph: graph.invoke({"topic": "stars"})["topic"],
    "stream": lambda graph: [*graph.stream({"topic": "stars"})][-1]["research"]["topic"],
    "batch": lambda graph: graph.batch([{"topic": "stars"}])[0]["topic"],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_graph_that_a_function_runs_is_told(way: str):
    made = run(lambda: WAYS[way](graph_of(research)))
    assert told(made) == [
        ("agent", "research"),
        ("task", "research"),
        ("result", "research"),
        ("action", "research"),
    ]
    assert made.result == "STARS"


def test_a_graph_is_told_once_although_a_run_before_has_not_ended():
    with pytest.raises(DeadlineError):
        run(lambda: lock("?", str), answers=lambda _: threading.Event().wait(), timeout=0.01)
    assert len(told(run(lambda: WAYS["invoke"](graph_of(research))))) == 4


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
def test_a_graph_that_a_coroutine_runs_is_told(way: str):
    async def flow() -> Any:
        graph = graph_of(research)
        if way == "ainvoke":
            return await graph.ainvoke({"topic": "stars"})
        return [chunk async for chunk in graph.astream({"topic": "stars"}, stream_mode="values")][-1]

    made = run(flow)
    assert [name for name, _ in told(made)] == ["agent", "task", "result", "action"]
    assert made.result == {"topic": "STARS"}


def test_a_graph_within_a_graph_is_told_once_with_its_place():
    inner = graph_of(research)

    def outer(state: Any) -> Any:
        return inner.invoke(state)

    made = run(lambda: graph_of(outer).invoke({"topic": "stars"}))
    assert [(each["name"], each.get("path")) for each in made.told("task")] == [
        ("outer", None),
        ("research", "outer"),
    ]
    assert [each["name"] for each in made.told("agent")] == ["outer"]


def test_a_node_that_fails_is_told_without_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    made = run(lambda: graph_of(research, fail).invoke({"topic": "stars"}), check=False)
    (error,) = made.told("action-error")
    assert (error["name"], error["type"], error["message"]) == ("fail", "ValueError", "no model takes [key]")
    assert isinstance(made.error, ValueError)


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver()], ids=["none", "own"])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_an_invoked_graph_asks_is_a_lock(checkpointer: Any, is_async: bool):
    graph = graph_of(research, ask, checkpointer=checkpointer)
    config: Any = {"configurable": {"thread_id": "1"}} if checkpointer else None

    def sync_flow() -> Any:
        return graph.invoke({"topic": "stars"}, config)

    async def async_flow() -> Any:
        return await graph.ainvoke({"topic": "stars"}, config)

    made = run(async_flow if is_async else sync_flow, answers={"What of STARS?": "moons"})
    assert made.result == {"topic": "moons"}
    assert made.locks[0].schema == {"type": "string"}
    assert [each["name"] for each in made.told("task")] == ["research", "ask", "ask"]
    assert made.told("action-error") == []


def test_a_graph_that_async_code_invokes_without_await_asks_too():
    async def flow() -> Any:
        return graph_of(ask).invoke({"topic": "stars"})

    assert run(flow, answers={"What of stars?": "moons"}).result == {"topic": "moons"}


def test_a_lock_of_an_invoked_graph_that_expires_ends_the_run():
    made = run(lambda: graph_of(ask).invoke({"topic": "stars"}), answers={"What of stars?": EXPIRE}, check=False)
    assert "LockExpiredError" in repr(made.error) or "LockExpiredError" in repr(getattr(made.error, "exceptions", ""))


def test_code_that_handles_interrupts_is_left_alone():
    def flow() -> Any:
        graph = graph_of(ask, checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "1"}}
        first = graph.invoke({"topic": "stars"}, config)
        assert first["__interrupt__"]
        return graph.invoke(Command(resume="moons"), config)

    made = run(flow)
    assert (made.result, made.locks) == ({"topic": "moons"}, [])


def test_a_state_that_cannot_be_written_as_bytes_goes_through_a_question():
    guard = threading.Lock()

    def keep(state: Any) -> Any:
        return {"kept": guard}

    def flow() -> Any:
        done = graph_of(keep, ask).invoke({"topic": "stars"})
        return [done["topic"], done["kept"] is guard]

    assert run(flow, answers={"What of stars?": "moons"}).result == ["moons", True]
    assert run(graph_of(keep, ask), topic="stars", answers={"What of stars?": "moons"}).result["topic"] == "moons"


def test_a_graph_that_a_flow_imports_langgraph_for_is_told():
    program = """
import sys
from kodo.testing import run

def flow():
    from langgraph.types import interrupt
    from langgraph.graph import StateGraph
    builder = StateGraph(dict)
    builder.add_node("node", lambda state: state)
    builder.set_entry_point("node")
    return builder.compile().invoke({"a": 1})

assert "langgraph.pregel" not in sys.modules
made = run(flow)
print(made.told("agent"), made.told("log"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[{'name': 'node', 'graph': 'LangGraph'}] []\n", done.stderr


def test_after_a_run_graphs_are_as_before():
    patched: Any = ((PregelLoop, "_emit"), *((Pregel, name) for name in ("invoke", "ainvoke", "stream", "astream")))
    before = [getattr(owner, name) for owner, name in patched]
    assert run(lambda: 1).result == 1
    assert [getattr(owner, name) for owner, name in patched] == before
