"""kodo as a partner for measuring, with the commands of `interop/partner.py`: `kodo_partner [--no-batches] [HOST]`.

It has no offer to make: `offer` gives nothing, `accept` the address where it listens, and `answer` with that dials;
it `took` what an authenticated session takes.
The first channel is a stream. Beside those: `pings` gives the `{seconds}` of each round trip on a stream of its own,
`calls` those of calls that answer at once, `idle` opens `count` sessions that do nothing, `stall` one for each of
`names` that reads nothing, and `memory` gives the `{bytes}` that the process alone holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

import psutil

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import NetworkError
from kodo.p2p.net import endpoint
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request, request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.stream import Stream

BENCH, MIRROR = "/kodo/bench/1", "/kodo/mirror/1"
IDLE_AT_ONCE = 10
"""Fewer than a listener lets one source begin at once."""


class Way:
    """One session and its first stream."""

    def __init__(self, stream: Stream, session: Session | None = None) -> None:
        self.stream = stream
        self.session = session
        self.bytes = self.wanted = 0
        self.mirrors = False
        self.pumping = True
        self.changed = asyncio.Event()

    async def read(self) -> None:
        """Take what comes until the stream ends or its session does."""
        with contextlib.suppress(NetworkError):
            while data := await self.stream.read(1 << 18):
                if self.mirrors:
                    await self.stream.write(data)
                self.bytes += len(data)
                if self.bytes >= self.wanted:
                    self.changed.set()

    async def take(self, count: int) -> None:
        self.wanted = self.bytes + count
        while self.bytes < self.wanted:
            self.changed.clear()
            await self.changed.wait()


class Worker:
    """What the commands do."""

    def __init__(self, host: Host, bind: str) -> None:
        self.host = host
        self.bind = bind
        self.ways: dict[str, Way] = {}
        self.waiting: dict[str, asyncio.Future[Way]] = {}
        self.sizes: dict[str, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.stalled: list[Stream] = []
        self.address = ""
        self.transport = WebRtcTransport()
        self.hosts = contextlib.AsyncExitStack()
        host.handle(BENCH, self.opened)
        host.handle(MIRROR, self.mirrored)

        async def nothing(call: Request) -> object:
            return None

        host.handle(CALL_PROTOCOL, CallServer(nothing))

    async def opened(self, stream: Stream) -> None:
        name = (await stream.read(64)).decode()
        way = self.ways[name] = Way(stream)
        await stream.write(b"!")
        await way.read()

    async def mirrored(self, stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)
        await stream.close_write()

    async def offer(self, name: str) -> dict[str, Any]:
        return {"sdp": ""}

    async def accept(self, name: str, sdp: str) -> dict[str, Any]:
        if not self.address:
            self.address = str((await self.host.listen([self.bind]))[0])
        return {"sdp": self.address}

    async def answer(self, name: str, sdp: str) -> dict[str, Any]:
        begin = time.perf_counter()
        session = await self.dial(name, sdp)
        took = time.perf_counter() - begin
        stream = await session.open_stream(BENCH)
        await stream.write(name.encode())
        await stream.read(1)
        way = self.ways[name] = Way(stream, session)
        task = asyncio.ensure_future(way.read())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return {"took": took}

    async def dial(self, name: str, address: str) -> Session:
        """Dial as a peer of its own, for two peers share one session."""
        host = Host(Identity.from_seed(os.urandom(32)), self.transport)
        await self.hosts.enter_async_context(host)
        return await host.connect([Multiaddr.parse(address)], timeout=30)

    async def idle(self, count: int, sdp: str) -> dict[str, Any]:
        for _ in range(0, count, IDLE_AT_ONCE):
            await asyncio.gather(*[self.dial("", sdp) for _ in range(IDLE_AT_ONCE)])
        return {}

    async def stall(self, names: list[str], sdp: str) -> dict[str, Any]:
        """Make a session for each name, and read nothing of what the other side pumps there."""

        async def one(name: str) -> None:
            stream = await (await self.dial(name, sdp)).open_stream(BENCH)
            await stream.write(name.encode())
            await stream.read(1)
            self.stalled.append(stream)

        for begin in range(0, len(names), IDLE_AT_ONCE):
            await asyncio.gather(*map(one, names[begin : begin + IDLE_AT_ONCE]))
        return {}

    async def pump(self, name: str, size: int, count: int | None = None) -> dict[str, Any]:
        way, data = self.ways[name], bytes(size)
        way.pumping = True
        sent = 0
        while way.pumping and (count is None or sent < count):
            await way.stream.write(data)
            sent += 1
        return {}

    async def stop(self, name: str) -> dict[str, Any]:
        self.ways[name].pumping = False
        return {}

    async def take(self, name: str, count: int, size: int) -> dict[str, Any]:
        await self.ways[name].take(count * size)
        return {"bytes": count * size}

    async def taken(self, name: str) -> dict[str, Any]:
        return {"bytes": self.ways[name].bytes}

    async def mirror(self, name: str) -> dict[str, Any]:
        self.ways[name].mirrors = True
        return {}

    async def round_trips(self, name: str, count: int) -> dict[str, Any]:
        way, seconds = self.ways[name], []
        for _ in range(count):
            begin = time.perf_counter()
            await way.stream.write(b"x" * 100)
            await way.take(100)
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}

    async def pings(self, name: str, count: int, pause: float = 0.0) -> dict[str, Any]:
        session, seconds = self.ways[name].session, []
        assert session is not None
        stream = await session.open_stream(MIRROR)
        for _ in range(count):
            begin = time.perf_counter()
            await stream.write(b"x" * 32)
            await stream.read()
            seconds.append(time.perf_counter() - begin)
            await asyncio.sleep(pause)
        stream.reset()
        return {"seconds": seconds}

    async def calls(self, name: str, count: int) -> dict[str, Any]:
        session, seconds = self.ways[name].session, []
        assert session is not None
        for _ in range(count):
            begin = time.perf_counter()
            await request(session, "none")
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}

    async def cpu(self) -> dict[str, Any]:
        return {"seconds": time.process_time()}

    async def memory(self) -> dict[str, Any]:
        return {"bytes": psutil.Process().memory_full_info().uss}

    async def close(self, name: str) -> dict[str, Any]:
        way = self.ways.pop(name)
        if way.session is not None:
            await way.session.aclose()
        return {}


async def do(worker: Worker, number: int, op: str, words: dict[str, Any]) -> None:
    begin = time.perf_counter()
    try:
        found = await getattr(worker, op)(**words)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": number, "took": time.perf_counter() - begin, **found}), flush=True)


async def main(words: list[str]) -> None:
    if "--no-batches" in words:
        words.remove("--no-batches")
        endpoint.Endpoint._probe = lambda self, option, value: False  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    async with Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as host:
        worker = Worker(host, words[0] if words else "127.0.0.1")
        tasks: set[asyncio.Task[None]] = set()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            task = loop.create_task(do(worker, command.pop("id"), command.pop("op"), command))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
