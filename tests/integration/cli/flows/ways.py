"""One flow for each way in which a flow can be written and make its events."""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from kodo.flow import action, agent, emit, event, flow, lock, output, progress, result, task, tool

MADE_BY = {"author": "test@example.com", "organization": "Test", "release": "1"}

BY_SOCKET = """
import json, os, socket
made = socket.socket(socket.AF_UNIX)
made.connect(os.environ["KODO_EVENTS"])
made.sendall(json.dumps({"event": "result", "data": {"text": "by the socket"}}).encode() + b"\\n")
"""


@event(name="step")
def step(number: int) -> int:
    if number > 1:
        raise ValueError("too far")
    return number


@flow(name="Everything", **MADE_BY)
def everything(topic: str) -> dict[str, Any]:
    """Make events in every way that plain code has, one after the other."""
    emit("config", {"depth": 3})
    agent("Researcher", goal="know")
    task("read", agent="Researcher")
    tool("lookup")
    progress(done=1, total=4, id="all", text="known total")
    progress(done=7, id="part", parent="all", text="unknown total")
    action("doing", number=1)
    result({"found": [topic]})
    emit("result-error", {"message": "not found"})
    step(1)
    try:
        step(2)
    except ValueError:
        logging.getLogger("ways").warning("a warning")
    print("printed")
    thread = threading.Thread(target=print, args=["in a thread"])
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-S", "-c", "import os; os.write(2, b'by a child\\n')"], check=True)
    _in_a_task()
    subprocess.run([sys.executable, "-S", "-c", BY_SOCKET], check=True)
    output.write("notes/a.json", json.dumps({"topic": topic}))
    answer = lock("Enough?", bool, default=True, check=lambda enough: None if enough else "it is")
    return {"topic": topic, "enough": answer}


def _in_a_task() -> None:
    import ray

    @ray.remote(num_cpus=0)
    def talk() -> None:
        print("in a task", flush=True)
        result("by a task")

    ray.get(talk.remote())


@flow(name="Crashes", **MADE_BY)
def crashes() -> None:
    """End as a broken library does."""
    print("about to crash", file=sys.stderr, flush=True)
    time.sleep(3)  # what it said has to be taken before there is nobody to take it from
    ctypes.string_at(0)


@flow(name="Async generator", **MADE_BY)
async def async_generator(n: int) -> AsyncIterator[dict[str, int]]:
    """Yield, with awaited emitters between."""
    for number in range(n):
        await progress(done=number + 1, total=n)
        yield {"number": number}


def generator(n: int = 2) -> Iterator[str]:
    """Yield; offered by a YAML file alone."""
    for number in range(n):
        print(f"before {number}")
        yield f"number {number}"
    return "counted"


@flow(name="Kickoff", **MADE_BY)
class Kickoff:
    """A class with `kickoff`."""

    async def kickoff(self, topic: str) -> str:
        await action("kicked off")
        return f"{topic} by kickoff"


@flow(name="Invoke", **MADE_BY)
class Invoke:
    """A class with `invoke`."""

    def invoke(self, topic: str) -> str:
        action("invoked")
        return f"{topic} by invoke"
