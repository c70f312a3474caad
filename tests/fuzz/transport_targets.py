"""What carries sessions: SCTP chunk by chunk, with everything that came before kept; DTLS; what mDNS says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from random import Random
from struct import pack

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.sctp import Association, MessageReceived, Settings, wire
from kodo.p2p.core.sctp.channels import encode_open
from kodo.p2p.errors import KodoError
from kodo.p2p.net.certificate import Certificate, CookieGate
from kodo.p2p.net.discovery import Advertisement
from kodo.p2p.net.dtls import Dtls
from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.targets import Target, hexes, vectors
from tests.fuzz.wire_targets import IDENTITY

__all__ = ["targets"]

_TAG, _TSN, _PEER_TSN = 22, 1000, 2000
_NUMBERS = (0, 1, 2, 3, 5, 8, 64, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_KINDS = (*range(16), wire.RE_CONFIG, wire.PAD, 64, 0xC0, 0xC1, 0xFF)


def _data_chunk(tsn: int, stream: int, sequence: int, protocol: int, data: bytes, flags: int) -> bytes:
    body = pack(">IHHI", tsn & 0xFFFFFFFF, stream, sequence, protocol) + data
    return wire.encode_chunk(wire.DATA, body, flags)


def _number(rng: Random, near: int) -> int:
    kind = rng.random()
    if kind < 0.7:
        return near + int(rng.random() * 12)
    if kind < 0.9:
        return near + int(rng.random() * 400) - 200
    return _NUMBERS[int(rng.random() * len(_NUMBERS))]


def _stream(rng: Random) -> int:
    return int(rng.random() * 8) if rng.random() < 0.9 else _number(rng, 0) & 0xFFFF


def _data(rng: Random, at: int) -> bytes:
    protocol = (50, 51, 53, 53, 53, 56, 57, 54, 0)[int(rng.random() * 9)]
    payload = (
        encode_open("a" * int(rng.random() * 4), "") if protocol == 50 else rng.randbytes(1 + int(rng.random() * 20))
    )
    flags = 3 if rng.random() < 0.6 else int(rng.random() * 16)
    sequence = int(rng.random() * 4) if rng.random() < 0.9 else _number(rng, 0) & 0xFFFF
    return _data_chunk(_number(rng, at), _stream(rng), sequence, protocol, payload, flags)


def _sack(rng: Random, at: int) -> bytes:
    runs, duplicates = (int(rng.random() * 6) if rng.random() < 0.5 else 0 for _ in range(2))
    window = (0, 1, 1200, 1 << 20, 1 << 31, 0xFFFFFFFF)[int(rng.random() * 6)]
    body = pack(">IIHH", _number(rng, _PEER_TSN - 2) & 0xFFFFFFFF, window, runs, duplicates)
    offset = 1
    for _ in range(runs):
        first = offset + int(rng.random() * 5)
        offset = first + int(rng.random() * 4)
        body += pack(">HH", first & 0xFFFF, offset & 0xFFFF)
    return wire.encode_chunk(wire.SACK, body + rng.randbytes(4 * duplicates))


def _re_config(rng: Random, at: int) -> bytes:
    body = b""
    for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.05)):
        kind = 13 + int(rng.random() * 6)
        first = _number(rng, _TSN if kind != 16 else _PEER_TSN) & 0xFFFFFFFF
        content = pack(">I", first)
        if kind == 13:
            content += pack(">II", _number(rng, _PEER_TSN) & 0xFFFFFFFF, _number(rng, at) & 0xFFFFFFFF)
            content += b"".join(pack(">H", _stream(rng)) for _ in range(int(rng.random() * 5)))
        elif kind == 16:
            content += pack(">I", int(rng.random() * 9))
        else:
            content += rng.randbytes(2 * int(rng.random() * 5))
        body += wire.encode_parameter(kind, content)
    return wire.encode_chunk(wire.RE_CONFIG, body)


def _other(rng: Random, at: int) -> bytes:
    kind = _KINDS[int(rng.random() * len(_KINDS))]
    if kind in (wire.ABORT, wire.SHUTDOWN, wire.DATA, wire.SACK) and rng.random() < 0.9:
        kind = wire.HEARTBEAT  # most of these end the association, and with it what was built up
    return wire.encode_chunk(kind, rng.randbytes(int(rng.random() * 24)), int(rng.random() * 4))


def _chunks(rng: Random) -> bytes:
    """Give the chunks of one packet; TSNs are near those that come next as long as all goes well."""
    at = _TSN + int(rng.random() * 40)
    kinds = (_data, _data, _data, _sack, _re_config, _other)
    chunks = b"".join(kinds[int(rng.random() * 6)](rng, at) for _ in range(1 + int(rng.random() * 4)))
    return chunks if rng.random() < 0.95 else mutated_bytes(rng, [chunks])


def _established() -> Callable[[bytes], None]:
    state: dict[str, Association] = {}
    now = 100.0
    codec = wire.PacketCodec(5000, _TAG)

    def fresh() -> Association:
        nonlocal now
        client, side = (
            Association(
                client=tag != _TAG,
                tag=tag,
                initial_tsn=_PEER_TSN if tag == _TAG else _TSN,
                cookie_secret=bytes(32),
                settings=Settings(max_channels=40, early_channels=20),
            )
            for tag in (11, _TAG)
        )
        now = 100.0
        for each in (client, side):
            each.connect(now)
        for to, by in ((side, client), (client, side)) * 4:
            for packet in by.datagrams_to_send(now):
                to.receive_datagram(packet, now)
        for _ in range(3):
            side.send(side.open_channel(), bytes(3000))
        side.datagrams_to_send(now)
        return side

    def read(chunks: bytes) -> None:
        nonlocal now
        side = state.get("side") or fresh()
        state["side"] = side
        now += 0.0001 * len(chunks)
        if (timer := side.get_timer()) is not None and timer <= now:
            side.handle_timer(now)
        side.receive_datagram(codec.encode(chunks), now)
        while (event := side.next_event()) is not None:
            if isinstance(event, MessageReceived) and len(event.data) % 2:
                side.consumed(len(event.data))
                side.close_channel(event.channel_id)
        side.datagrams_to_send(now)
        if side.state.name == "CLOSED":
            del state["side"]

    return read


def _beginning() -> Callable[[bytes], None]:
    codec = wire.PacketCodec(5000, _TAG)

    def read(chunks: bytes) -> None:
        side = Association(client=True, tag=_TAG, initial_tsn=1, cookie_secret=bytes(32))
        side.connect(1.0)
        for packet in (codec.encode(chunks), wire.PacketCodec(5000, 0).encode(chunks)):
            side.receive_datagram(packet, 1.1)
        side.datagrams_to_send(1.2)

    return read


@functools.cache
def _certificate() -> Certificate:
    return Certificate.generate()


@functools.cache
def _flights() -> list[bytes]:
    """The datagrams of a handshake, both ways."""
    client, server = Dtls(_certificate(), server=False), Dtls(_certificate(), server=True)
    found = waiting = client.step()
    for side in (server, client) * 4:
        waiting = [each for datagram in waiting for each in ([] if side.finished else side.step(datagram))]
        found = found + waiting
    return found


def _read_hello() -> Callable[[bytes], None]:
    gate = CookieGate(_certificate())

    def read(data: bytes) -> None:
        gate.feed(("192.0.2.7", 4711), data)
        server = Dtls(_certificate(), server=True)
        server.step(data)

    return read


def _read_records() -> Callable[[bytes], None]:
    client, server = Dtls(_certificate(), server=False), Dtls(_certificate(), server=True)
    waiting = client.step()
    for side in (server, client) * 4:
        waiting = [each for datagram in waiting for each in ([] if side.finished else side.step(datagram))]
    assert client.finished
    assert server.finished

    def read(data: bytes) -> None:
        datagram = client.encrypt(data)
        cut = datagram[: 1 + len(data) % len(datagram)] + data
        if server.decrypt(cut) and len(cut) < len(datagram):
            raise AssertionError("a record that was cut was taken")
        while server.rest():
            pass
        server.unsent()

    return read


def targets() -> list[Target]:
    """Give the targets of this module."""
    golden = [packet[12:] for packet in hexes(vectors("sctp")) if len(packet) > 16]
    peer = str(IDENTITY.peer_id)
    address = Multiaddr.webrtc_direct("192.0.2.7", 4711, bytes(range(32)), IDENTITY.peer_id)
    text = Advertisement(peer, "a node", 3, (address, address)).to_text()
    return [
        Target("sctp", _chunks, _established, (), 4000),
        Target("sctp golden", lambda rng: mutated_bytes(rng, golden), _established, (), 4000),
        Target("sctp beginning", lambda rng: mutated_bytes(rng, golden), _beginning, (), 4000),
        Target("dtls handshake", lambda rng: mutated_bytes(rng, _flights()), _read_hello, (KodoError,), 3000),
        Target(
            "dtls records", lambda rng: mutated_bytes(rng, _flights()), _read_records, (KodoError,), 3000, grows=False
        ),
        Target(
            "mdns", lambda rng: mutated_bytes(rng, [text]), lambda: lambda data: Advertisement.from_text(peer, data)
        ),
    ]
