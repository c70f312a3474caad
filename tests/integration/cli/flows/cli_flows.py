"""Flows for the tests of the command line."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from kodo.flow import action, flow, lock, output, progress, result


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
