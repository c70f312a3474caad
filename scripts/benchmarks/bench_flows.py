"""The flows that the bench runs."""

from __future__ import annotations

import asyncio
import os
import time

from kodo.flow import emit, flow, lock
from kodo.flow import output as stored


@flow(name="No-op", author="bench@example.com", organization="kodo", release="1")
def noop() -> str:
    """Do nothing."""
    return "done"


@flow(name="Events", author="bench@example.com", organization="kodo", release="1")
async def events(count: int) -> int:
    """Emit numbered events as fast as they are taken."""
    for number in range(count):
        await emit("result", {"number": number})
    return count


@flow(name="Ticks", author="bench@example.com", organization="kodo", release="1")
async def ticks(count: int, seconds: float) -> int:
    """Print the time (of the monotonic clock that all processes of a machine share) again and again."""
    begun = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(begun + number * seconds - time.monotonic(), 0))
        await emit("result", {"number": number, "at": time.monotonic()})
    return count


@flow(name="Asks", author="bench@example.com", organization="kodo", release="1")
async def asks(count: int) -> int:
    """Ask, and say when it went on."""
    for _ in range(count):
        await lock("Go on?", bool)
        await emit("result", {"at": time.monotonic()})
    return count


@flow(name="Waits", author="bench@example.com", organization="kodo", release="1")
async def waits() -> None:
    """Print which process this is, and wait to be ended."""
    await emit("result", {"pid": os.getpid()})
    await asyncio.sleep(3600)


@flow(name="Output", author="bench@example.com", organization="kodo", release="1")
def output(size: int) -> str:
    """Make one output of bytes that are in no MiB as in another; give its SHA-256, which the download is held to."""
    # Random once: to make new random bytes, or to hash them here too, would take longer than to store them.
    rest = os.urandom((1 << 20) - 8)
    made = stored.write("data.bin", (number.to_bytes(8) + rest for number in range(size >> 20)))
    return str(made["sha256"])
