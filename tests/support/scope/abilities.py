"""Flows that use what a node gives them besides events: memory, and more."""

from __future__ import annotations

import os
import time
from typing import Any

from pydantic import BaseModel, SecretStr

from kodo.flow import delegate, emit, event, flow, lock, memory, progress, result
from kodo.p2p.errors import CallError

MADE_BY = {"author": "tests@example.com", "organization": "kodo", "release": "1"}


@flow(name="Remember", **MADE_BY)
def remember(n: int, pause_ms: float = 0) -> dict[str, Any]:
    """Count in long-term memory, with a pause after each; from a Ray task too."""
    import ray

    @ray.remote
    def in_a_task() -> int:
        found: int = memory.long.update("n", lambda value: value + 1, 0)
        return found

    memory.short.set("begun", True)
    for number in range(n):
        memory.long.update("n", lambda value: value + 1, 0)
        memory.long.files.write("log.txt", f"{number}\n" * 1000)
        progress(done=number + 1, total=n)
        time.sleep(pause_ms / 1000)
    counted = ray.get(in_a_task.remote())
    memory.shared("kb").set(f"run-{counted}", counted)
    return {"n": counted, "short": memory.short.keys(), "file": len(memory.long.files.read("log.txt"))}


@flow(name="Recall", **MADE_BY)
async def recall(name: str) -> dict[str, Any]:
    """Say what a shared memory holds."""
    kept = memory.shared(name)
    files = {row["name"]: (await kept.files.read(row["name"])).decode() for row in await kept.files.list()}
    return {"values": {key: await kept.get(key) for key in await kept.keys()}, "files": files}


class Account(BaseModel):
    """Who logs in."""

    user: str
    password: SecretStr


@event
def connect(account: Account, token: SecretStr, code: SecretStr) -> list[int]:
    """Use them."""
    return [len(each.get_secret_value()) for each in (account.password, token, code)]


@flow(name="Connect", **MADE_BY)
async def connect_with_secrets(account: Account, token: SecretStr, note: str = "") -> list[int]:
    """Take secrets as inputs and by a lock."""
    code = await lock("The code?", SecretStr)
    return connect(account, token, code)


@flow(name="Relay", **MADE_BY)
async def relay(target: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Have another node run a flow; say what happens there."""
    await emit("config", {"pid": os.getpid()})
    other, files = delegate(target, **inputs), {}
    async for each in other:
        await result(fid=other.fid, event=each.event, data=each.data)
        if each.event == "output":
            files[each.data["name"]] = (await other.fetch(each.data["name"])).stat().st_size
    return {"result": other.result, "files": files}


@flow(name="Answer there", **MADE_BY)
async def answer_there(target: str, answers: list[Any]) -> Any:
    """Have another node run a flow, answer its locks by some answers, and leave the other ones to people."""
    other, denied = delegate(target), []
    async for each in other:
        while each.event == "lock" and answers:
            try:
                await other.answer(each, answers.pop(0))
                break
            except CallError as error:
                denied.append(error.data["reasons"])
    return {"result": other.result, "denied": denied}


@flow(name="Ask here", **MADE_BY)
def ask_here(first: int = 0) -> list[Any]:
    """Ask two questions, of which one has a check."""
    even = lock("Even?", int, check=lambda value: "it is odd" if value % 2 else None)
    return [even, lock("Sure?", bool)]


@flow(name="Relay plainly", **MADE_BY)
def relay_plainly(target: str, n: int, pause_ms: int) -> list[Any]:
    """The same, not async; give the numbers that come."""
    numbers = []
    for each in delegate(target, n=n, pause_ms=pause_ms):
        if each.event == "result":
            numbers.append(each.data["number"])
            progress(done=len(numbers), total=n)
    return numbers
