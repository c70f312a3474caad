"""Two processes of one implementation with a connection between them, and what is measured on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.partners import Partner, partner

ROOT = Path(__file__).parents[2]
KODO, PLAIN = "kodo", "kodo --no-batches"
REFERENCES = {"aiortc": "stock aiortc", "wrtc": "libwebrtc (wrtc)", "node-datachannel": "node-datachannel"}
MESSAGE, SMALL = 64 << 10, 100
_TAKE_HEAD_START = 0.02


class Pair:
    """`near` dials and receives, `far` accepts and sends."""

    def __init__(self, kind: str, near: Partner, far: Partner) -> None:
        self.kind = kind
        self.near = near
        self.far = far
        self.names = 0
        self.name = ""

    async def connect(
        self, *, relay: dict[str, float] | None = None, stack: contextlib.AsyncExitStack | None = None
    ) -> float:
        """Make a connection, through a relay if told to; give the seconds it took.

        These are what both sides needed for offer, answer and connecting, not what carried offer and answer.
        """
        self.names += 1
        self.name = f"{id(self)}-{self.names}"
        offered = await self.near.ask("offer", name=self.name)
        offer = offered["sdp"]
        if relay is not None:
            offer = _with_candidate(
                offer, 9
            )  # the discard port: the far side learns of the relay from the first check
        accepted = await self.far.ask("accept", name=self.name, sdp=offer)
        answer = accepted["sdp"]
        if relay is not None:
            assert stack is not None
            port = await stack.enter_async_context(relay_process(*_address(answer), relay))
            answer = _with_candidate(answer, port)
        answered = await self.near.ask("answer", name=self.name, sdp=answer)
        return float(offered["took"] + accepted["took"] + answered["took"])

    async def close(self) -> None:
        await asyncio.gather(self.near.ask("close", name=self.name), self.far.ask("close", name=self.name))

    async def cpu(self) -> tuple[float, float]:
        """CPU seconds that both have used: near, far."""
        near, far = await asyncio.gather(self.near.ask("cpu"), self.far.ask("cpu"))
        return near["seconds"], far["seconds"]

    async def send(self, count: int, size: int) -> tuple[float, float, float]:
        """Send messages to the near side; give the seconds, and the CPU seconds of receiver and sender."""
        size_word = {"size": size} if self.kind.startswith(KODO) else {}
        before = await self.cpu()
        taking = asyncio.ensure_future(self.near.ask("take", name=self.name, count=count, **size_word))
        await asyncio.sleep(_TAKE_HEAD_START)
        begin = time.perf_counter()
        await self.far.ask("pump", name=self.name, size=size, count=count)
        await taking
        seconds = time.perf_counter() - begin
        after = await self.cpu()
        return seconds, after[0] - before[0], after[1] - before[1]

    async def pumped(self, seconds: float) -> float:
        """Let the far side send for a while; give the bytes per second that arrived."""
        begin = time.perf_counter()
        before = (await self.near.ask("taken", name=self.name))["bytes"]
        pumping = asyncio.ensure_future(self.far.ask("pump", name=self.name, size=16 << 10))
        await asyncio.sleep(seconds)
        after = (await self.near.ask("taken", name=self.name))["bytes"]
        taken = time.perf_counter() - begin
        await self.far.ask("stop", name=self.name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pumping), 5)
        pumping.cancel()
        return float(after - before) / taken

    async def round_trips(self, count: int) -> list[float]:
        """Milliseconds of each of `count` round trips of 100 bytes; the far side is a mirror from now on."""
        await self.far.ask("mirror", name=self.name)
        return await milliseconds(self.near, "round_trips", name=self.name, count=count)


@contextlib.asynccontextmanager
async def pair(kind: str, *, near: Sequence[str] = (), far: Sequence[str] = ()) -> AsyncIterator[Pair]:
    """Run both processes.

    Raises:
        RuntimeError: the implementation is not installed.
    """
    async with partner(kind, through=near) as receiver, partner(kind, through=far) as sender:
        yield Pair(kind, receiver, sender)


async def milliseconds(who: Partner, op: str, **words: Any) -> list[float]:
    """Return the times of a command that measures some, in ms."""
    return [1000 * seconds for seconds in (await who.ask(op, **words))["seconds"]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile, `share` from 0 to 1."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@contextlib.asynccontextmanager
async def relay_process(host: str, port: int, options: dict[str, float]) -> AsyncIterator[int]:
    """Run the seeded relay of the tests in a process of its own; give its port on loopback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.lossy_relay",
        host,
        str(port),
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        process.stdin.close()
        await process.wait()


def _with_candidate(signal: str, port: int) -> str:
    """Return an SDP, or a multiaddr of kodo's, that names one way only: this port on loopback."""
    if not signal.startswith("v="):
        return re.sub(r"^/ip4/[^/]+/udp/\d+", f"/ip4/127.0.0.1/udp/{port}", signal)
    lines = [line for line in signal.splitlines() if not line.startswith(("a=candidate", "a=end-of-candidates"))]
    way = [f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host", "a=end-of-candidates", ""]
    return "\r\n".join([*lines, *way])


def _address(signal: str) -> tuple[str, int]:
    """Return where who made this SDP, or multiaddr of kodo's, is reached by IPv4."""
    if not signal.startswith("v="):
        _, _, host, _, port, *_ = signal.split("/")
        return host, int(port)
    found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", signal, re.IGNORECASE)
    if not found:
        raise RuntimeError("the partner offers no IPv4 address")
    return found[0][0], int(found[0][1])
