"""The codecs of `kodo.p2p.core`: whole, and byte by byte where bytes may arrive so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

import msgpack

from kodo.p2p.core import stun
from kodo.p2p.core.callframe import FrameReader, encode_frame, read_answer, read_request
from kodo.p2p.core.framing import Flag, MessageReader, encode_message
from kodo.p2p.core.identity import Identity, PeerId, decode_public_key
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.multibase import base58_decode, decode_multibase
from kodo.p2p.core.negotiate import Accepting, Dialing
from kodo.p2p.core.noise import NoiseFrames, NoiseXX, read_payload
from kodo.p2p.core.protobuf import fields
from kodo.p2p.core.varint import decode_varint, encode_varint
from kodo.p2p.errors import PeerError
from tests.fuzz.mutations import mutated_bytes, mutated_text, mutated_value
from tests.fuzz.targets import Difference, Target, hexes, vectors

__all__ = ["targets"]

IDENTITY = Identity.from_seed(bytes(32))
UFRAG = stun.UFRAG_PREFIXES[1] + "abcdefgh"
PROTOCOLS = ("/kodo/call/1", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0")
_BY_BYTE = 0.1
"""Share of inputs that are also read byte by byte; it takes as much longer."""


class _Reader(Protocol):
    def feed(self, data: bytes, /) -> Any: ...


def read_in_parts(make: Callable[[], _Reader], data: bytes, *, values: bool = True) -> None:
    """Read `data` whole and byte by byte.

    Raises:
        Difference: the two do not give the same values, or only one refuses.
    """
    outcomes = []
    for parts in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader, found, refused = make(), [], False
        try:
            for part in parts:
                found.append(reader.feed(part))
        except PeerError:
            refused = True
        whole = [each for some in found for each in some] if values else []
        outcomes.append((refused, "" if refused else repr(whole)))
    if outcomes[0] != outcomes[1]:
        raise Difference(f"whole: {outcomes[0]}; byte by byte: {outcomes[1]}"[:400])


def _stream(
    make: Callable[[], _Reader], use: Callable[[Any], object] = lambda value: None
) -> Callable[[Any], object]:
    def read(data: bytes) -> None:
        if len(data) < 600 and data[-1:] < bytes([int(256 * _BY_BYTE)]):
            read_in_parts(make, data)
        for value in make().feed(data):
            use(value)

    return read


def _bytes(seeds: Sequence[bytes]) -> Callable[[Random], bytes]:
    return lambda rng: mutated_bytes(rng, seeds)


def _texts(seeds: Sequence[str]) -> Callable[[Random], str]:
    return lambda rng: mutated_text(rng, seeds)


def _call_value(value: Any) -> None:
    for read in (read_request, read_answer):
        with contextlib.suppress(PeerError):
            read(value)


def _call_frame(rng: Random) -> bytes:
    value = mutated_value(rng, CALLS[int(rng.random() * len(CALLS))])
    try:
        packed = msgpack.packb(value, use_bin_type=True)
    except (ValueError, TypeError, OverflowError):
        packed = b"\xc0"
    return encode_varint(len(packed)) + bytes(packed)


CALLS: tuple[dict[str, Any], ...] = (
    {"op": "run.launch", "args": {"path": "flows.a", "inputs": {"name": "Zoë", "n": [1, 2.5, None, True]}}},
    {"item": {"seq": 7, "at": 1.5, "event": "progress", "data": {"percent": 10}}},
    {"done": {"fid": "01j" + "0" * 23, "bytes": b"x" * 40}},
    {"error": {"code": 404, "reason": "no-such-run", "message": "there is none", "data": {"fid": "x"}}},
)


def _stun_attributes(rng: Random) -> bytes:
    kind = (b"\x00\x01", b"\x01\x01", b"\x00\x11", b"\x01\x11")[int(rng.random() * 4)]
    body = b""
    for _ in range(int(rng.random() * 7)):
        number = (0x0006, 0x0020, 0x0024, 0x0008, 0x8028, 0x8029, 0x0025, 0x0009, 0x0001)[int(rng.random() * 9)]
        value = rng.randbytes(int(rng.random() * 28))
        body += number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    return kind + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12) + body


def _read_stun(data: bytes) -> None:
    stun.is_dtls(data)
    stun.is_dtls_handshake(data)
    stun.is_binding_request(data)
    with contextlib.suppress(ValueError):
        stun.binding_response(stun.read_binding_request(data), ("192.0.2.7", 4711))
    stun.read_binding_response(data, bytes(12), UFRAG)


def _handshake(*, initiator: bool) -> NoiseXX:
    return NoiseXX(initiator, b"\x01" * 32, b"\x02" * 32, b"prologue", IDENTITY)


def _read_noise(data: bytes) -> None:
    initiator, responder = _handshake(initiator=True), _handshake(initiator=False)
    initiator.write_message()
    with contextlib.suppress(PeerError):
        initiator.read_message(data)
    responder.read_message(data)
    responder.write_message()
    responder.read_message(data)


def _negotiate(data: bytes) -> None:
    for make in (lambda: Accepting(PROTOCOLS), lambda: Dialing(PROTOCOLS[0])):
        with contextlib.suppress(PeerError):
            make().feed(data)
        reader = make()
        with contextlib.suppress(PeerError):
            for at in range(min(len(data), 300)):
                reader.feed(data[at : at + 1])


def _read_address(data: bytes) -> None:
    address = Multiaddr.from_bytes(data)
    if Multiaddr.from_bytes(address.to_bytes()) != address or Multiaddr.parse(str(address)) != address:
        raise Difference("an address is not written as it was read")


def _read_address_text(text: str) -> None:
    address = Multiaddr.parse(text)
    if Multiaddr.parse(str(address)) != address or Multiaddr.from_bytes(address.to_bytes()) != address:
        raise Difference("an address is not written as it was read")


def _read_peer(text: str) -> None:
    peer = PeerId.parse(text)
    if PeerId.from_bytes(peer.to_bytes()) != peer or PeerId.parse(str(peer)) != peer:
        raise Difference("a peer id is not written as it was read")


def targets() -> list[Target]:
    """Give the targets of this module."""
    address = Multiaddr.webrtc_direct("192.0.2.7", 4711, bytes(range(32)), IDENTITY.peer_id)
    addresses = [str(address), *(each["text"] for each in vectors("multiaddr")["valid"])]
    request = stun.binding_request(UFRAG, "abcd", bytes(12), tie_breaker=1, priority=1)
    response = stun.binding_response(stun.read_binding_request(request), ("192.0.2.7", 4711))
    messages = encode_message(None, b"abc") + encode_message(Flag.FIN, b"x" * 150) + encode_message(Flag.RESET)
    hello = Dialing(PROTOCOLS[0]).hello()
    first = _handshake(initiator=True).write_message()
    frames = [encode_frame(value) for value in CALLS]
    bases = [each[key] for each in vectors("multibase")["valid"] for key in ("base58", "base64url")]
    golden_noise = hexes(vectors("noise")["messages"])
    return [
        Target("varint", _bytes(hexes(vectors("varint")["valid"])), lambda: decode_varint),
        Target("protobuf", _bytes(hexes(vectors("identity"))), lambda: lambda data: list(fields(data))),
        Target("multibase", _texts(bases), lambda: decode_multibase, steps=4000),
        Target("base58", _texts(bases), lambda: base58_decode, steps=4000),
        Target("address", _texts(addresses), lambda: _read_address_text),
        Target("address bytes", _bytes(hexes(vectors("multiaddr"))), lambda: _read_address),
        Target("peer id", _texts([each["peer_id"] for each in vectors("identity")["valid"]]), lambda: _read_peer),
        Target("peer id bytes", _bytes(hexes(vectors("identity"))), lambda: PeerId.from_bytes),
        Target("public key", _bytes(hexes(vectors("identity"))), lambda: decode_public_key),
        Target("stun", _bytes([request, response, *hexes(vectors("stun"))]), lambda: _read_stun, steps=1000),
        Target("stun attributes", _stun_attributes, lambda: _read_stun, steps=1000),
        Target(
            "stream messages",
            _bytes([messages, *hexes(vectors("framing")["valid"])]),
            lambda: _stream(MessageReader),
            (PeerError,),
            1000,
        ),
        Target(
            "call frames",
            _bytes([*frames, *hexes(vectors("callframe"))]),
            lambda: _stream(FrameReader, _call_value),
            (PeerError,),
            1000,
        ),
        Target("call values", _call_frame, lambda: _stream(FrameReader, _call_value), (PeerError,), 1000),
        Target(
            "negotiate",
            _bytes([hello + b"payload", *hexes(vectors("negotiate"))]),
            lambda: _negotiate,
            (PeerError,),
            3000,
        ),
        Target("noise frames", _bytes([b"\0\3abc\0\0\0\1x"]), lambda: _stream(NoiseFrames)),
        Target(
            "noise", _bytes([first, first * 4, *golden_noise]), lambda: _read_noise, (PeerError,), 3000, grows=False
        ),
        Target(
            "noise payload",
            _bytes([value for value in hexes(vectors("noise")) if value[:1] == b"\x0a"]),
            lambda: lambda data: read_payload(data, bytes(32)),
            (PeerError,),
        ),
    ]
