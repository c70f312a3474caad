"""Bytes through streams to and from js-libp2p, whoever dials, over networks of every quality."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.stream import Stream
from tests.support.lossy_relay import lossy_relay
from tests.support.partners import partner
from tests.support.peers import CLIENT, SERVER

ECHO = "/kodo/test/echo/1"
NETWORKS = {
    "clean": ({"loss": 0.0}, 256),
    "2 % lost": ({"loss": 0.02, "duplicate": 0.02, "jitter_s": 0.003}, 64),
    "10 % lost": ({"loss": 0.1, "duplicate": 0.05, "jitter_s": 0.003}, 4),
}
"""What the network does, and how many pieces of 16 KiB the larger stream carries."""


def through(address: Multiaddr, port: int) -> Multiaddr:
    return Multiaddr.parse(str(address).replace(f"/udp/{address.port}/", f"/udp/{port}/"))


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.close_write()


async def send_and_take_back(session: Session, pieces: int, size: int, seed: int) -> tuple[int, str, str]:
    """Give the bytes that came back and the SHA-256 of both ways."""
    chance = random.Random(seed)
    stream = await session.open_stream(ECHO)
    sent, back, count = hashlib.sha256(), hashlib.sha256(), 0

    async def write() -> None:
        for _ in range(pieces):
            data = chance.randbytes(size)
            sent.update(data)
            await stream.write(data)
        await stream.close_write()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while data := await stream.read():
            back.update(data)
            count += len(data)
    await stream.aclose()
    return count, sent.hexdigest(), back.hexdigest()


@pytest.mark.parametrize("network", NETWORKS)
async def test_what_either_side_sends_comes_back_whole(network: str) -> None:
    options, pieces = NETWORKS[network]
    plan = [(pieces, 16 << 10), (50, 100)]
    async with asyncio.timeout(90), partner("libp2p") as theirs, Host(SERVER, WebRtcTransport()) as ours:
        ours.handle(ECHO, echo)
        [listening] = await ours.listen(["127.0.0.1"])
        their_address = Multiaddr.parse((await theirs.ask("listen"))["address"])
        async with (
            lossy_relay(("127.0.0.1", listening.port), seed=3, **options) as to_us,
            lossy_relay(("127.0.0.1", their_address.port), seed=4, **options) as to_them,
            Host(CLIENT, WebRtcTransport()) as client,
        ):
            dialled = asyncio.ensure_future(
                theirs.ask("dial", address=str(through(listening, to_us.port)), streams=plan)
            )
            session = await client.connect([through(their_address, to_them.port)], timeout=30)
            found = await asyncio.gather(
                *[send_and_take_back(session, *each, seed) for seed, each in enumerate(plan)]
            )
            report = (await dialled)["report"]
    for (count, size), (came, sent, back), theirs_found in zip(plan, found, report, strict=True):
        assert (came, sent) == (count * size, back)
        assert theirs_found == {"bytes": count * size, "sent": theirs_found["back"], "back": theirs_found["back"]}
