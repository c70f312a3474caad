"""A Python implementation of WebRTC as a partner of the tests: `python partner.py aiortc|wrtc`.

Reads one JSON object a line on stdin and answers each with one on stdout, both with the same `id`. A connection has a
`name`, and two commands make it: `{op: "offer", name}` gives `{sdp}`, and `{op: "answer", name, sdp}` with ours takes
up the connection. Then it echoes whatever comes on channels that the other side opens. `{op: "echo", name,
phases: [[[count, size, ordered], …], …]}` opens the channels of one phase at once, sends `count` messages of `size`
random bytes on each, takes back as many, closes the channel, then goes on to the next phase; it gives, for each
channel, its `id`, `bytes`, and `sent` and `back`: SHA-256 of the messages, sorted where order is not promised.

For measuring, two such processes can be connected: `{op: "accept", name, sdp}` takes an offer and gives the answer's
`{sdp}`. Their first channel is open then; `pump` (`count`, `size`) sends on it, `take` (`count`) waits for as many
messages and gives their `{bytes}`, `round_trips` (`count`) gives the `{seconds}` of each of `count` messages to a
partner that is at `mirror`, and `cpu` gives `{seconds}` that the process has used. `pump` without `count` goes on
until `stop`; `taken` gives the `{bytes}` that came so far. Each answer says also how many seconds the command `took`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import sys
import time
from typing import Any

LIBRARY = {"aiortc": "aiortc", "wrtc": "webrtc.aiortc"}
AHEAD_BYTES = 1 << 20
rtc: Any = None
connections: dict[str, Any] = {}


def digest(messages: list[bytes], ordered: bool) -> str:
    return hashlib.sha256(b"".join(messages if ordered else sorted(messages))).hexdigest()


def opened(channel: Any) -> None:
    """Echo; on a channel of a browser's that measures, send or take as it says (`bench.html`)."""
    if channel.label != "bench":
        channel.on("message", channel.send)
        return
    left, low, tasks = 0, asyncio.Event(), set()
    channel.bufferedAmountLowThreshold = AHEAD_BYTES // 2
    channel.on("bufferedamountlow", low.set)

    async def send(count: int, size: int) -> None:
        data = bytes(size)
        for _ in range(count):
            if channel.bufferedAmount > AHEAD_BYTES:
                low.clear()
                await low.wait()
            channel.send(data)

    def message(data: Any) -> None:
        nonlocal left
        if len(data) == 9:
            count, size = int.from_bytes(data[1:5], "big"), int.from_bytes(data[5:], "big")
            if data[:1] == b"G":
                tasks.add(asyncio.ensure_future(send(count, size)))
            else:
                left = count
        elif left == 1:
            channel.send(b"done")
            left = 0
        else:
            left -= 1

    channel.on("message", message)


class First:
    """The first channel of a connection, which is negotiated, and what came on it."""

    def __init__(self, connection: Any) -> None:
        self.channel = connection.createDataChannel("", negotiated=True, id=0)
        self.opened, self.low, self.changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.count = self.bytes = 0
        self.wanted = 0
        self.mirrors = False
        self.pumping = True
        self.channel.bufferedAmountLowThreshold = AHEAD_BYTES // 2
        self.channel.on("open", self.opened.set)
        self.channel.on("bufferedamountlow", self.low.set)
        self.channel.on("message", self.message)

    def message(self, data: bytes) -> None:
        if self.mirrors:
            self.channel.send(data)
        self.count += 1
        self.bytes += len(data)
        if self.count >= self.wanted:
            self.changed.set()

    async def wait_open(self) -> None:
        if self.channel.readyState != "open":
            await self.opened.wait()

    async def take(self, count: int) -> None:
        self.wanted = self.count + count
        while self.count < self.wanted:
            self.changed.clear()
            await self.changed.wait()


def make(name: str) -> Any:
    connection = connections[name] = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=[]))
    connection.on("datachannel", opened)
    connection.first = First(connection)
    return connection


async def offer(name: str) -> dict[str, Any]:
    connection = make(name)
    await connection.setLocalDescription(await connection.createOffer())
    return {"sdp": connection.localDescription.sdp}


async def accept(name: str, sdp: str) -> dict[str, Any]:
    connection = make(name)
    await connection.setRemoteDescription(rtc.RTCSessionDescription(sdp, "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    return {"sdp": connection.localDescription.sdp}


async def answer(name: str, sdp: str) -> dict[str, Any]:
    connection = connections[name]
    await connection.setRemoteDescription(rtc.RTCSessionDescription(sdp, "answer"))
    await connection.first.wait_open()
    return {}


async def pump(name: str, size: int, count: int | None = None) -> dict[str, Any]:
    first, data = connections[name].first, bytes(size)
    await first.wait_open()
    first.pumping = True
    sent = 0
    while first.pumping and (count is None or sent < count):
        if first.channel.bufferedAmount > AHEAD_BYTES:
            first.low.clear()
            await first.low.wait()
        first.channel.send(data)
        sent += 1
        if sent % 16 == 0:
            await asyncio.sleep(0)
    return {}


async def stop(name: str) -> dict[str, Any]:
    connections[name].first.pumping = False
    return {}


async def take(name: str, count: int) -> dict[str, Any]:
    first = connections[name].first
    before = first.bytes
    await first.take(count)
    return {"bytes": first.bytes - before}


async def taken(name: str) -> dict[str, Any]:
    return {"bytes": connections[name].first.bytes}


async def mirror(name: str) -> dict[str, Any]:
    connections[name].first.mirrors = True
    return {}


async def round_trips(name: str, count: int) -> dict[str, Any]:
    first, seconds = connections[name].first, []
    for _ in range(count):
        begin = time.perf_counter()
        first.channel.send(b"x" * 100)
        await first.take(1)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds}


async def cpu() -> dict[str, Any]:
    return {"seconds": time.process_time()}


async def echo_once(connection: Any, count: int, size: int, ordered: bool) -> dict[str, Any]:
    channel = connection.createDataChannel("", ordered=ordered)
    is_open, is_closed, low, complete = (asyncio.Event() for _ in range(4))
    sent: list[bytes] = []
    back: list[bytes] = []

    def message(data: bytes) -> None:
        back.append(data)
        if len(back) == count:
            complete.set()

    channel.on("open", is_open.set)
    channel.on("close", is_closed.set)
    channel.on("bufferedamountlow", low.set)
    channel.on("message", message)
    channel.bufferedAmountLowThreshold = AHEAD_BYTES // 4
    await is_open.wait()
    number = channel.id
    for _ in range(count):
        while channel.bufferedAmount > AHEAD_BYTES:
            low.clear()
            await low.wait()
        sent.append(os.urandom(size))
        channel.send(sent[-1])
        await asyncio.sleep(0)
    await complete.wait()
    channel.close()
    await is_closed.wait()
    return {"id": number, "bytes": sum(map(len, back)), "sent": digest(sent, ordered), "back": digest(back, ordered)}


async def echo(name: str, phases: list[list[tuple[int, int, bool]]]) -> dict[str, Any]:
    return {
        "report": [
            await asyncio.gather(*[echo_once(connections[name], *channel) for channel in phase]) for phase in phases
        ]
    }


async def close(name: str) -> dict[str, Any]:
    await connections.pop(name).close()
    return {}


DOES: dict[str, Any] = {
    each.__name__: each
    for each in (offer, accept, answer, echo, pump, stop, take, taken, mirror, round_trips, cpu, close)
}


async def do(number: int, op: str, words: dict[str, Any]) -> None:
    begin = time.perf_counter()
    try:
        found = await DOES[op](**words)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": number, "took": time.perf_counter() - begin, **found}), flush=True)


async def main(kind: str) -> None:
    global rtc
    rtc = importlib.import_module(LIBRARY[kind])
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = json.loads(line)
        task = loop.create_task(do(words.pop("id"), words.pop("op"), words))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    sys.stdout.flush()
    os._exit(0)  # the libraries' threads and tasks have nothing left to say


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
