"""Two small protocols that every libp2p peer speaks: identify and ping (libp2p/specs, identify and ping)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kodo.p2p.core.identity import PeerId, decode_public_key, encode_public_key
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.protobuf import bytes_field, fields
from kodo.p2p.core.varint import IncompleteError, decode_varint, encode_varint
from kodo.p2p.errors import DeadlineError, PeerError

if TYPE_CHECKING:
    from kodo.p2p.net.session import Session
    from kodo.p2p.net.stream import Stream

__all__ = ["IDENTIFY", "PING", "Identification", "answer_identify", "answer_ping", "identify", "ping"]

IDENTIFY = "/ipfs/id/1.0.0"
PING = "/ipfs/ping/1.0.0"
PROTOCOL_VERSION = "kodo/1"
PING_BYTES = 32
MAX_IDENTIFY_BYTES = 64 << 10
_PUBLIC_KEY, _LISTEN_ADDRS, _PROTOCOLS, _VERSION, _AGENT = 1, 2, 3, 5, 6


@dataclass(frozen=True, slots=True)
class Identification:
    """What a peer says of itself."""

    peer_id: PeerId
    agent: str
    protocols: tuple[str, ...]
    addresses: tuple[Multiaddr, ...]


async def answer_identify(stream: Stream, told: Identification) -> None:
    """Send the other side who this host is, what it speaks and where it listens."""
    body = (
        bytes_field(_PUBLIC_KEY, encode_public_key(told.peer_id.public_key))
        + b"".join(bytes_field(_LISTEN_ADDRS, each.to_bytes()) for each in told.addresses)
        + b"".join(bytes_field(_PROTOCOLS, protocol.encode()) for protocol in told.protocols)
        + bytes_field(_VERSION, PROTOCOL_VERSION.encode())
        + bytes_field(_AGENT, told.agent.encode())
    )
    await stream.write(encode_varint(len(body)) + body)
    await stream.aclose()


async def answer_ping(stream: Stream) -> None:
    """Send back what comes, 32 bytes at a time, for as long as the peer likes."""
    while data := await stream.read(PING_BYTES):
        await stream.write(data)
    await stream.aclose()


async def identify(session: Session, *, timeout: float = 10.0) -> Identification:
    """Ask the other side who it is; what it says beyond its key is a claim.

    Raises:
        PeerError: the answer is malformed or names another key than the session proved.
        DeadlineError: no answer in time.
    """
    data = b""
    try:
        async with asyncio.timeout(timeout):
            stream = await session.open_stream(IDENTIFY)
            while part := await stream.read():
                data += part
                if len(data) > MAX_IDENTIFY_BYTES:
                    stream.reset()
                    raise PeerError(f"an identification of more than {MAX_IDENTIFY_BYTES} bytes")
            await stream.aclose()
    except TimeoutError:
        raise DeadlineError(f"no identification within {timeout:g} s") from None
    try:
        length, start = decode_varint(data)
        key, agent, protocols, addresses = b"", "", [], []
        for number, value in fields(data[start : start + length]):
            if not isinstance(value, bytes):
                continue
            if number == _PUBLIC_KEY:
                key = value
            elif number == _AGENT:
                agent = value.decode()
            elif number == _PROTOCOLS:
                protocols.append(value.decode())
            elif number == _LISTEN_ADDRS:
                addresses.append(Multiaddr.from_bytes(value))
        peer_id = decode_public_key(key)
    except (IncompleteError, ValueError) as error:
        raise PeerError(f"a malformed identification: {error}") from error
    if peer_id != session.remote_peer:
        raise PeerError("the identification names another key than the session proved")
    return Identification(peer_id, agent, tuple(protocols), tuple(addresses))


async def ping(session: Session, *, timeout: float = 10.0) -> float:
    """Measure one round trip; seconds.

    Raises:
        PeerError: something else came back.
        DeadlineError: nothing came back in time.
    """
    sent = os.urandom(PING_BYTES)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            stream = await session.open_stream(PING)
            begin = loop.time()
            await stream.write(sent)
            received = b""
            while len(received) < PING_BYTES and (part := await stream.read(PING_BYTES - len(received))):
                received += part
            elapsed = loop.time() - begin
            await stream.aclose()
    except TimeoutError:
        raise DeadlineError(f"no answer to a ping within {timeout:g} s") from None
    if received != sent:
        raise PeerError("a ping came back changed")
    return elapsed
