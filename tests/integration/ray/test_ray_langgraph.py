"""LangGraph graphs, unchanged, as flows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.protocol.ids import make_id

pytestmark = pytest.mark.asyncio(loop_scope="module")
pytest.importorskip("langgraph")

SCOPE = Path(__file__).parent / "scope"


def told(run, name):
    return [event.data for event in run.events if event.event == name]


async def answer(run, title, value):
    """Answer the open lock of this title."""
    while True:
        lock = await run.until("lock", "final", "fatal")
        locks = {data["title"]: data for data in told(run, "lock")}
        if title in locks:
            break
        seen = len(run.events)
        run.events += await run.runner.poll(run.events[-1].rseq, 5.0)
        assert len(run.events) >= seen, lock
    cid = make_id(len(run.events), os.urandom(10))
    await run.runner.answer(locks[title]["lid"], cid, value)
    return locks[title]


async def test_nodes_and_state_updates_become_events(run):
    made = await run("graph_flows:factory", topic="moons")
    end = await made.end()
    assert end["event"] == "final", end
    assert told(made, "agent") == [{"name": "research", "graph": "LangGraph"}]
    (task,) = told(made, "task")
    assert task["name"] == "research"
    assert task["input"]["topic"] == "moons"
    assert told(made, "result") == [{"node": "research", "update": {"notes": ["note on moons"]}}]
    streamed, ended = told(made, "action")
    assert streamed == {"value": {"read": 3}}
    assert (ended["name"], ended["id"], ended["phase"]) == ("research", task["id"], "end")
    assert end["result"] == {"topic": "moons", "notes": ["note on moons"]}


async def test_a_factory_gives_its_defaults_to_its_graph(run):
    end = await (await run("graph_flows:factory")).end()
    assert end["result"]["topic"] == "stars"


async def test_a_graph_that_was_not_compiled_is_run(run):
    end = await (await run("graph_flows:uncompiled", topic="moons")).end()
    assert end["result"] == {"topic": "moons", "notes": ["note on moons"]}


@pytest.mark.parametrize(("name", "result"), [("chain", {"topic": "MOONS"}), ("chain_of_text", "MOONS")])
async def test_a_chain_that_a_function_returns_is_run(run, name, result):
    end = await (await run(f"graph_flows:{name}", topic="moons")).end()
    assert end.get("result") == result, end


async def test_an_interrupt_is_a_lock_and_its_answer_resumes_the_graph(run):
    made = await run("graph_flows:graph", topic="suns")
    lock = await answer(made, "Approve?", True)
    assert lock["schema"]["type"] == "boolean"
    assert "note on suns" in lock["schema"]["description"]
    await answer(made, "A comment?", "fine")
    end = await made.end()
    assert end["result"] == {"topic": "suns", "notes": ["note on suns", "fine"], "approved": True}
    assert len(told(made, "lock")) == len(told(made, "unlock")) == 2


async def test_an_answer_that_does_not_fit_the_interrupts_schema_is_denied(run):
    made = await run("graph_flows:graph", topic="suns")
    await answer(made, "Approve?", "perhaps")
    assert (await made.until("unlock", "unlock-deny")).event == "unlock-deny"


async def test_interrupts_of_parallel_nodes_are_locks_at_the_same_time(run):
    made = await run("graph_flows:both", topic="x")
    while len(told(made, "lock")) < 2:
        made.events += await made.runner.poll(made.events[-1].rseq if made.events else 0, 5.0)
    await answer(made, "right", "r")
    await answer(made, "left", "l")
    end = await made.end()
    assert sorted(end["result"]["notes"]) == ["l", "r"]
    assert [event.event for event in made.events if "lock" in event.event] == ["lock"] * 2 + ["unlock"] * 2


async def test_a_breakpoint_asks_whether_to_go_on(run):
    made = await run("graph_flows:stopping", topic="x")
    await answer(made, "Go on with research?", True)
    assert (await made.end())["result"]["notes"] == ["note on x"]


async def test_an_error_in_a_node_is_told_and_ends_the_run(run):
    made = await run("graph_flows:failing", topic="bread")
    end = await made.end()
    assert (end["event"], end["type"], end["message"]) == ("fatal", "ValueError", "no bread")
    assert end["where"].startswith("graph_flows.py:")
    (error,) = told(made, "action-error")
    assert (error["name"], error["message"]) == ("fails", "no bread")


async def test_a_node_of_a_graph_in_a_graph_says_where_it_is(run):
    made = await run("graph_flows:nested", topic="x")
    await made.end()
    assert [(data["name"], data.get("path")) for data in told(made, "task")] == [
        ("inner", None),
        ("research", "inner"),
    ]


async def test_an_update_too_large_for_an_event_does_not_end_the_run(run):
    made = await run("graph_flows:large_one", topic="x")
    end = await made.end()
    assert end["event"] == "final"
    assert "1000000 characters" in told(made, "result")[0]["update"]["notes"][0]
    assert end["output"] == "final.json"


async def test_a_graphs_state_makes_the_form():
    request = json.dumps({"roots": [str(SCOPE)], "flows": ["graph_flows:graph"]})
    done = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-m", "kodo.flow._runtime.describe"],
        input=request,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (info,) = json.loads(done.stdout)["flows"]
    assert info["schema"]["properties"]["topic"] == {"title": "Topic", "type": "string"}
    assert "required" not in info["schema"]
