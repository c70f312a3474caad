"""Attacks by what is brought before it is known who asks: work, memory and files per byte."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kodo.p2p.core import stun
from kodo.p2p.core.sctp import wire
from kodo.p2p.core.varint import encode_varint
from kodo.p2p.net.calls import CALL_PROTOCOL, request
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.dtls import Dtls
from kodo.p2p.net.session import Session
from tests.chaos.attacking import (
    Target,
    connected_from,
    counted,
    each_from,
    forge,
    http_session,
    raw_link,
    session_of,
    source,
)

__all__ = [
    "bodies",
    "certificates",
    "forms",
    "frames",
    "garbage",
    "half_requests",
    "halves",
    "reflection",
    "resets",
]


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
    async with http_session() as http:
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
    """Leave half frames of a MiB in every stream of six sessions from each of eight addresses: 1.9 GiB."""
    half = encode_varint(1 << 20) + bytes((1 << 20) - 1000)

    async def fill(session: Session) -> None:
        for _ in range(40):
            stream = await session.open_stream(CALL_PROTOCOL)
            await stream.write(half)
            told["half frames"] += 1

    async def go_on() -> None:
        while True:
            with counted(told, "rounds"):
                async with contextlib.AsyncExitStack() as stack, asyncio.timeout(25):
                    for _ in range(6):
                        with counted(told, "sessions"):
                            await fill(await stack.enter_async_context(session_of(target)))
                    await asyncio.sleep(10)
            await asyncio.sleep(0.5)

    await each_from(8, go_on)


async def certificates(target: Target, told: Counter[str]) -> None:
    """Show certificates, and send records of DTLS, that are nearly right, for libraries to fail over."""
    chance = random.Random(2)
    while True:
        with counted(told, "links"):
            link = await raw_link(target, _odd_certificate(chance, told))
            for _ in range(100):
                sent = link._dtls.encrypt(chance.randbytes(chance.randrange(1, 200)))
                broken = bytearray(sent)
                for _ in range(chance.randrange(1, 4)):
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
                link._send_datagrams([bytes(broken), sent[: chance.randrange(len(sent))]])
                told["records"] += 2
                await asyncio.sleep(0.01)
            await link.aclose()
        await asyncio.sleep(0.3)


def _odd_certificate(chance: random.Random, told: Counter[str]) -> Certificate:
    """Make a certificate with bytes changed that OpenSSL takes all the same."""
    while True:
        made = Certificate.generate()
        der = bytearray(made._certificate.public_bytes(serialization.Encoding.DER))
        for _ in range(chance.randrange(1, 6)):
            der[chance.randrange(len(der))] = chance.randrange(256)
        with contextlib.suppress(Exception):
            odd = x509.load_der_x509_certificate(bytes(der))
            made._certificate = odd
            made.context = made._make_context()
            told["odd certificates"] += 1
            return made


async def half_requests(target: Target, told: Counter[str]) -> None:
    """Hold 110 connections to a registry with half a request head each."""
    host, port = target.registry_host

    async def hold() -> None:
        while True:
            told["connections"] += 1
            with counted(told, "ends"):
                reader, writer = await asyncio.open_connection(host, port, local_addr=(source(), 0))
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
