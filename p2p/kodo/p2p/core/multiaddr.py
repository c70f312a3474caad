"""Where a node is reached: `/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEi…/p2p/12D3Koo…`.

A multiaddr (multiformats/multiaddr) of the one shape that this network dials (libp2p/specs, webrtc-direct): host, UDP
port, the hash of the DTLS certificate, and who should be there. As text for people and records, as bytes inside
libp2p's own messages.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multibase import base64url_encode, decode_multibase
from kodo.p2p.core.varint import decode_varint, encode_varint

__all__ = ["Family", "Multiaddr", "decode_certhash", "encode_certhash", "for_others"]

Family = Literal["ip4", "ip6", "dns4"]

MAX_TEXT_CHARACTERS = 512
MAX_BYTES = 512
SHA256_BYTES = 32
_SHA256_HEAD = bytes((0x12, SHA256_BYTES))
"""Multihash: code of sha2-256, length of its digest."""

# multiformats/multicodec, table.csv
_IP4, _IP6, _DNS4, _UDP = 4, 41, 54, 273
_WEBRTC_DIRECT, _CERTHASH, _P2P = 280, 466, 421

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_MAX_NAME_CHARACTERS = 253
"""RFC 1035, section 2.3.4, without the root's dot."""


def encode_certhash(digest: bytes) -> str:
    """Write a certificate's SHA-256 digest (bytes[32]) as `uEi…`."""
    return base64url_encode(_SHA256_HEAD + digest)


def decode_certhash(text: str) -> bytes:
    """Read the digest (bytes[32]) out of a certhash: a multibase text of a sha2-256 multihash.

    Raises:
        ValueError: it is not that.
    """
    return _digest(decode_multibase(text))


def _digest(multihash: bytes) -> bytes:
    if len(multihash) != len(_SHA256_HEAD) + SHA256_BYTES or not multihash.startswith(_SHA256_HEAD):
        raise ValueError("the certhash is not a sha2-256 multihash")
    return multihash[len(_SHA256_HEAD) :]


def _host(family: Family, text: str) -> str:
    """Check a host of the given family; give its one canonical form."""
    match family:
        case "ip4":
            return str(ipaddress.IPv4Address(text))
        case "ip6":
            if "%" in text:
                raise ValueError(f"{text!r}: an address with a zone works on one machine only")
            return str(ipaddress.IPv6Address(text))
        case "dns4":
            labels = text.split(".")
            if len(text) > _MAX_NAME_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
                raise ValueError(f"{text[:64]!r} is not a host name")
            if labels[-1].isdigit():
                raise ValueError(f"{text!r} looks like an address, not like a host name")
            return text.lower()


def _family(host: str) -> Family:
    try:
        return "ip4" if ipaddress.ip_address(host).version == 4 else "ip6"
    except ValueError:
        return "dns4"


@functools.total_ordering
@dataclass(frozen=True, slots=True, repr=False)
class Multiaddr:
    """An address that can be dialled. Compared and sorted by its canonical text.

    Attributes:
        family: what `host` is.
        host: IPv4 or IPv6 address, or a name that has IPv4 addresses; canonical.
        port: UDP, 1–65535.
        certhash: SHA-256 of the DTLS certificate that will be shown there, bytes[32].
        peer_id: who should be there, when known.
    """

    family: Family
    host: str
    port: int
    certhash: bytes
    peer_id: PeerId | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", _host(self.family, self.host))
        if not 1 <= self.port <= 65535:
            raise ValueError(f"{self.port} is not a UDP port: 1 to 65535")
        if len(self.certhash) != SHA256_BYTES:
            raise ValueError(f"a SHA-256 digest has 32 bytes, not {len(self.certhash)}")

    @classmethod
    def webrtc_direct(cls, host: str, port: int, certhash: bytes, peer_id: PeerId | None = None) -> Multiaddr:
        """Make the address of `host` (IPv4, IPv6 or a name) and `port` with a certificate's digest (bytes[32]).

        Raises:
            ValueError: one of them is not valid.
        """
        return cls(_family(host), host, port, bytes(certhash), peer_id)

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """Read the text form; the peer id may be absent.

        Raises:
            ValueError: saying which part is wrong.
        """
        if len(text) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"an address of {len(text)} characters is over the limit of {MAX_TEXT_CHARACTERS}")
        parts = text.split("/")
        match parts:
            case ["", "ip4" | "ip6" | "dns4" as family, host, "udp", port, "webrtc-direct", "certhash", hash_, *rest]:
                pass
            case _:
                raise ValueError(
                    f"{text!r} is not a WebRTC Direct address: "
                    "/ip4|ip6|dns4/HOST/udp/PORT/webrtc-direct/certhash/HASH[/p2p/PEER]"
                )
        match rest:
            case []:
                peer_id = None
            case ["p2p", peer]:
                peer_id = PeerId.parse(peer)
            case _:
                raise ValueError(f"{text!r} does not end with its certhash or with /p2p/PEER")
        if _PORT.fullmatch(port) is None:
            raise ValueError(f"{port!r} is not a UDP port: 1 to 65535")
        return cls(family, host, int(port), decode_certhash(hash_), peer_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> Multiaddr:
        """Read the binary form.

        Raises:
            ValueError: it is malformed, or not of the one shape.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"a binary address of {len(data)} bytes is over the limit of {MAX_BYTES}")
        reader = _Reader(data)
        family: Family
        match reader.code():
            case code if code == _IP4:
                family, host = "ip4", str(ipaddress.IPv4Address(reader.take(4)))
            case code if code == _IP6:
                family, host = "ip6", str(ipaddress.IPv6Address(reader.take(16)))
            case code if code == _DNS4:
                family, host = "dns4", reader.take_prefixed().decode("utf-8")
            case code:
                raise ValueError(f"a binary address starts with the code {code}, not with ip4, ip6 or dns4")
        reader.expect(_UDP, "udp")
        port = int.from_bytes(reader.take(2), "big")
        reader.expect(_WEBRTC_DIRECT, "webrtc-direct")
        reader.expect(_CERTHASH, "certhash")
        certhash = _digest(reader.take_prefixed())
        peer_id = None
        if not reader.at_end:
            reader.expect(_P2P, "p2p")
            peer_id = PeerId.from_bytes(reader.take_prefixed())
            if not reader.at_end:
                raise ValueError("a binary address goes on after its peer id")
        return cls(family, host, port, certhash, peer_id)

    def with_peer(self, peer_id: PeerId) -> Multiaddr:
        """Return the same address with `peer_id` in it, instead of the one it had."""
        return replace(self, peer_id=peer_id)

    def to_bytes(self) -> bytes:
        """Return the binary form."""
        match self.family:
            case "ip4":
                head = encode_varint(_IP4) + ipaddress.IPv4Address(self.host).packed
            case "ip6":
                head = encode_varint(_IP6) + ipaddress.IPv6Address(self.host).packed
            case "dns4":
                head = encode_varint(_DNS4) + _prefixed(self.host.encode("ascii"))
        certhash = encode_varint(_CERTHASH) + _prefixed(_SHA256_HEAD + self.certhash)
        tail = b"" if self.peer_id is None else encode_varint(_P2P) + _prefixed(self.peer_id.to_bytes())
        port = encode_varint(_UDP) + self.port.to_bytes(2, "big")
        return head + port + encode_varint(_WEBRTC_DIRECT) + certhash + tail

    def __str__(self) -> str:
        tail = "" if self.peer_id is None else f"/p2p/{self.peer_id}"
        certhash = encode_certhash(self.certhash)
        return f"/{self.family}/{self.host}/udp/{self.port}/webrtc-direct/certhash/{certhash}{tail}"

    def __repr__(self) -> str:
        return f"Multiaddr({str(self)!r})"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Multiaddr):
            return NotImplemented
        return str(self) < str(other)


def _prefixed(value: bytes) -> bytes:
    return encode_varint(len(value)) + value


class _Reader:
    """A position in a binary multiaddr."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    @property
    def at_end(self) -> bool:
        return self._pos == len(self._data)

    def code(self) -> int:
        value, self._pos = decode_varint(self._data, self._pos)
        return value

    def expect(self, code: int, name: str) -> None:
        found = self.code()
        if found != code:
            raise ValueError(f"a binary address has the code {found} where {name} ({code}) should be")

    def take(self, length: int) -> bytes:
        end = self._pos + length
        if end > len(self._data):
            raise ValueError("a binary address is cut off")
        taken, self._pos = self._data[self._pos : end], end
        return taken

    def take_prefixed(self) -> bytes:
        return self.take(self.code())


def for_others(addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Return the addresses that are told to others, in their order: loopback ones only when there is nothing else."""
    found = [address for address in addresses if not is_own_host(address.host)]
    return found or list(addresses)
