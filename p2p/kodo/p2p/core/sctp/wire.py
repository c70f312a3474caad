"""SCTP packets, chunks and parameters as bytes: encode beside decode.

A packet is a common header (ports, verification tag, CRC32c) and chunks; a chunk is type, flags, length and a value,
padded to four bytes; some values hold parameters of the same shape. Everything that stands for "bad input" raises
ValueError and nothing else. DATA and SACK, nearly all of what is ever sent, are packed and unpacked by one
preallocated struct each, without objects.

Source: RFC 9260, 3; RFC 6525, 4 (RE-CONFIG); RFC 5061, 4.2.7 (supported extensions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct, pack, unpack_from
from typing import Final

from google_crc32c import extend, value

__all__ = [
    "ABORT",
    "CAUSE_PROTOCOL_VIOLATION",
    "CAUSE_USER_ABORT",
    "CHUNK_HEADER",
    "COMMON_HEADER",
    "COOKIE_ACK",
    "COOKIE_ECHO",
    "DATA",
    "DATA_HEADER",
    "DATA_HEADER_BYTES",
    "ERROR",
    "FLAG_BEGIN",
    "FLAG_END",
    "FLAG_IMMEDIATE",
    "FLAG_UNORDERED",
    "HEADER_BYTES",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "INIT",
    "INIT_ACK",
    "MAX_RE_CONFIG_PARAMETERS",
    "PAD",
    "PARAMETER_ADD_STREAMS",
    "PARAMETER_RESET_INCOMING",
    "PARAMETER_RESET_OUTGOING",
    "PARAMETER_RESET_RESPONSE",
    "PARAMETER_RESET_TSN",
    "PROTOCOL_DCEP",
    "RE_CONFIG",
    "SACK",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "SHUTDOWN_COMPLETE",
    "Init",
    "PacketCodec",
    "ResetRequest",
    "encode_chunk",
    "encode_init",
    "encode_parameter",
    "encode_reset_request",
    "encode_sack",
    "follows",
    "is_lone_sack",
    "parse_causes",
    "parse_init",
    "parse_parameters",
    "parse_reset_request",
    "parse_sack",
]

DATA: Final = 0
INIT: Final = 1
INIT_ACK: Final = 2
SACK: Final = 3
HEARTBEAT: Final = 4
HEARTBEAT_ACK: Final = 5
ABORT: Final = 6
SHUTDOWN: Final = 7
SHUTDOWN_ACK: Final = 8
ERROR: Final = 9
COOKIE_ECHO: Final = 10
COOKIE_ACK: Final = 11
SHUTDOWN_COMPLETE: Final = 14
RE_CONFIG: Final = 130
PAD: Final = 132
"""Means nothing; makes a packet longer (RFC 4820)."""

FLAG_END: Final = 0x01
PROTOCOL_DCEP: Final = 50
"""Payload protocol of what opens data channels (RFC 8832, 8.1)."""

FLAG_BEGIN: Final = 0x02
FLAG_UNORDERED: Final = 0x04
FLAG_IMMEDIATE: Final = 0x08
"""Asks for a SACK without delay (RFC 7053)."""

PARAMETER_STATE_COOKIE: Final = 7
PARAMETER_UNRECOGNIZED: Final = 8
PARAMETER_SUPPORTED_EXTENSIONS: Final = 0x8008
PARAMETER_FORWARD_TSN: Final = 0xC000
PARAMETER_RESET_OUTGOING: Final = 13
PARAMETER_RESET_INCOMING: Final = 14
PARAMETER_RESET_TSN: Final = 15
PARAMETER_RESET_RESPONSE: Final = 16
PARAMETER_ADD_STREAMS: Final = 17

CAUSE_USER_ABORT: Final = 12
CAUSE_PROTOCOL_VIOLATION: Final = 13

COMMON_HEADER: Final = Struct(">HHI")
CHUNK_HEADER: Final = Struct(">BBH")
DATA_HEADER: Final = Struct(">BBHIHHI")
"""Type, flags, length, TSN, stream, stream sequence number, payload protocol."""
_CHECKSUM: Final = Struct("<I")
_SACK: Final = Struct(">BBHIIHH")
_SACK_KIND: Final = bytes((SACK,))
_NO_WINDOW: Final = bytes(4)
_NO_DUPLICATES: Final = bytes(2)
_INIT: Final = Struct(">IIHHI")
_RESET: Final = Struct(">III")

HEADER_BYTES: Final = 12
DATA_HEADER_BYTES: Final = 16
_MASK: Final = 0xFFFFFFFF
MAX_PARAMETERS: Final = 64
"""Parameters of one chunk that are looked at; no implementation sends more than about ten."""
MAX_RE_CONFIG_PARAMETERS: Final = 2
"""A request and the answer to one, or two requests (RFC 6525, 3.1)."""


class PacketCodec:
    """The common header of one direction: the same ports and tag in every packet, so most of its work is done once.

    Args:
        port: both the source and the destination port.
        tag: the verification tag of whoever receives.
    """

    __slots__ = ("_crc", "_head")

    def __init__(self, port: int, tag: int) -> None:
        self._head = COMMON_HEADER.pack(port, port, tag)
        self._crc = value(self._head + bytes(4))

    def encode(self, chunks: bytes) -> bytes:
        """Return the packet that carries `chunks`, which are padded already."""
        return self._head + _CHECKSUM.pack(extend(self._crc, chunks)) + chunks

    def matches(self, packet: bytes) -> bool:
        """Return whether header and checksum of a packet that was received are right."""
        return packet[:8] == self._head and packet[8:12] == _CHECKSUM.pack(extend(self._crc, packet[12:]))


def encode_chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return a chunk with its padding."""
    return CHUNK_HEADER.pack(kind, flags, 4 + len(body)) + body + bytes(-len(body) & 3)


def encode_parameter(kind: int, body: bytes) -> bytes:
    """Return a parameter (or an error cause, which has the same shape) with its padding."""
    return pack(">HH", kind, 4 + len(body)) + body + bytes(-len(body) & 3)


def parse_parameters(data: bytes, most: int = MAX_PARAMETERS) -> list[tuple[int, bytes]]:
    """Split a chunk's value into parameters (type, value), at most `most`.

    Raises:
        ValueError: when a length is wrong or there are too many.
    """
    found: list[tuple[int, bytes]] = []
    position, size = 0, len(data)
    while position + 4 <= size:
        kind, length = unpack_from(">HH", data, position)
        if length < 4 or position + length > size:
            raise ValueError("a parameter does not fit into its chunk")
        found.append((kind, data[position + 4 : position + length]))
        if len(found) > most:
            raise ValueError("a chunk has too many parameters")
        position += length + (-length & 3)
    return found


def parse_causes(data: bytes) -> tuple[int, str]:
    """Return the first cause of an ABORT or ERROR: its code and its text, if it has one; (0, "") for none."""
    try:
        causes = parse_parameters(data)
    except ValueError:
        return 0, ""
    if not causes:
        return 0, ""
    code, body = causes[0]
    text = body[:128].decode("utf-8", "replace") if code in (CAUSE_USER_ABORT, CAUSE_PROTOCOL_VIOLATION) else ""
    return code, "".join(letter for letter in text if letter.isprintable())


@dataclass(frozen=True, slots=True)
class Init:
    """An INIT or INIT ACK.

    Attributes:
        tag: the verification tag that its sender wants to see.
        window: bytes that its sender is ready to keep.
        outbound: streams that its sender wants to use.
        inbound: streams that its sender accepts.
        tsn: its sender's first TSN, 32 bits.
        resets: whether its sender can reset streams (RE-CONFIG).
        pads: whether its sender names PAD among its extensions: it takes packets as long as DTLS allows.
        cookie: of an INIT ACK; b"" if there is none.
        unrecognized: parameters, encoded, that ask to be reported.
        forwards: whether it has the parameter FORWARD TSN (RFC 3758, 3.1); ours has not.
    """

    tag: int
    window: int
    outbound: int
    inbound: int
    tsn: int
    resets: bool = True
    pads: bool = True
    cookie: bytes = b""
    unrecognized: bytes = b""
    forwards: bool = False


def encode_init(kind: int, init: Init) -> bytes:
    """Return the chunk; `kind` is INIT or INIT_ACK."""
    body = _INIT.pack(init.tag, init.window, init.outbound, init.inbound, init.tsn)
    if init.cookie:
        body += encode_parameter(PARAMETER_STATE_COOKIE, init.cookie)
    extensions = bytes([RE_CONFIG] * init.resets + [PAD] * init.pads)
    if extensions:
        body += encode_parameter(PARAMETER_SUPPORTED_EXTENSIONS, extensions)
    return encode_chunk(kind, body + init.unrecognized)


def parse_init(body: bytes) -> Init:
    """Read the value of an INIT or INIT ACK chunk.

    What is not known is treated as the two high bits of its type say (RFC 9260, 3.2.1): go on or stop, report or not.

    Raises:
        ValueError: when it is malformed or has a value that is not allowed.
    """
    if len(body) < _INIT.size:
        raise ValueError("an INIT is too short")
    tag, window, outbound, inbound, tsn = _INIT.unpack_from(body)
    if not tag or not outbound or not inbound:
        raise ValueError("an INIT has a zero where none may be")
    resets, pads, forwards, cookie, unrecognized = False, False, False, b"", b""
    for kind, content in parse_parameters(body[_INIT.size :]):
        if kind == PARAMETER_STATE_COOKIE:
            cookie = content
        elif kind == PARAMETER_SUPPORTED_EXTENSIONS:
            resets, pads = RE_CONFIG in content, PAD in content
        elif kind == PARAMETER_FORWARD_TSN:
            forwards = True  # we do not announce it, so none comes
        elif kind in _HARMLESS:
            continue
        else:
            if kind & 0x4000 and len(unrecognized) < 256:
                unrecognized += encode_parameter(PARAMETER_UNRECOGNIZED, encode_parameter(kind, content)[:128])
            if not kind & 0x8000:
                break
    return Init(tag, window, outbound, inbound, tsn, resets, pads, cookie, unrecognized, forwards)


_HARMLESS: Final = frozenset(
    {
        5,  # IPv4 address: there is one path only, the one beneath DTLS
        6,  # IPv6 address
        8,  # parameters of ours that the peer does not know
        9,  # cookie preservative
        11,  # host name
        12,  # supported address types
        0x8000,  # ECN
        0x8001,  # zero checksum acceptable (RFC 9653); we always send one
        0x8002,  # random (AUTH)
        0x8003,  # chunk list (AUTH)
        0x8004,  # HMAC algorithms (AUTH)
    }
)


def encode_sack(
    tsn: int, window: int, gaps: Sequence[Sequence[int]] = (), duplicates: Sequence[int] = (), most: int = 256
) -> bytes:
    """Return a SACK chunk.

    Args:
        tsn: the last TSN before the first gap; numbers may be longer than 32 bits.
        window: bytes that we are ready to keep.
        gaps: what came behind the first gap: first and last TSN of each run, ascending.
        duplicates: TSNs that came again.
        most: runs and duplicates that fit.
    """
    if not gaps and not duplicates:
        return _SACK.pack(SACK, 0, 16, tsn & _MASK, window, 0, 0)
    offsets: list[int] = []
    for first, last in gaps[:most]:
        if last - tsn > 0xFFFF:
            break
        offsets += (first - tsn, last - tsn)
    duplicates = duplicates[: max(0, most - len(offsets) // 2)]
    head = _SACK.pack(
        SACK,
        0,
        16 + 2 * len(offsets) + 4 * len(duplicates),
        tsn & _MASK,
        window,
        len(offsets) // 2,
        len(duplicates),
    )
    runs = pack(f">{len(offsets)}H", *offsets)
    return head + runs + pack(f">{len(duplicates)}I", *[duplicate & _MASK for duplicate in duplicates])


def is_lone_sack(packet: bytes) -> bool:
    """Return whether a packet is one SACK alone that reports no duplicates and leaves the window open."""
    return (
        packet[HEADER_BYTES : HEADER_BYTES + 1] == _SACK_KIND
        and len(packet) == HEADER_BYTES + int.from_bytes(packet[14:16], "big")
        and packet[20:24] != _NO_WINDOW
        and packet[26:28] == _NO_DUPLICATES
    )


def follows(earlier: bytes, later: bytes) -> bool:
    """Return whether the second of two lone SACKs acknowledges no less than the first, up to the first gap."""
    return (int.from_bytes(later[16:20], "big") - int.from_bytes(earlier[16:20], "big")) & _MASK < 0x80000000


def parse_sack(packet: bytes, start: int, end: int) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Read the SACK chunk that stands in `packet` from `start` to `end`.

    Returns:
        The acknowledged TSN (32 bits), the window in bytes, the offsets of the runs behind it (first, last, first,
        last …), and the duplicates (32 bits).

    Raises:
        ValueError: when it does not fit into its length.
    """
    if end - start < 16:
        raise ValueError("a SACK is too short")
    _, _, _, tsn, window, runs, duplicates = _SACK.unpack_from(packet, start)
    if not runs and not duplicates:
        return tsn, window, (), ()
    if 16 + 4 * (runs + duplicates) > end - start:
        raise ValueError("a SACK does not fit into its length")
    return (
        tsn,
        window,
        unpack_from(f">{2 * runs}H", packet, start + 16),
        unpack_from(f">{duplicates}I", packet, start + 16 + 4 * runs),
    )


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """An outgoing stream reset request (RFC 6525, 4.1).

    Attributes:
        sequence: the request's number.
        response: the number of the peer's last request that its sender has seen.
        last_tsn: the last TSN that its sender gave out before.
        streams: the ids; none means all.
    """

    sequence: int
    response: int
    last_tsn: int
    streams: tuple[int, ...]


def encode_reset_request(request: ResetRequest) -> bytes:
    """Return the parameter."""
    head = _RESET.pack(request.sequence, request.response, request.last_tsn & _MASK)
    return encode_parameter(PARAMETER_RESET_OUTGOING, head + pack(f">{len(request.streams)}H", *request.streams))


def parse_reset_request(body: bytes) -> ResetRequest:
    """Read the value of the parameter.

    Raises:
        ValueError: when it is malformed.
    """
    if len(body) < _RESET.size or len(body) & 1:
        raise ValueError("a reset request has a wrong length")
    sequence, response, last_tsn = _RESET.unpack_from(body)
    return ResetRequest(
        sequence, response, last_tsn, unpack_from(f">{(len(body) - _RESET.size) // 2}H", body, _RESET.size)
    )
