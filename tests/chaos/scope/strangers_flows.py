"""What the node offers that strangers come to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Union

from pydantic import BaseModel

from kodo.flow import delegate, emit, flow, lock, memory, output
from kodo.p2p.errors import CapacityError

MADE_BY = {"author": "tests@example.com", "organization": "kodo", "release": "1"}


class Leaf(BaseModel):
    """An end."""

    name: str


class Branch(BaseModel):
    """A form that is checked again and again at each level."""

    items: list[Union[Leaf, Branch]]  # noqa: UP007 (evaluated by pydantic)


@flow(name="Work", **MADE_BY)
async def work(n: int) -> int:
    """Emit numbered events."""
    for number in range(n):
        await emit("result", {"number": number})
    return n


@flow(name="Wait", **MADE_BY)
async def wait() -> bool:
    """Ask somebody who never answers."""
    return await lock("Go on?", bool)


@flow(name="Make", **MADE_BY)
async def make(size: int) -> str:
    """Make a file."""
    await output.write("made.bin", b"x" * size)
    return "made"


@flow(name="Flood", **MADE_BY)
async def flood(n: int) -> int:
    """Emit large events for as long as it is let."""
    for number in range(n):
        await emit("result", {"number": number, "text": "x" * 6000})
    return n


@flow(name="Plant", **MADE_BY)
async def plant(tree: Branch) -> str:
    """Take a tree."""
    return str(len(tree.items))


@flow(name="Add", **MADE_BY)
async def add(numbers: list[int]) -> int:
    """Take numbers."""
    return sum(numbers)


@flow(name="Hoard", **MADE_BY)
async def hoard(n: int) -> int:
    """Remember MiBs of nothing for as long as there is room."""
    kept = 0
    for number in range(n):
        with contextlib.suppress(CapacityError):
            await memory.long.set(f"{number % 200}", "x" * 1_000_000)
            kept += 1
        await asyncio.sleep(0.1)
    return kept


@flow(name="Fetch", **MADE_BY)
async def fetch(node: str, size: int) -> int:
    """Have a file made by a node, and fetch it."""
    other = delegate(f"{node}/strangers_flows.make", size=size)
    async for _ in other:
        pass
    return (await other.fetch("made.bin")).stat().st_size
