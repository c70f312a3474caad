"""Flows for the tests that look at a node from outside."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time

from pydantic import BaseModel

from kodo.flow import action, emit, flow, lock, output, progress

MADE_BY = {"author": "tests@example.com", "organization": "kodo", "release": "1"}


class Approval(BaseModel):
    """What a human is asked."""

    approved: bool
    why: str = ""


@flow(name="Count", **MADE_BY)
async def count(n: int, pause_ms: float = 0) -> int:
    """Emit numbered events, with a pause after every tenth."""
    for number in range(n):
        await emit("result", {"number": number})
        if pause_ms and number % 10 == 9:
            await asyncio.sleep(pause_ms / 1000)
    return n


@flow(name="Ask", **MADE_BY)
async def ask(topic: str) -> str:
    """Ask for an approval and go on with it."""
    await progress(10, "asking")
    answer = await lock(f"Approve {topic}?", Approval)
    return f"{topic}: {answer.approved} {answer.why}"


@flow(name="Tell", **MADE_BY)
def tell(secret: str) -> str:
    """Say the input in every way there is."""
    print("printed", secret)
    os.write(2, f"written {secret}\n".encode())
    subprocess.run(["echo", "child", secret], check=True)
    logging.getLogger("story").warning("logged %s", secret)
    action(secret)
    output.write("secret.txt", secret)
    return secret


@flow(name="Tell in a task", **MADE_BY)
def tell_in_task(secret: str) -> str:
    """Say the input from a Ray task, which fails with it in the end."""
    import ray

    @ray.remote(max_retries=0)
    def talk(text: str) -> None:
        print("task printed", text, flush=True)
        raise ValueError(text)

    ray.get(talk.remote(secret))
    return "not reached"


@flow(name="Pid", **MADE_BY)
def pid(seconds: float) -> None:
    """Say which process this is, and wait."""
    progress(1, str(os.getpid()))
    time.sleep(seconds)


@flow(name="Fail", **MADE_BY)
def fail(how: str) -> None:
    """Go wrong in a chosen way."""
    if how == "raise":
        raise ValueError("went wrong")
    if how == "exit":
        raise SystemExit(3)
    if how == "die":
        os._exit(7)


@flow(name="Make", **MADE_BY)
def make(files: int, size: int) -> str:
    """Make files."""
    for number in range(files):
        output.write(f"made/file{number}.bin", bytes([number % 256]) * size)
    return "made"


@flow(name="Walk", **MADE_BY)
async def walk(
    name: str, marks: str, steps: int, pause_ms: float = 0, ask_at: int = -1, size: int = 0, child: bool = False
) -> str:
    """Leave a mark of this start outside of the node, then walk: numbered events, a question, a process, a file."""
    descriptor = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{name} {os.getpid()}\n".encode())
    os.close(descriptor)
    if child:
        await asyncio.create_subprocess_exec("sleep", "900")
    said = ""
    for number in range(steps):
        await emit("result", {"number": number})
        if number == ask_at:
            answer = await lock(f"May {name} go on?", Approval)
            said = answer.why
        await asyncio.sleep(pause_ms / 1000)
    if size:
        await output.write(f"{name}.bin", name.encode() * (size // len(name)))
    return said
