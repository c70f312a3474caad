"""Processes that a flow forks or starts: what they say is heard, what they cannot have is refused, nothing blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.event_socket import EVENTS_VARIABLE

# In a process of its own: what is registered at a fork stays registered. It is the flow's; its children are what
# is tested, and what its socket's service has heard is printed at the end.
FLOW = """
import json, logging, os, sys, threading
from pathlib import Path
from kodo.flow import action, emit, lock, memory, output, progress
from kodo.flow._runtime.log_events import EventLogHandler
from kodo.flow._runtime.current import connect_children
from kodo.flow._runtime.context import Context
from kodo.flow._runtime.current import current, install
from kodo.flow._runtime.event_socket import EVENTS_VARIABLE, EventInlet

said = []

class Flow(Context):
    fid = "0" * 26
    def emit(self, event, data):
        assert os.getpid() == parent, "a child has used what it has a copy of"
        said.append([event, data])
    lock = write_output = None

parent = os.getpid()
inlet = EventInlet(lambda event, data: said.append([event, data]))
os.environ[EVENTS_VARIABLE] = str(inlet.start(Path(sys.argv[1])))
install(Flow())
connect_children()
logging.getLogger().addHandler(EventLogHandler(lambda event, data: current().emit(event, data)))

def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

BODY
assert inlet.flush(60)
print(json.dumps(said))
"""


def heard(body: str, tmp_path: Path) -> list[list[Any]]:
    done = subprocess.run(
        [sys.executable, "-c", FLOW.replace("BODY", body), str(tmp_path / "events")],
        capture_output=True,
        timeout=120,
        check=True,
    )
    events: list[list[Any]] = json.loads(done.stdout)
    return events


@pytest.mark.parametrize(
    ("call", "event"),
    [
        ("emit('result', {'a': 1})", ["result", {"a": 1}]),
        ("action('x')", ["action", {"text": "x"}]),
        ("progress(10, 'ä')", ["progress", {"percent": 10, "text": "ä"}]),
        ("action(a=b'x', b=1 << 70)", ["action", {"a": "eA==", "b": str(1 << 70)}]),
        ("logging.getLogger('my').warning('y')", ["log", {"level": "WARNING", "logger": "my", "text": "y"}]),
    ],
)
def test_what_a_forked_child_says_before_it_ends_is_heard(call: str, event: list[Any], tmp_path: Path) -> None:
    assert heard(f"in_child(lambda: {call})", tmp_path) == [event]


def test_a_child_of_a_child_is_heard_too(tmp_path: Path) -> None:
    assert heard("in_child(lambda: in_child(lambda: action('x')))", tmp_path) == [["action", {"text": "x"}]]


def test_a_child_may_say_more_than_any_buffer_holds(tmp_path: Path) -> None:
    body = """
in_child(lambda: [action(n=n) for n in range(21_000)])
assert inlet.flush(60)
said[:] = [len(said), said[-1]]
"""
    assert heard(body, tmp_path) == [21_000, ["action", {"n": 20_999}]]


@pytest.mark.parametrize("call", ["lock('Go on?')", "output.write('a.md', 'x')", "memory.long.get('a')"])
def test_what_needs_an_answer_is_refused_in_a_child(call: str, tmp_path: Path) -> None:
    body = f"""
def refused():
    try:
        {call}
    except Exception as error:
        action(type(error).__name__, why=str(error))
in_child(refused)
"""
    ((event, data),) = heard(body, tmp_path)
    assert (event, data["text"]) == ("action", "UsageError")
    assert "the flow's own process" in data["why"]


# Where functions are found again by processes that are not forked.
WORK = """
from kodo.flow import action, delegate, lock, memory, output

def says(number):
    action(n=number)
    refused = []
    for name, ask in ASKED.items():
        try:
            ask()
        except Exception as error:
            refused.append([name, type(error).__name__, "the flow's own process" in str(error)])
    action(refused=refused)

ASKED = {
    "lock": lambda: lock("Go on?"),
    "output": lambda: output.write("a.md", "x"),
    "memory": lambda: memory.long.get("a"),
    "delegate": lambda: list(delegate("node/flow")),
}
"""
REFUSED = [[name, "UsageError", True] for name in ("lock", "output", "memory", "delegate")]
STARTED = {
    "process": "work = context.Process(target=says, args=(1,)); work.start(); work.join()",
    "pool": "with context.Pool(1) as pool: pool.map(says, [1])",
    "executor": "with ProcessPoolExecutor(1, mp_context=context) as pool: pool.submit(says, 1).result()",
}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("way", STARTED)
def test_children_of_every_kind_are_heard_and_told_what_is_for_the_flows_own_process(
    way: str, method: str, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(WORK)
    body = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
sys.path.insert(0, {str(tmp_path)!r})
from work import says
context = multiprocessing.get_context({method!r})
{STARTED[way]}
"""
    assert heard(body, tmp_path) == [["action", {"n": 1}], ["action", {"refused": REFUSED}]]


def test_a_program_that_a_flow_starts_is_heard(tmp_path: Path) -> None:
    program = "from kodo.flow import action; action('x')"
    body = f"import subprocess\nsubprocess.run([sys.executable, '-c', {program!r}], check=True)"
    assert heard(body, tmp_path) == [["action", {"text": "x"}]]


def test_a_child_that_outlives_its_flow_is_told(tmp_path: Path) -> None:
    program = "from kodo.flow import action\ntry: action('x')\nexcept Exception as error: print(type(error).__name__)"
    environment = {**os.environ, EVENTS_VARIABLE: str(tmp_path / "gone")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"UnreachableError"
