"""What a WebRTC Direct listener reads and answers, and what its dialer sends: STUN binding (RFC 8489, RFC 8445).

The listener keeps no secret: by libp2p's convention (libp2p/specs, webrtc-direct) its password is its ufrag, which
stands in the request's USERNAME. So MESSAGE-INTEGRITY guards against accidents here, not against attackers; who the
other side is, Noise proves later.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import struct
from dataclasses import dataclass

from aioice import stun as codec

__all__ = [
    "UFRAG_PREFIXES",
    "BindingRequest",
    "binding_request",
    "binding_response",
    "is_binding_request",
    "is_dtls",
    "is_dtls_handshake",
    "is_stun",
    "read_binding_request",
    "read_binding_response",
]

UFRAG_PREFIXES = ("libp2p+webrtc+v1/", "libp2p+webrtc+v2/")
MAX_STUN_BYTES = 1280
"""Longer than any binding request with two of the longest ufrags, and within one datagram."""

_HEADER = struct.Struct("!HHI")
_HEADER_BYTES = 20
_COOKIE = 0x2112A442
_BINDING_REQUEST, _BINDING_SUCCESS = 0x0001, 0x0101
_TRANSACTION_ID_BYTES = 12
# RFC 8839, section 5.4: ice-char, 4 to 256 of them in a ufrag.
_USERNAME = re.compile(r"([A-Za-z0-9+/]{4,256}):([A-Za-z0-9+/]{4,256})", re.ASCII)


def is_stun(data: bytes) -> bool:
    """Whether a datagram is STUN by its header: type bits, length, magic cookie (RFC 7983, RFC 8489 section 5)."""
    if len(data) < _HEADER_BYTES or data[0] > 3:
        return False
    _, length, cookie = _HEADER.unpack_from(data)
    return bool(cookie == _COOKIE and length % 4 == 0 and length == len(data) - _HEADER_BYTES)


def is_binding_request(data: bytes) -> bool:
    """Whether a datagram is a STUN binding request by its header."""
    return data[:2] == b"\0\1" and is_stun(data)


def is_dtls(data: bytes) -> bool:
    """Whether a datagram is DTLS by its first byte (RFC 7983, section 7)."""
    return len(data) > 0 and 20 <= data[0] <= 63


def is_dtls_handshake(data: bytes) -> bool:
    """Whether a datagram starts with a DTLS handshake record (content type 22)."""
    return len(data) > 0 and data[0] == 22


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """A valid binding request of a WebRTC Direct dialer.

    Attributes:
        transaction_id: bytes[12], to be repeated in the answer.
        username: `server_ufrag:client_ufrag`.
        server_ufrag: the listener's, with its prefix; also its password.
        client_ufrag: the dialer's.
    """

    transaction_id: bytes
    username: str
    server_ufrag: str
    client_ufrag: str


def _parse(data: bytes, message_type: int) -> codec.Message:
    """Parse a message of one type, within the size bound; every fault is a ValueError."""
    if len(data) > MAX_STUN_BYTES:
        raise ValueError(f"a STUN message of {len(data)} bytes is over the bound of {MAX_STUN_BYTES}")
    if not is_stun(data):
        raise ValueError("not a STUN message")
    if int.from_bytes(data[:2], "big") != message_type:
        raise ValueError("not the expected type of STUN message")
    try:
        return codec.parse_message(data)
    except (struct.error, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"malformed STUN message: {error}") from error


def _check_integrity(message: codec.Message, key: str) -> None:
    if not message.check_message_integrity(key.encode("ascii")):
        raise ValueError("a STUN message lacks a valid MESSAGE-INTEGRITY")


def read_binding_request(data: bytes) -> BindingRequest:
    """Read what a dialer sends to a listener.

    Raises:
        ValueError: it is not a binding request, its USERNAME is not `server:client` in ICE characters with a known
            prefix, or its MESSAGE-INTEGRITY does not hold under the server's ufrag.
    """
    message = _parse(data, _BINDING_REQUEST)
    username = message.attributes.get("USERNAME", "")
    match = _USERNAME.fullmatch(username)
    if match is None:
        raise ValueError("the USERNAME is not two ICE ufrags")
    server_ufrag, client_ufrag = match.groups()
    if not server_ufrag.startswith(UFRAG_PREFIXES):
        raise ValueError("the USERNAME has no known WebRTC Direct prefix")
    _check_integrity(message, server_ufrag)
    return BindingRequest(message.transaction_id, username, server_ufrag, client_ufrag)


@functools.lru_cache(maxsize=1024)
def _plain(host: str) -> str:
    """An address without its zone, and an IPv4 one as IPv4 where a dual-stack socket shows it inside IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def binding_response(request: BindingRequest, address: tuple[str, int]) -> bytes:
    """Answer `request`, which came from `address` (IP address, port).

    Raises:
        ValueError: `address` is not an IP address.
    """
    message = codec.Message(
        codec.Method.BINDING,
        codec.Class.RESPONSE,
        request.transaction_id,
        {"XOR-MAPPED-ADDRESS": (_plain(address[0]), address[1])},
    )
    message.add_message_integrity(request.server_ufrag.encode("ascii"))
    return bytes(message)


def binding_request(
    server_ufrag: str,
    client_ufrag: str,
    transaction_id: bytes,
    *,
    tie_breaker: int,
    priority: int,
    nominate: bool = True,
) -> bytes:
    """Make the dialer's binding request: controlling, nominating its one pair unless told otherwise.

    Args:
        transaction_id: bytes[12], random.
        tie_breaker: 64 bits, random, the same for all requests of a session (RFC 8445, section 7.1.3).
        priority: of the dialer's candidate as peer-reflexive, 32 bits (RFC 8445, section 7.1.1).

    Raises:
        ValueError: an argument is out of its range.
    """
    username = f"{server_ufrag}:{client_ufrag}"
    if _USERNAME.fullmatch(username) is None:
        raise ValueError("a ufrag has 4 to 256 ICE characters: letters, digits, + and /")
    if len(transaction_id) != _TRANSACTION_ID_BYTES:
        raise ValueError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
    if tie_breaker < 0 or tie_breaker >> 64 or priority < 0 or priority >> 32:
        raise ValueError("the tie breaker has 64 bits, the priority 32")
    attributes: dict[str, object] = {"USERNAME": username, "PRIORITY": priority, "ICE-CONTROLLING": tie_breaker}
    if nominate:
        attributes["USE-CANDIDATE"] = None
    message = codec.Message(codec.Method.BINDING, codec.Class.REQUEST, transaction_id, attributes)
    message.add_message_integrity(server_ufrag.encode("ascii"))
    return bytes(message)


def read_binding_response(data: bytes, transaction_id: bytes, key: str) -> tuple[str, int]:
    """Read the answer to our request; give our address and port as the listener saw them.

    Args:
        key: the listener's password, which is its ufrag.

    Raises:
        ValueError: it is not a success response, not to `transaction_id`, or its MESSAGE-INTEGRITY does not hold.
    """
    message = _parse(data, _BINDING_SUCCESS)
    if message.transaction_id != transaction_id:
        raise ValueError("a STUN response to another request")
    _check_integrity(message, key)
    mapped = message.attributes.get("XOR-MAPPED-ADDRESS")
    if mapped is None:
        raise ValueError("a STUN response without XOR-MAPPED-ADDRESS")
    host, port = mapped
    return _plain(host), port
