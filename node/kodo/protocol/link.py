"""A share's link: a capability in one line of text.

    https://HOST/#get=TOKEN     a page at HOST opens it; what stands behind `#` is never sent there
    https://HOST/#open=TOKEN    the same for an invitation
    kodo:TOKEN                  for `koco get` and `koco open`

    TOKEN = base64url(msgpack [version, peer id, fid, secret, [address hint …], registry hint | nil])

The peer id (its binary form) pins who has to answer; address hints (binary multiaddrs without `/p2p`) and the
registry hint only help to find that node. There is one token for each link: minimal msgpack, no padding, nothing
left over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import msgpack

from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.protocol.ids import is_id

__all__ = [
    "MAX_HINTS",
    "MAX_TOKEN_CHARACTERS",
    "SECRET_BYTES",
    "Link",
    "decode_token",
    "digest_of_secret",
    "encode_token",
    "parse_link",
    "write_link",
]

VERSION = 1
SECRET_BYTES = 16
MAX_HINTS = 8
MAX_TOKEN_CHARACTERS = 4096
MAX_LINK_CHARACTERS = MAX_TOKEN_CHARACTERS + 512
MAX_REGISTRY_CHARACTERS = 256

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_FRAGMENTS = ("get=", "open=")
"""Of a run, and of an invitation."""
_SCHEME = "kodo:"


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says.

    Attributes:
        peer_id: the node; whoever else answers is refused.
        fid: the run.
        secret: `bytes[16]`; who knows it may read the run. Never shown by `repr`.
        addresses: where the node was when the link was made, at most `MAX_HINTS`, each with its peer id.
        registry: URL of a registry that may know where it is now; asked only where the user wants that.
    """

    peer_id: PeerId
    fid: str
    secret: bytes = field(repr=False)
    addresses: tuple[Multiaddr, ...] = ()
    registry: str | None = None

    def __post_init__(self) -> None:
        """Check every part.

        Raises:
            ValueError: saying which part is wrong; never with the secret.
        """
        if not is_id(self.fid):
            raise ValueError("a link names a run by its fid")
        if len(self.secret) != SECRET_BYTES:
            raise ValueError(f"a link's secret has {SECRET_BYTES} bytes")
        if len(self.addresses) > MAX_HINTS:
            raise ValueError(f"a link has at most {MAX_HINTS} addresses")
        if any(address.peer_id != self.peer_id for address in self.addresses):
            raise ValueError("all addresses of a link must be those of its node")
        if self.registry is not None and not _is_registry(self.registry):
            raise ValueError("a link's registry is an http or https URL without user, query and fragment")


def digest_of_secret(secret: bytes) -> bytes:
    """Return what a node keeps of a link's secret: its SHA-256, `bytes[32]`."""
    return hashlib.sha256(secret).digest()


def encode_token(link: Link) -> str:
    """Write a link's token."""
    hints = [replace(address, peer_id=None).to_bytes() for address in link.addresses]
    packed = msgpack.packb([VERSION, link.peer_id.to_bytes(), link.fid, link.secret, hints, link.registry])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_token(token: str) -> Link:
    """Read a token.

    Raises:
        ValueError: it is not a token, or one of a newer kodo; the message never repeats any of it.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise ValueError(f"a token has at most {MAX_TOKEN_CHARACTERS} characters")
    if not token:
        raise ValueError("the token is empty: was the link copied whole?")
    if _TOKEN.fullmatch(token) is None:
        raise ValueError("the token has a character that is not allowed in tokens")
    try:
        packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        fields = msgpack.unpackb(packed, raw=False, strict_map_key=True, max_ext_len=0, max_map_len=0)
    except (binascii.Error, ValueError, msgpack.UnpackException, RecursionError):
        raise ValueError("the token is damaged: was it copied whole?") from None
    match fields:
        case [int(version), *_] if not isinstance(version, bool) and version > VERSION:
            raise ValueError("the token was made by a newer kodo: update yours")
        case [int(version), bytes(peer), str(fid), bytes(secret), list(hints), str() | None as registry] if (
            version == VERSION and not isinstance(version, bool) and all(isinstance(hint, bytes) for hint in hints)
        ):
            pass
        case _:
            raise ValueError("the token is damaged: it has not the contents of a link")
    peer_id = PeerId.from_bytes(peer)
    addresses = tuple(Multiaddr.from_bytes(hint).with_peer(peer_id) for hint in hints[: MAX_HINTS + 1])
    link = Link(peer_id, fid, secret, addresses, registry)
    if encode_token(link) != token:
        raise ValueError("the token is damaged: it is not in canonical form")
    return link


def write_link(token: str, page: str | None = None, *, invites: bool = False) -> str:
    """Return the link of a token: for a page at `page` (a URL such as `https://example.com`), else `kodo:TOKEN`.

    Args:
        invites: the token is of an invitation.
    """
    return f"{_SCHEME}{token}" if page is None else f"{page.rstrip('/')}/#{_FRAGMENTS[invites]}{token}"


def parse_link(text: str) -> Link:
    """Read a link in one of its forms, or a bare token.

    Raises:
        ValueError: it is not a link; the message never repeats the token.
    """
    text = text.strip()
    if len(text) > MAX_LINK_CHARACTERS:
        raise ValueError(f"a link has at most {MAX_LINK_CHARACTERS} characters")
    if text[: len(_SCHEME)].lower() == _SCHEME:
        return decode_token(text[len(_SCHEME) :])
    if text[:8].lower().startswith(("https://", "http://")):
        _, _, fragment = text.partition("#")
        if not fragment.startswith(_FRAGMENTS):
            raise ValueError("the link has no #get=TOKEN or #open=TOKEN at its end: was it copied whole?")
        return decode_token(fragment.partition("=")[2])
    if ":" in text or "/" in text:
        raise ValueError("a link is https://HOST/#get=TOKEN, https://HOST/#open=TOKEN or kodo:TOKEN")
    return decode_token(text)


def _is_registry(url: str) -> bool:
    if len(url) > MAX_REGISTRY_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password or "?" in url or "#" in url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain
