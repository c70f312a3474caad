"""Flows for the bridge between MCP hosts and nodes; none of them needs Ray."""

from __future__ import annotations

import asyncio
import os
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from kodo.flow import File, emit, flow, lock, output, progress

MADE_BY = {"author": "tests@example.com", "organization": "kodo", "release": "1"}


class Approval(BaseModel):
    """What a person is asked."""

    approved: bool
    why: str = Field("", description="Why, in one line.")


class Inner(BaseModel):
    """A part of an answer."""

    street: str


class Nested(BaseModel):
    """An answer that no flat form has."""

    address: Inner


class Secret(BaseModel):
    """An answer that must not pass a model."""

    password: SecretStr


@flow(name="Greet", **MADE_BY)
async def greet(name: str, style: Literal["short", "long"] = "short", marks: str = "") -> str:
    """Greet somebody."""
    leave_mark(marks, name)
    await progress(50, f"thinking of {name}")
    await output.write("greeting.txt", f"Hello {name}!\n")
    return f"# Hello {name}" if style == "short" else f"# Hello, dear {name}"


@flow(name="Approve", **MADE_BY)
async def approve(topic: str, marks: str = "", roles: list[str] | None = None) -> dict[str, str | bool]:
    """Ask for an approval and say what was answered."""
    leave_mark(marks, topic)

    def check(answer: Approval) -> str:
        return "say why you approve" if answer.approved and not answer.why else ""

    answer = await lock(f"Approve {topic}?", Approval, check=check, roles=roles or [])
    return {"topic": topic, "approved": answer.approved, "why": answer.why}


@flow(name="Ask deeply", **MADE_BY)
async def ask_deeply(kind: Literal["nested", "secret"]) -> str:
    """Ask what a flat form cannot ask."""
    answer = await lock("Where to?", Nested if kind == "nested" else Secret)
    return f"got {type(answer).__name__}"


@flow(name="Ask twice", **MADE_BY)
async def ask_twice() -> str:
    """Ask two things at once that no flat form can ask."""
    where, word = await asyncio.gather(lock("Where to?", Nested), lock("Which word?", Secret))
    return f"{where.address.street}: {len(word.password.get_secret_value())} characters"


@flow(name="Wait", **MADE_BY)
async def wait(seconds: float, marks: str = "", size: int = 0) -> str:
    """Walk on for some time, with progress."""
    leave_mark(marks, "wait")
    steps = max(1, int(seconds * 10))
    for step in range(steps):
        await progress(done=step, total=steps, text=f"step {step}")
        await asyncio.sleep(seconds / steps)
    if size:
        await output.write("large.txt", "x" * size)
    return "waited"


@flow(name="Fail", **MADE_BY)
async def fail(message: str) -> None:
    """Go wrong."""
    await emit("config", {"hidden": "only for level 2"})
    await output.write("partial.txt", "half\n")
    raise ValueError(message)


@flow(name="Stray", **MADE_BY)
async def stray(keep: bool) -> Approval:
    """Return what its hint says, or something else."""
    return Approval(approved=True, why="kept") if keep else {"approved": "perhaps"}  # type: ignore[return-value]


@flow(name="Read", **MADE_BY)
async def read(document: File) -> str:
    """Say what a file holds."""
    return document.read_text()


@flow(name="Log in", **MADE_BY)
async def log_in(user: str, password: SecretStr) -> str:
    """Take a secret as an input."""
    return f"{user}: {len(password.get_secret_value())} characters"


@flow(name="Make", **MADE_BY)
async def make() -> str:
    """Make a text, a binary file and one in a folder."""
    await output.write("notes.txt", "some notes\n")
    await output.write("data.bin", bytes(range(256)))
    await output.write("more/page.md", "# Page\n")
    return "made"


def leave_mark(path: str, text: str) -> None:
    """Write outside of the node that this was started: one line a start."""
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)
