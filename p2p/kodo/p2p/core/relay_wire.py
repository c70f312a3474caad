"""What goes between diallers, a relay and the nodes that are attached to it. Pure.

A dialler's check names the node by a **tag** at the end of its ufrag: `…/TAG`, of the node's peer id. The relay reads
it there, as a TLS server reads a name from the first packet, so its address in a node's record is an ordinary one.

A node **attaches** from the socket that it listens on: a STUN binding request whose USERNAME is `kodo+relay+v1/TAG`
and whose MESSAGE-INTEGRITY is made with a token that the relay gave to this node alone. The relay takes it if it
bears a NONCE that the relay gave to the same address, and a transaction id, as a number, above all before. Else it
answers 438 with such a nonce (RFC 8489, section 9.2.4): so nobody attaches, or keeps attached, an address that is
not his.

Between a relay and a node every datagram is a **frame** of RFC 8656, section 12.4: channel, length, data. Checks come
on `CHECK_CHANNEL`, with the number that the dialler's channel has and the address that it comes from, under a MAC by
the token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

from kodo.p2p.core import stun
from kodo.p2p.core.hosts import plain_host
from kodo.p2p.core.identity import PeerId

__all__ = [
    "ATTACH_PREFIX",
    "CHECK_CHANNEL",
    "FIRST_CHANNEL",
    "LAST_CHANNEL",
    "NO_UDP_PORT",
    "TAG_CHARACTERS",
    "AttachAnswer",
    "Introduced",
    "attach_request",
    "attached_answer",
    "frame",
    "frame_of_check",
    "is_frame",
    "is_question",
    "names_dialler",
    "password_of",
    "question",
    "read_attach_answer",
    "read_check",
    "read_frame",
    "tag_in",
    "tag_of",
    "unattached_answer",
]

TAG_CHARACTERS = 20
"""120 bits of the peer id's SHA-256, in ICE characters."""
ATTACH_PREFIX = "kodo+relay+v1/"
CHECK_CHANNEL = 0x4000
FIRST_CHANNEL, LAST_CHANNEL = 0x4001, 0x4FFF
"""Channels of diallers (RFC 8656, section 12: 0x4000 to 0x4FFF)."""
NO_UDP_PORT = 1
"""Stands for a port where somebody comes to the relay by a connection: no packet is ever sent to one below 1024."""
MAC_BYTES = 16
STALE_NONCE = 438

_FRAME = struct.Struct("!HH")
_CHECK = struct.Struct("!HH16s")
"""The dialler's channel, its port, its IPv6 address or IPv4-mapped one; then the MAC, then the check."""


def tag_of(peer_id: PeerId) -> str:
    """Return the tag of a node."""
    return base64.b64encode(hashlib.sha256(peer_id.to_bytes()).digest()[:15]).decode("ascii")


def tag_in(ufrag: str) -> str | None:
    """Return the tag at the end of a dialler's ufrag; None without one."""
    prefix = next((prefix for prefix in stun.UFRAG_PREFIXES if ufrag.startswith(prefix)), None)
    if prefix is None or len(ufrag) <= len(prefix) + TAG_CHARACTERS or ufrag[-TAG_CHARACTERS - 1] != "/":
        return None
    return ufrag[-TAG_CHARACTERS:]


def password_of(request: stun.BindingRequest) -> str:
    """Return the password with which a dialler answers checks itself; its ufrag, which the listener has, has a tag.

    A dialler that has one ufrag for both sides has it as its password, too. A browser has an own ufrag; its password
    stands between the prefix and the tag (libp2p/specs, webrtc-direct, version 2).
    """
    ufrag = request.server_ufrag
    prefix = next(prefix for prefix in stun.UFRAG_PREFIXES if ufrag.startswith(prefix))
    if request.client_ufrag == ufrag or tag_in(ufrag) is None:
        return ufrag
    return ufrag[len(prefix) : -TAG_CHARACTERS - 1]


def names_dialler(request: stun.BindingRequest) -> bool:
    """Whether nobody but a dialler can answer the `question` that a check leads to.

    Whoever listens has its own name for its password, and a name with a prefix. So a check whose own half could be a
    listener's, unless it is the same as the other one and has a tag like that, is not taken for a dialler's: the
    question would go to whoever's address is written on the check, and a listener there would answer it.
    """
    if request.client_ufrag == request.server_ufrag:
        return True
    if request.client_ufrag.startswith(stun.UFRAG_PREFIXES):
        return False
    return password_of(request) not in ("", request.client_ufrag)


def is_question(request: stun.BindingRequest) -> bool:
    """Whether a check is a relay's, or a node's, that asks whether a dialler is here: who listens does not answer it.

    Who dials without a relay's tag may be controlled, as aiortc is.
    """
    halves = (request.server_ufrag, request.client_ufrag)
    return not request.controlling and any(tag_in(half) is not None for half in halves)


def question(request: stun.BindingRequest, transaction_id: bytes, priority: int = 1) -> bytes:
    """Return a check of a dialler itself, in its own name: it answers it, and learns from where it comes.

    It is no longer than the dialler's own. Who listens is not to answer in a dialler's place: ours does not
    (`is_question`), and any other finds the highest tie breaker in a conflict of roles with its own, and refuses
    (RFC 8445, section 7.3.1.1). Ask only who `names_dialler`.

    Args:
        priority: for a browser, of where the check comes from, as RFC 8445, section 5.1.2, counts.
    """
    return stun.binding_request(
        request.client_ufrag,
        request.server_ufrag,
        transaction_id,
        tie_breaker=2**64 - 1,
        priority=priority,
        controlling=False,
        password=password_of(request),
    )


# frames


def is_frame(data: bytes) -> bool:
    """Whether a datagram is a frame by its first byte (RFC 7983, section 7)."""
    return len(data) > 0 and 64 <= data[0] <= 79


def frame(channel: int, datagrams: Sequence[bytes]) -> list[bytes]:
    """Return datagrams as frames of one channel."""
    head = channel.to_bytes(2, "big")
    if len(datagrams) > 1 and len(sizes := set(map(len, datagrams))) == 1:
        head += sizes.pop().to_bytes(2, "big")
        return [head + data for data in datagrams]
    return [head + len(data).to_bytes(2, "big") + data for data in datagrams]


def read_frame(data: bytes) -> tuple[int, bytes]:
    """Return the channel and the data of a frame.

    Raises:
        ValueError: it is shorter than it says.
    """
    if len(data) < _FRAME.size:
        raise ValueError("a frame has a channel and a length")
    channel, length = _FRAME.unpack_from(data)
    if len(data) < _FRAME.size + length:
        raise ValueError("a frame is shorter than it says")
    return channel, data[_FRAME.size : _FRAME.size + length]


class Introduced(NamedTuple):
    """A dialler's check as the relay passes it on.

    Attributes:
        channel: on which everything else comes from that dialler, and goes to it.
        address: where the dialler is, as the relay sees it.
        check: the check.
    """

    channel: int
    address: tuple[str, int]
    check: bytes


def frame_of_check(channel: int, address: tuple[str, int], check: bytes, token: str) -> bytes:
    """Return a dialler's check as a frame for the node that has `token`.

    Raises:
        ValueError: `address` is not an IP address.
    """
    host = ipaddress.ip_address(plain_host(address[0]))
    packed = host.packed if host.version == 6 else bytes(10) + b"\xff\xff" + host.packed
    body = _CHECK.pack(channel, address[1], packed)
    return frame(CHECK_CHANNEL, [body + _mac(token, body + check) + check])[0]


def read_check(data: bytes, token: str) -> Introduced:
    """Read the data of a frame on `CHECK_CHANNEL`.

    Raises:
        ValueError: it is malformed, or was not made with `token`.
    """
    body, mac, check = (
        data[: _CHECK.size],
        data[_CHECK.size : _CHECK.size + MAC_BYTES],
        data[_CHECK.size + MAC_BYTES :],
    )
    if len(mac) < MAC_BYTES or not hmac.compare_digest(mac, _mac(token, body + check)):
        raise ValueError("the check that a relay passes on is not authentic")
    channel, port, packed = _CHECK.unpack(body)
    if not FIRST_CHANNEL <= channel <= LAST_CHANNEL or not port:
        raise ValueError("a dialler has a channel and a port")
    return Introduced(channel, (plain_host(str(ipaddress.IPv6Address(packed))), port), check)


def _mac(token: str, data: bytes) -> bytes:
    return hmac.digest(token.encode("ascii"), data, "sha256")[:MAC_BYTES]


# attaching


class AttachAnswer(NamedTuple):
    """What a relay says to a node that attaches.

    Attributes:
        number: of the request.
        address: the node's address as the relay sees it; None where it is to ask again with `nonce`.
        nonce: empty where the node is attached.
    """

    number: int
    address: tuple[str, int] | None
    nonce: bytes


def attach_request(tag: str, token: str, number: int, nonce: bytes) -> bytes:
    """Return what a node sends to attach.

    Args:
        number: above that of every request before with this token.
        nonce: as the relay gave it to this address; empty at first.
    """
    attributes: stun.Attributes = [(stun.USERNAME, (ATTACH_PREFIX + tag).encode("ascii"))]
    if nonce:
        attributes.append((stun.NONCE, nonce))
    return stun.pack_message(stun.BINDING_REQUEST, number.to_bytes(12, "big"), attributes, token)


def attached_answer(transaction_id: bytes, address: tuple[str, int], token: str) -> bytes:
    """Return the answer to a node that is attached from `address`."""
    mapped = stun.pack_address(address, transaction_id)
    return stun.pack_message(stun.BINDING_SUCCESS, transaction_id, [(stun.XOR_MAPPED_ADDRESS, mapped)], token)


def unattached_answer(transaction_id: bytes, nonce: bytes, token: str) -> bytes:
    """Return the answer to a node that is to ask again with `nonce`."""
    attributes: stun.Attributes = [(stun.ERROR_CODE, stun.error_code(STALE_NONCE)), (stun.NONCE, nonce)]
    return stun.pack_message(stun.BINDING_ERROR, transaction_id, attributes, token)


def read_attach_answer(data: bytes, token: str) -> AttachAnswer:
    """Read what a relay says to a node that attaches.

    Raises:
        ValueError: it is malformed, or was not made with `token`.
    """
    is_error = data[:2] == stun.BINDING_ERROR.to_bytes(2, "big")
    message = stun.parse_message(data, stun.BINDING_ERROR if is_error else stun.BINDING_SUCCESS)
    if not message.is_made_with(token):
        raise ValueError("the answer of a relay is not authentic")
    number = int.from_bytes(message.transaction_id, "big")
    if is_error:
        nonce = message.attributes.get(stun.NONCE, b"")
        if not 1 <= len(nonce) <= 128:
            raise ValueError("a relay that does not attach a node gives a nonce")
        return AttachAnswer(number, None, nonce)
    mapped = message.attributes.get(stun.XOR_MAPPED_ADDRESS)
    if mapped is None:
        raise ValueError("a relay that attaches a node tells from where")
    return AttachAnswer(number, stun.read_address(mapped, message.transaction_id), b"")
