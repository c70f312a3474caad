"""A Python implementation of WebRTC as a partner of the tests: `python partner.py aiortc|wrtc`.

Reads one JSON object a line on stdin and answers each with one on stdout, both with the same `id`. A connection has a
`name`, and two commands make it: `{op: "offer", name}` gives `{sdp}`, and `{op: "answer", name, sdp}` with ours takes
up the connection. Then it echoes whatever comes on channels that the other side opens. `{op: "echo", name,
phases: [[[count, size, ordered], …], …]}` opens the channels of one phase at once, sends `count` messages of `size`
random bytes on each, takes back as many, closes the channel, then goes on to the next phase; it gives, for each
channel, its `id`, `bytes`, and `sent` and `back`: SHA-256 of the messages, sorted where order is not promised.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import sys
from typing import Any

LIBRARY = {"aiortc": "aiortc", "wrtc": "webrtc.aiortc"}
AHEAD_BYTES = 1 << 20
rtc: Any = None
connections: dict[str, Any] = {}


def digest(messages: list[bytes], ordered: bool) -> str:
    return hashlib.sha256(b"".join(messages if ordered else sorted(messages))).hexdigest()


def opened(channel: Any) -> None:
    channel.on("message", channel.send)


async def offer(name: str) -> dict[str, Any]:
    connection = connections[name] = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=[]))
    connection.on("datachannel", opened)
    connection.first = connection.createDataChannel("", negotiated=True, id=0)
    connection.opened = asyncio.Event()
    connection.first.on("open", connection.opened.set)
    await connection.setLocalDescription(await connection.createOffer())
    return {"sdp": connection.localDescription.sdp}


async def answer(name: str, sdp: str) -> dict[str, Any]:
    connection = connections[name]
    await connection.setRemoteDescription(rtc.RTCSessionDescription(sdp, "answer"))
    if connection.first.readyState != "open":
        await connection.opened.wait()
    return {}


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


DOES = {"offer": offer, "answer": answer, "echo": echo, "close": close}


async def do(number: int, op: str, words: dict[str, Any]) -> None:
    try:
        found = await DOES[op](**words)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": number, **found}), flush=True)


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
