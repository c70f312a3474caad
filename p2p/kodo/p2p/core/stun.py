"""What a WebRTC Direct listener reads and answers, and what its dialer sends: STUN binding (RFC 8489, RFC 8445).

The listener keeps no secret: by libp2p's convention (libp2p/specs, webrtc-direct) its password is its ufrag, which
stands in the request's USERNAME. So MESSAGE-INTEGRITY guards against accidents here, not against attackers; who the
other side is, Noise proves later.
"""

from __future__ import annotations

import binascii
import hmac
import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from kodo.p2p.core.hosts import plain_host

__all__ = [
    "BINDING_ERROR",
    "BINDING_REQUEST",
    "BINDING_SUCCESS",
    "ERROR_CODE",
    "NONCE",
    "UFRAG_PREFIXES",
    "USERNAME",
    "XOR_MAPPED_ADDRESS",
    "Attributes",
    "BindingAnswer",
    "BindingRequest",
    "Message",
    "alternate_response",
    "binding_request",
    "binding_response",
    "error_code",
    "is_binding_error",
    "is_binding_request",
    "is_dtls",
    "is_dtls_handshake",
    "is_dtls_plain",
    "is_stun",
    "pack_address",
    "pack_message",
    "parse_message",
    "plain_request",
    "read_address",
    "read_alternate_response",
    "read_binding_request",
    "read_binding_response",
    "read_plain_response",
    "read_username",
]

UFRAG_PREFIXES = ("libp2p+webrtc+v1/", "libp2p+webrtc+v2/")
MAX_STUN_BYTES = 1280
"""Longer than any binding request with two of the longest ufrags, and within one datagram."""

_HEADER = struct.Struct("!HHI")
_HEADER_BYTES = 20
_COOKIE = 0x2112A442
BINDING_REQUEST, BINDING_SUCCESS, BINDING_ERROR = 0x0001, 0x0101, 0x0111
_TRANSACTION_ID_BYTES = 12
# RFC 8489, section 18.3, and RFC 8445, section 16.1.
USERNAME, _MESSAGE_INTEGRITY, ERROR_CODE, NONCE, XOR_MAPPED_ADDRESS = 0x0006, 0x0008, 0x0009, 0x0015, 0x0020
_PRIORITY, _USE_CANDIDATE, _FINGERPRINT, _ICE_CONTROLLED, _ICE_CONTROLLING = 0x0024, 0x0025, 0x8028, 0x8029, 0x802A
_RELAYED = 0xC0DE
"""Without a value, in the answer to a check: it came through a relay. Who does not know the attribute passes it over
(RFC 8489, section 18.3: comprehension-optional, by designated expert)."""
_OWN_ADDRESS = 0xC0DF
"""Encoded as XOR-MAPPED-ADDRESS: where the listener is seen, whose NAT lets the dialer in."""
_TRY_ALTERNATE = 300
"""Ask elsewhere (RFC 8489, section 14.8): here nothing else is passed on."""
_FINGERPRINT_XOR = 0x5354554E
_INTEGRITY_BYTES, _FINGERPRINT_BYTES = 24, 8
"""With the header of the attribute."""
_IPV4, _IPV6 = 1, 2
# RFC 8839, section 5.4: ice-char, 4 to 256 of them in a ufrag.
_UFRAGS = re.compile(r"([A-Za-z0-9+/]{4,256}):([A-Za-z0-9+/]{4,256})", re.ASCII)


def is_stun(data: bytes) -> bool:
    """Whether a datagram is STUN by its header: type bits, length, magic cookie (RFC 7983, RFC 8489 section 5)."""
    if len(data) < _HEADER_BYTES or data[0] > 3:
        return False
    _, length, cookie = _HEADER.unpack_from(data)
    return bool(cookie == _COOKIE and length % 4 == 0 and length == len(data) - _HEADER_BYTES)


def is_binding_request(data: bytes) -> bool:
    """Whether a datagram is a STUN binding request by its header."""
    return data[:2] == b"\0\1" and is_stun(data)


def is_binding_error(data: bytes) -> bool:
    """Whether a datagram is a STUN binding error response by its header."""
    return data[:2] == b"\1\x11" and is_stun(data)


def is_dtls(data: bytes) -> bool:
    """Whether a datagram is DTLS by its first byte (RFC 7983, section 7)."""
    return len(data) > 0 and 20 <= data[0] <= 63


def is_dtls_handshake(data: bytes) -> bool:
    """Whether a datagram starts with a DTLS handshake record (content type 22)."""
    return len(data) > 0 and data[0] == 22


def is_dtls_plain(data: bytes) -> bool:
    """Whether a datagram's first DTLS record is of epoch 0, so that nothing authenticates it (RFC 6347, 4.1)."""
    return data[3:5] == b"\0\0"


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """A valid binding request of a WebRTC Direct dialer.

    Attributes:
        transaction_id: bytes[12], to be repeated in the answer.
        username: `server_ufrag:client_ufrag`.
        server_ufrag: the listener's, with its prefix; also its password.
        client_ufrag: the dialer's.
        controlling: whether it may come from a dialer: those who are dialed, and relays, say ICE-CONTROLLED.
    """

    transaction_id: bytes
    username: str
    server_ufrag: str
    client_ufrag: str
    controlling: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was read: its attributes up to MESSAGE-INTEGRITY, and what that covers (None without one)."""

    transaction_id: bytes
    attributes: dict[int, bytes]
    integrity: bytes
    covered: bytes | None

    def is_made_with(self, key: str) -> bool:
        """Whether it has a MESSAGE-INTEGRITY that holds under a password."""
        return self.covered is not None and hmac.compare_digest(self.integrity, _digest(self.covered, key))


class BindingAnswer(NamedTuple):
    """What the answer to a check says.

    Attributes:
        address: IP address and port from which the check came, as the other side saw it.
        relayed: whether the check came through a relay.
        own: where the other side is itself, if the check came through a relay and the other side says so.
    """

    address: tuple[str, int]
    relayed: bool
    own: tuple[str, int] | None = None


Attributes = list[tuple[int, bytes]]


def _digest(covered: bytes, key: str) -> bytes:
    """MESSAGE-INTEGRITY over all before it, with the length as if it were the last attribute (section 14.5)."""
    length = struct.pack("!H", len(covered) - _HEADER_BYTES + _INTEGRITY_BYTES)
    return hmac.digest(key.encode("ascii"), covered[:2] + length + covered[4:], "sha1")


def _fingerprint(before: bytes) -> int:
    """FINGERPRINT over all before it, with the length of the whole message (section 14.7)."""
    length = struct.pack("!H", len(before) - _HEADER_BYTES + _FINGERPRINT_BYTES)
    return binascii.crc32(before[:2] + length + before[4:]) ^ _FINGERPRINT_XOR


def parse_message(data: bytes, message_type: int) -> Message:
    """Parse a message of one type, within the size bound; every fault is a ValueError.

    Attributes that are not known here are passed over, and of several of one type the first counts (section 14). What
    follows MESSAGE-INTEGRITY is not authenticated: of it only FINGERPRINT is read (section 14.5).
    """
    if len(data) > MAX_STUN_BYTES:
        raise ValueError(f"a STUN message of {len(data)} bytes is over the limit of {MAX_STUN_BYTES}")
    if not is_stun(data):
        raise ValueError("not a STUN message")
    if int.from_bytes(data[:2], "big") != message_type:
        raise ValueError("not the expected type of STUN message")
    attributes: dict[int, bytes] = {}
    integrity, covered = b"", None
    at = _HEADER_BYTES
    while at < len(data):
        kind, length = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + length]
        if len(value) < length:
            raise ValueError("malformed STUN message: an attribute is longer than the message")
        if kind == _FINGERPRINT:
            if value != _fingerprint(data[:at]).to_bytes(4, "big"):
                raise ValueError("the FINGERPRINT of a STUN message does not match")
        elif covered is None:
            if kind == _MESSAGE_INTEGRITY:
                integrity, covered = value, data[:at]
            else:
                attributes.setdefault(kind, value)
        at += 4 + length + -length % 4
    return Message(data[8:_HEADER_BYTES], attributes, integrity, covered)


def _check_integrity(message: Message, key: str) -> None:
    if not message.is_made_with(key):
        raise ValueError("a STUN message lacks a valid MESSAGE-INTEGRITY")


def pack_message(message_type: int, transaction_id: bytes, attributes: Attributes, key: str | None) -> bytes:
    """Make a message, with a key also MESSAGE-INTEGRITY and FINGERPRINT."""
    body = b"".join(
        struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4) for kind, value in attributes
    )
    if key is None:
        return _HEADER.pack(message_type, len(body), _COOKIE) + transaction_id + body
    length = len(body) + _INTEGRITY_BYTES + _FINGERPRINT_BYTES
    covered = _HEADER.pack(message_type, length, _COOKIE) + transaction_id + body
    digest = _digest(covered, key)
    signed = covered + struct.pack("!HH", _MESSAGE_INTEGRITY, len(digest)) + digest
    return signed + struct.pack("!HHI", _FINGERPRINT, 4, _fingerprint(signed))


def _xor(data: bytes, transaction_id: bytes) -> bytes:
    """An address as it is in XOR-MAPPED-ADDRESS, or back (section 14.2)."""
    mask = (struct.pack("!I", _COOKIE) + transaction_id)[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(data), "big")


def pack_address(address: tuple[str, int], transaction_id: bytes) -> bytes:
    """Return an address as the value of XOR-MAPPED-ADDRESS.

    Raises:
        ValueError: it is not an IP address.
    """
    host = ipaddress.ip_address(plain_host(address[0]))
    family = _IPV4 if host.version == 4 else _IPV6
    return struct.pack("!BBH", 0, family, address[1] ^ _COOKIE >> 16) + _xor(host.packed, transaction_id)


def read_address(value: bytes, transaction_id: bytes) -> tuple[str, int]:
    """Read the value of XOR-MAPPED-ADDRESS.

    Raises:
        ValueError: it is malformed.
    """
    if len(value) < 4:
        raise ValueError("malformed STUN message: an address is too short")
    _, family, port = struct.unpack_from("!BBH", value)
    if len(value) - 4 != {_IPV4: 4, _IPV6: 16}.get(family):
        raise ValueError("malformed STUN message: an address is neither IPv4 nor IPv6")
    host = ipaddress.ip_address(_xor(value[4:], transaction_id))
    return plain_host(str(host)), port ^ _COOKIE >> 16


def read_username(message: Message) -> str:
    """Return the USERNAME; empty without one. What is no ASCII is replaced: it is no ICE character either."""
    return message.attributes.get(USERNAME, b"").decode("ascii", "replace")


def read_binding_request(data: bytes) -> BindingRequest:
    """Read what a dialer sends to a listener.

    Raises:
        ValueError: it is not a binding request, its USERNAME is not `server:client` in ICE characters with a known
            prefix, or its MESSAGE-INTEGRITY does not hold under the server's ufrag.
    """
    message = parse_message(data, BINDING_REQUEST)
    username = read_username(message)
    match = _UFRAGS.fullmatch(username)
    if match is None:
        raise ValueError("the USERNAME is not two ICE ufrags")
    server_ufrag, client_ufrag = match.groups()
    if not server_ufrag.startswith(UFRAG_PREFIXES):
        raise ValueError("the USERNAME has no known WebRTC Direct prefix")
    _check_integrity(message, server_ufrag)
    controlling = _ICE_CONTROLLED not in message.attributes
    return BindingRequest(message.transaction_id, username, server_ufrag, client_ufrag, controlling)


def binding_response(
    request: BindingRequest, address: tuple[str, int], *, relayed: bool = False, own: tuple[str, int] | None = None
) -> bytes:
    """Answer `request`, which came from `address` (IP address, port), and perhaps through a relay.

    Args:
        own: where the listener itself may be reached too.

    Raises:
        ValueError: `address` is not an IP address.
    """
    mapped = pack_address(address, request.transaction_id)
    attributes = [(XOR_MAPPED_ADDRESS, mapped)]
    if relayed:
        attributes.append((_RELAYED, b""))
    if own is not None:
        attributes.append((_OWN_ADDRESS, pack_address(own, request.transaction_id)))
    return pack_message(BINDING_SUCCESS, request.transaction_id, attributes, request.server_ufrag)


def alternate_response(request: BindingRequest, address: tuple[str, int], own: tuple[str, int]) -> bytes:
    """Answer `request`, which came from `address` through a relay that carries no session: ask at `own` instead.

    Raises:
        ValueError: an address is not an IP address.
    """
    attributes = [
        (ERROR_CODE, error_code(_TRY_ALTERNATE)),
        (XOR_MAPPED_ADDRESS, pack_address(address, request.transaction_id)),
        (_OWN_ADDRESS, pack_address(own, request.transaction_id)),
    ]
    return pack_message(BINDING_ERROR, request.transaction_id, attributes, request.server_ufrag)


def error_code(code: int) -> bytes:
    """Return the value of ERROR-CODE, without a reason phrase (RFC 8489, section 14.8)."""
    return struct.pack("!HBB", 0, code // 100, code % 100)


def binding_request(
    server_ufrag: str,
    client_ufrag: str,
    transaction_id: bytes,
    *,
    tie_breaker: int,
    priority: int,
    nominate: bool = True,
    controlling: bool = True,
    password: str | None = None,
) -> bytes:
    """Make the dialer's binding request: controlling, nominating its one pair unless told otherwise.

    Args:
        password: of who is asked; None where it is `server_ufrag`, as a listener's is.
        controlling: False for a request that the listener's side makes, to see who answers; it nominates nothing.
        transaction_id: bytes[12], random.
        tie_breaker: 64 bits, random, the same for all requests of a session (RFC 8445, section 7.1.3).
        priority: of the dialer's candidate as peer-reflexive, 32 bits (RFC 8445, section 7.1.1).

    Raises:
        ValueError: an argument is out of its range.
    """
    username = f"{server_ufrag}:{client_ufrag}"
    if _UFRAGS.fullmatch(username) is None:
        raise ValueError("a ufrag has 4 to 256 ICE characters: letters, digits, + and /")
    if len(transaction_id) != _TRANSACTION_ID_BYTES:
        raise ValueError(f"a transaction id has 12 bytes, not {len(transaction_id)}")
    if tie_breaker < 0 or tie_breaker >> 64 or priority < 0 or priority >> 32:
        raise ValueError("the tie breaker has 64 bits, the priority 32")
    attributes = [
        (USERNAME, username.encode("ascii")),
        (_PRIORITY, priority.to_bytes(4, "big")),
        (_ICE_CONTROLLING if controlling else _ICE_CONTROLLED, tie_breaker.to_bytes(8, "big")),
    ]
    if nominate and controlling:
        attributes.append((_USE_CANDIDATE, b""))
    key = server_ufrag if password is None else password
    return pack_message(BINDING_REQUEST, transaction_id, attributes, key)


def read_binding_response(data: bytes, transaction_id: bytes, key: str) -> BindingAnswer:
    """Read the answer to our request.

    Args:
        key: the listener's password, which is its ufrag.

    Raises:
        ValueError: it is not a success response, not to `transaction_id`, or its MESSAGE-INTEGRITY does not hold.
    """
    message = parse_message(data, BINDING_SUCCESS)
    if message.transaction_id != transaction_id:
        raise ValueError("a STUN response to another request")
    _check_integrity(message, key)
    mapped = message.attributes.get(XOR_MAPPED_ADDRESS)
    if mapped is None:
        raise ValueError("a STUN response without XOR-MAPPED-ADDRESS")
    own = message.attributes.get(_OWN_ADDRESS)
    return BindingAnswer(
        read_address(mapped, transaction_id),
        _RELAYED in message.attributes,
        None if own is None else read_address(own, transaction_id),
    )


def read_alternate_response(data: bytes, transaction_id: bytes, key: str) -> BindingAnswer:
    """Read an answer to our request that tells to ask elsewhere: at `own`.

    Args:
        key: the listener's password, which is its ufrag.

    Raises:
        ValueError: it is another answer, not to `transaction_id`, or its MESSAGE-INTEGRITY does not hold.
    """
    message = parse_message(data, BINDING_ERROR)
    if message.transaction_id != transaction_id:
        raise ValueError("a STUN response to another request")
    _check_integrity(message, key)
    mapped, own = message.attributes.get(XOR_MAPPED_ADDRESS), message.attributes.get(_OWN_ADDRESS)
    if message.attributes.get(ERROR_CODE, b"")[:4] != error_code(_TRY_ALTERNATE) or mapped is None or own is None:
        raise ValueError("a STUN error response that does not tell where else to ask")
    return BindingAnswer(read_address(mapped, transaction_id), False, read_address(own, transaction_id))


def plain_request(transaction_id: bytes) -> bytes:
    """Make the binding request that any STUN server answers: without attributes (RFC 8489, section 14).

    Args:
        transaction_id: bytes[12], random.
    """
    return pack_message(BINDING_REQUEST, transaction_id, [], None)


def read_plain_response(data: bytes, transaction_id: bytes) -> tuple[str, int]:
    """Read a server's answer to `plain_request`; return our address and port as the server saw them.

    Only the transaction id ties it to the request: who can read the one can forge the other.

    Raises:
        ValueError: it is not a success response, or not to `transaction_id`.
    """
    message = parse_message(data, BINDING_SUCCESS)
    mapped = message.attributes.get(XOR_MAPPED_ADDRESS)
    if message.transaction_id != transaction_id or mapped is None:
        raise ValueError("a STUN response to another request, or without XOR-MAPPED-ADDRESS")
    return read_address(mapped, transaction_id)
