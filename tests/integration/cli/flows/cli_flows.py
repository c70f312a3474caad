"""Flows for the tests of the command line."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typing_extensions import TypedDict

from kodo.flow import File, action, flow, lock, output, progress, result


class Approval(BaseModel):
    ok: bool
    note: str = ""


@flow(name="Report", author="test@example.com", organization="Test", release="1")
async def report(topic: str, size: int = 3_000_000) -> str:
    """Ask, then write two files."""
    await progress(50, "half \x1b[31mway")
    await action(f"about {topic}")
    answer = await lock("Approve?", Approval, default=Approval(ok=True))
    await output.write("report.md", f"# {topic}: {answer.ok} {answer.note}")
    await output.write("data/big.bin", b"x" * size)
    return f"{topic} {answer.ok}"


@flow(name="Fails", author="test@example.com", organization="Test", release="1")
def fails() -> None:
    """Raise."""
    raise ValueError("as it should")


@flow(name="Counts", author="test@example.com", organization="Test", release="1")
async def counts(n: int = 200, pause: float = 0.02) -> int:
    """Emit numbers."""
    for number in range(n):
        await result(str(number))
        await asyncio.sleep(pause)
    return n


@flow(name="Reads", author="test@example.com", organization="Test", release="1")
def reads(doc: File, more: list[File] = []) -> list[int]:  # noqa: B006 (a default of a form)
    """Count the bytes of files."""
    return [len(Path(each).read_bytes()) for each in (doc, *more)]


def _not_one(number: int) -> str | None:
    if number == 2:
        time.sleep(1.5)
    return "one is not enough" if number == 1 else None


@flow(name="Gates", author="test@example.com", organization="Test", release="1")
async def gates() -> list[object]:
    """Ask four things at once: one is checked, one nobody answers, one is for a role, one for a person."""
    return await asyncio.gather(
        lock("How many?", int, check=_not_one, verdict=0.7),
        lock("Anybody?", str, default="nobody", expires=0.5),
        lock("As an operator?", bool, roles=["operator"], default=False, expires="1h"),
        lock("As eve?", bool, users=["eve"]),
    )


class Draft(TypedDict):
    topic: str
    text: str
    approved: bool


@flow(name="Graph", author="test@example.com", organization="Test", release="1")
def graph(topic: str) -> Any:
    """Make a LangGraph graph that writes and then asks."""
    from langgraph.graph import END, START, StateGraph  # here: not every runner has to import it
    from langgraph.types import interrupt

    def write(state: Draft) -> dict[str, Any]:
        return {"text": f"on {state['topic']}"}

    def review(state: Draft) -> dict[str, Any]:
        asked = {"question": "Publish?", "text": state["text"], "schema": {"type": "boolean"}}
        return {"approved": interrupt(asked)}

    builder = StateGraph(Draft)
    builder.add_node("write", write)
    builder.add_node("review", review)
    builder.add_edge(START, "write")
    builder.add_edge("write", "review")
    builder.add_edge("review", END)
    return builder.compile()
