"""What strangers may do to a node and a registry, each from an address of its own on loopback, each bounded.

    python -m tests.chaos.attacks NODE REGISTRY LINK FOLDER SECONDS NAME …

runs some at once and says what became of each, as one line of JSON. An attack is a coroutine that goes on until
it is cancelled, and counts what it did and how it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from kodo.client import Client
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.sctp import wire
from kodo.p2p.core.varint import encode_varint
from kodo.p2p.errors import CallError, KodoError
from kodo.p2p.net import direct, udp
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, request
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.dtls import Dtls
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Limits
from tests.support.raw_peer import RawLink
from tests.support.records import flow, signed_record

__all__ = ["ATTACKS", "Target"]

_source: ContextVar[str] = ContextVar("source", default="127.0.0.1")
"""The address that what the current task dials comes from."""


@dataclass
class Target:
    """Whom it is about.

    Attributes:
        node: its address, on loopback; `registry`: its URL.
        link: opens a run with an output.
        told: what was done and how it was refused, by attack.
    """

    node: Multiaddr
    registry: str
    link: str
    folder: Path
    told: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def registry_host(self) -> tuple[str, int]:
        host, port = self.registry.removeprefix("http://").split(":")
        return host, int(port)


Attack = Callable[[Target, Counter[str]], Awaitable[None]]


@contextlib.contextmanager
def counted(told: Counter[str], what: str) -> Any:
    """Count what the block does, or how it was refused."""
    begin = time.monotonic()
    try:
        yield
    except CallError as error:
        told[f"{what}: {error.code} {error.reason}"] += 1
    except (KodoError, OSError, aiohttp.ClientError, TimeoutError) as error:
        told[f"{what}: {type(error).__name__}"] += 1
    else:
        told[what] += 1
    took = round(1000 * (time.monotonic() - begin))
    told[f"{what}: longest ms"] = max(told[f"{what}: longest ms"], took)


def connected_from(host: str, port: int) -> socket.socket:
    """Stand for `udp.connected`: the socket comes from the task's own address."""
    sock = udp.bind(_source.get(), 0)
    sock.connect((host, port))
    return sock


@contextlib.asynccontextmanager
async def session_of(target: Target, identity: Identity | None = None) -> AsyncIterator[Session]:
    """Begin a session as somebody new."""
    async with Host(identity or _somebody(), WebRtcTransport()) as host:
        yield await host.connect([target.node], timeout=20.0)


async def raw_link(target: Target) -> RawLink:
    """Begin a link and say nothing of Noise."""
    sock = connected_from(target.node.host, target.node.port)
    dialling = direct._Dialling(sock)
    try:
        async with asyncio.timeout(10):
            await WebRtcTransport()._check(dialling, "the node")
            link = RawLink(
                _somebody(),
                Certificate.generate(),
                Limits(),
                dialling,
                (target.node.host, target.node.port),
                server=False,
                route="lan",
            )
            dialling.link = link
            link.on_end = dialling.close
            await link.authenticate(expected_digest=target.node.certhash)
    except BaseException:
        dialling.close()
        raise
    return link


def forge(link: RawLink, chunks: bytes) -> None:
    """Send chunks that the association itself would not."""
    codec = link._sctp._codec_out
    if codec is not None and link._error is None:
        link._send_datagrams([link._dtls.encrypt(codec.encode(chunks))])


# --- work and memory before it is known who asks ---


async def resets(target: Target, told: Counter[str]) -> None:
    """Have all streams reset, again and again, of a link with a thousand channels."""
    while True:
        with counted(told, "links"):
            link = await raw_link(target)
            try:
                for _ in range(1000):
                    link._sctp.send(link._sctp.open_channel(), b"x")
                link._flush_soon()
                await asyncio.sleep(1.0)
                sequence, last = link._sctp._resets.sequence, link._sctp._sender.recovery.next_tsn - 1
                for _ in range(40):
                    parameters = b""
                    for _ in range(50):
                        asked = wire.ResetRequest(sequence & 0xFFFFFFFF, 0, last, ())
                        parameters += wire.encode_reset_request(asked)
                        sequence += 1
                    forge(link, wire.encode_chunk(wire.RE_CONFIG, parameters))
                    told["reset packets"] += 1
                    await asyncio.sleep(0.1)
            finally:
                await link.aclose()
        await asyncio.sleep(0.5)


async def garbage(target: Target, told: Counter[str]) -> None:
    """Send chunks of every type with anything in them."""
    chance = random.Random(1)
    kinds = [*range(16), 64, 130, 132, 192, 193, 255]
    while True:
        with counted(told, "links"):
            link = await raw_link(target)
            for _ in range(300):
                body = chance.randbytes(chance.randrange(0, 600))
                forge(link, wire.encode_chunk(chance.choice(kinds), body, chance.randrange(256)))
                told["packets"] += 1
                await asyncio.sleep(0.01)
            await link.aclose()
        await asyncio.sleep(0.5)


async def frames(target: Target, told: Counter[str]) -> None:
    """Begin calls with a MiB of empty maps."""
    body = b"\x82\xa2op\xaanode.state\xa4args\x81\xa1x\xdd" + (1_000_000).to_bytes(4, "big") + b"\x80" * 1_000_000
    while True:
        with counted(told, "frames"):
            async with session_of(target) as session, asyncio.timeout(30):
                stream = await session.open_stream(CALL_PROTOCOL)
                await stream.write(encode_varint(len(body)) + body)
                await stream.close_write()
                await stream.read()
        await asyncio.sleep(1.0)


async def bodies(target: Target, told: Counter[str]) -> None:
    """Bring a registry megabytes of maps that nobody signed."""
    inner = b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\x80" * 1_000_000
    signed = b"\x92\xc6" + len(inner).to_bytes(4, "big") + inner + b"\xc4\x40" + bytes(64)
    plain = b"\x82\xa7payload" + inner[:-200] + b"\xa9signature\xc4\x40" + bytes(64)
    brought = b"\xdd" + (5_000_000).to_bytes(4, "big") + b"\x80" * 5_000_000
    async with _http() as http:
        while True:
            for what, method, path, body in (
                ("up", "PUT", "/up", inner[: 1 << 20]),
                ("up signed", "PUT", "/up", signed[: 1 << 20]),
                ("up plain", "PUT", "/up", plain[: 1 << 20]),
                ("mesh", "POST", "/mesh", brought),
            ):
                with counted(told, what):
                    headers = {"Content-Type": "application/msgpack"}
                    async with http.request(method, target.registry + path, data=body, headers=headers) as answer:
                        told[f"{what}: {answer.status}"] += 1
                await asyncio.sleep(0.5)


async def forms(target: Target, told: Counter[str]) -> None:
    """Launch with inputs that fit a recursive form in very many ways, and with very many numbers."""
    tree: dict[str, Any] = {"items": [{"name": 1}]}
    for _ in range(14):
        tree = {"items": [tree]}
    async with session_of(target) as session:
        while True:
            for what, path, inputs in (
                ("tree", "strangers_flows.plant", {"tree": tree}),
                ("numbers", "strangers_flows.add", {"numbers": [*[1] * 249_999, "x"]}),
            ):
                with counted(told, what):
                    await request(session, "run.launch", {"path": path, "inputs": inputs}, timeout=60.0)
                await asyncio.sleep(1.0)


async def halves(target: Target, told: Counter[str]) -> None:
    """Leave half frames of a MiB in every stream of several sessions."""
    half = encode_varint(1 << 20) + bytes((1 << 20) - 1000)

    async def fill(session: Session) -> None:
        for _ in range(40):
            stream = await session.open_stream(CALL_PROTOCOL)
            await stream.write(half)
            told["half frames"] += 1

    while True:
        with counted(told, "rounds"):
            async with contextlib.AsyncExitStack() as stack, asyncio.timeout(25):
                for _ in range(6):
                    with counted(told, "sessions"):
                        await fill(await stack.enter_async_context(session_of(target)))
                await asyncio.sleep(10)
        await asyncio.sleep(0.5)


async def stopped_readers(target: Target, told: Counter[str]) -> None:
    """Read outputs, and stop after the first piece."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            home = target.folder / f"reader{number}"
            reader = Client(home, lan=False, registries=[], identity=_somebody(), timeout=30)
            client = await stack.enter_async_context(reader)
            with counted(told, "links opened"):
                run = await client.get(target.link)
                session = await run._remote.session()
                for _ in range(62):
                    with counted(told, "reads"):
                        call = Call(session, "output.read", {"fid": run.fid, "name": "made.bin"})
                        await stack.enter_async_context(call)
                        await anext(call)
        await asyncio.Event().wait()


async def half_requests(target: Target, told: Counter[str]) -> None:
    """Hold 110 connections to a registry with half a request head each."""
    host, port = target.registry_host

    async def hold() -> None:
        while True:
            told["connections"] += 1
            with counted(told, "ends"):
                reader, writer = await asyncio.open_connection(host, port, local_addr=(_source.get(), 0))
                try:
                    writer.write(b"GET /nodes HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
                    await writer.drain()
                    told["closed by the registry"] += not await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        for _ in range(110):
            group.create_task(hold())


async def reflection(target: Target, told: Counter[str]) -> None:
    """Count what comes back for what was sent without ever taking an answer."""
    from kodo.p2p.core import stun

    loop = asyncio.get_running_loop()
    worst = 0.0
    for number in itertools.count():
        ufrag = f"{stun.UFRAG_PREFIXES[1]}{number:032x}"
        hello = Dtls(Certificate.generate(), server=False).step(None)
        sock = connected_from(target.node.host, target.node.port)
        sent = received = 0
        try:
            garbled = [b"\x16\xfe\xfd" + bytes(8) + b"\x00\x01\x00"] * 40
            check = stun.binding_request(ufrag, ufrag, os.urandom(12), tie_breaker=number, priority=1)
            for datagram in (check, *hello, *garbled):
                sock.send(datagram)
                sent += len(datagram)
                await asyncio.sleep(0.02)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(4):
                    while True:
                        received += len(await loop.sock_recv(sock, 4096))
        finally:
            sock.close()
        worst = max(worst, received / sent)
        told["sources"] += 1
        told["worst factor, in hundredths"] = round(100 * worst)


# --- fair shares ---


async def places(target: Target, told: Counter[str]) -> None:
    """Hold all places with runs that wait for an answer: as four peers, 30 runs each."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            session = await stack.enter_async_context(session_of(target))
            for _ in range(30):
                with counted(told, "launches"):
                    await request(session, "run.launch", {"path": "strangers_flows.wait", "inputs": {}})
        await asyncio.Event().wait()


async def floods(target: Target, told: Counter[str]) -> None:
    """Have runs that emit 120 MB of events each."""
    async with session_of(target) as session:
        while True:
            with counted(told, "launches"):
                path, inputs = "strangers_flows.flood", {"n": 20_000}
                fid = (await request(session, "run.launch", {"path": path, "inputs": inputs}))["fid"]
                async with asyncio.timeout(120), Call(session, "run.stream", {"fid": fid}, timeout=None) as call:
                    async for _ in call:
                        told["events"] += 1
                    await call.done()
            await asyncio.sleep(1.0)


async def uploads(target: Target, told: Counter[str]) -> None:
    """Begin uploads, send some of each and stop."""

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(64 << 10)
        await asyncio.sleep(30)

    async def one(session: Session, number: int) -> None:
        args = {"name": f"u{number}.bin", "size": 1 << 30, "sha256": f"{number:064x}"}
        with counted(told, "uploads"):
            async with Call(session, "input.write", args, upload=pieces()) as call:
                await call.done()

    async with session_of(target) as session, asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(session, number))


async def guesses(target: Target, told: Counter[str]) -> None:
    """Guess the secrets of links."""
    while True:
        with counted(told, "sessions"):
            async with session_of(target) as session:
                for _ in range(20):
                    with counted(told, "guesses"):
                        await request(session, "share.open", {"secret": os.urandom(16)})
        await asyncio.sleep(0.2)


async def names(target: Target, told: Counter[str]) -> None:
    """Announce nodes that nobody can dial, each of a new peer."""
    headers = {"Content-Type": "application/msgpack"}
    async with _http() as http:
        while True:
            with counted(told, "announcements"):
                now = time.time_ns() // 1_000_000
                signed = signed_record(_somebody(), flow(), name=f"n{now}.example", seq=now, issued_at=now)
                async with http.put(target.registry + "/up", data=signed, headers=headers) as answer:
                    told[f"announcements: {answer.status}"] += 1
            await asyncio.sleep(0.05)


async def sessions(target: Target, told: Counter[str]) -> None:
    """Begin sessions and end them, four at a time."""

    async def begin() -> None:
        while True:
            with counted(told, "sessions"):
                async with session_of(target) as session:
                    await request(session, "flow.list")
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(begin())


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        resets,
        garbage,
        frames,
        bodies,
        forms,
        halves,
        stopped_readers,
        half_requests,
        reflection,
        places,
        floods,
        uploads,
        guesses,
        names,
        sessions,
    )
}


def _somebody() -> Identity:
    return Identity.from_seed(os.urandom(32))


def _http() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(local_addr=(_source.get(), 0))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))


async def attack_all(target: Target, chosen: list[str], seconds: float) -> None:
    """Run attacks at once, each from its own address, each begun again when it ends early."""
    udp.connected = connected_from

    async def insist(number: int, name: str) -> None:
        _source.set(f"127.0.1.{number}")
        told = target.told[name] = Counter()
        while True:
            with counted(told, "rounds"):
                try:
                    await ATTACKS[name](target, told)
                except* (KodoError, OSError, aiohttp.ClientError, TimeoutError) as errors:
                    told[f"ended: {type(errors.exceptions[0]).__name__}"] += 1
            await asyncio.sleep(1.0)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for name in chosen:
                group.create_task(insist(1 + list(ATTACKS).index(name), name))


def main() -> None:
    """Read the command line, attack, and tell."""
    node, registry, link, folder, seconds, *chosen = sys.argv[1:]
    os.nice(10)  # the strangers' own work is not what the user is to feel
    target = Target(Multiaddr.parse(node), registry, link, Path(folder))
    asyncio.run(attack_all(target, chosen, float(seconds)))
    print(json.dumps(target.told))


if __name__ == "__main__":
    main()
