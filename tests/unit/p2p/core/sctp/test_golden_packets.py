"""Packets that other implementations sent, read and written again: what we make of them is what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.channels import encode_open, parse_open
from kodo.p2p.core.sctp.wire import PacketCodec

VECTORS = json.loads((Path(__file__).parents[4] / "vectors" / "sctp.json").read_text())
PACKETS = [
    (partner, each["chunks"], bytes.fromhex(each["packet"])) for partner in VECTORS for each in VECTORS[partner]
]


def chunks(packet: bytes) -> list[tuple[int, int, bytes]]:
    """Split a packet into type, flags and value."""
    found, position = [], wire.HEADER_BYTES
    while position < len(packet):
        kind, flags, length = wire.CHUNK_HEADER.unpack_from(packet, position)
        found.append((kind, flags, packet[position + 4 : position + length]))
        position += length + (-length & 3)
    return found


def of_kind(wanted: int) -> list[tuple[int, bytes]]:
    return [(flags, body) for _, _, packet in PACKETS for kind, flags, body in chunks(packet) if kind == wanted]


@pytest.mark.parametrize(
    ("partner", "kind", "packet"), PACKETS, ids=[f"{name.split(',')[0]}: {kind}" for name, kind, _ in PACKETS]
)
def test_a_packet_is_written_as_it_was_read(partner: str, kind: str, packet: bytes) -> None:
    source, target, tag = wire.COMMON_HEADER.unpack_from(packet)
    assert source == target == 5000
    codec = PacketCodec(5000, tag)
    assert codec.matches(packet)
    assert (
        codec.encode(b"".join(wire.encode_chunk(kind, body, flags) for kind, flags, body in chunks(packet))) == packet
    )
    damaged = packet[:-1] + bytes([packet[-1] ^ 1])
    assert not codec.matches(damaged)


def test_every_implementation_is_there_with_what_a_session_needs() -> None:
    assert len(VECTORS) == 3
    for partner in VECTORS:
        kinds = {kind for name, kind, _ in PACKETS if name == partner}
        assert kinds >= {"INIT", "COOKIE_ECHO", "SACK", "SACK gaps", "DATA DCEP", "DATA message", "RE_CONFIG request"}
    assert {"INIT_ACK", "COOKIE_ACK", "RE_CONFIG response", "ABORT", "SHUTDOWN"} <= {kind for _, kind, _ in PACKETS}


@pytest.mark.parametrize("wanted", [wire.INIT, wire.INIT_ACK])
def test_what_an_init_says_survives_our_own_writing(wanted: int) -> None:
    for _, body in of_kind(wanted):
        said = wire.parse_init(body)
        assert said.resets
        assert (len(said.cookie) > 0) == (wanted == wire.INIT_ACK)
        again = wire.parse_init(wire.encode_init(wanted, said)[4:])
        assert (again.tag, again.window, again.outbound, again.inbound, again.tsn, again.resets) == (
            said.tag,
            said.window,
            said.outbound,
            said.inbound,
            said.tsn,
            said.resets,
        )
        assert again.cookie == said.cookie


def test_a_sack_is_written_as_it_was_read() -> None:
    found = of_kind(wire.SACK)
    for flags, body in found:
        chunk = wire.encode_chunk(wire.SACK, body, flags)
        tsn, window, runs, duplicates = wire.parse_sack(chunk, 0, len(chunk))
        gaps = [(tsn + first, tsn + last) for first, last in zip(runs[::2], runs[1::2], strict=True)]
        assert wire.encode_sack(tsn, window, gaps, duplicates) == chunk
    assert any(body[8:10] != b"\0\0" for _, body in found)


def test_a_reset_request_is_written_as_it_was_read() -> None:
    parameters = [each for _, body in of_kind(wire.RE_CONFIG) for each in wire.parse_parameters(body)]
    requests = [body for kind, body in parameters if kind == wire.PARAMETER_RESET_OUTGOING]
    assert len(requests) >= 3
    for body in requests:
        request = wire.parse_reset_request(body)
        assert request.streams
        assert wire.encode_reset_request(request) == wire.encode_parameter(wire.PARAMETER_RESET_OUTGOING, body)


def test_what_opens_a_channel_is_read_as_what_it_is() -> None:
    dcep = [body[12:] for _, body in of_kind(wire.DATA) if int.from_bytes(body[8:12], "big") == wire.PROTOCOL_DCEP]
    opens = [data for data in dcep if data[0] == 3]
    assert opens
    for data in opens:
        assert parse_open(data) == ("", "")
        assert len(data) == len(encode_open("", ""))
