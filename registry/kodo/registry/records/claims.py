"""How a person calls a registry as who they are: each request is signed with their user key. Pure.

`Authorization: Kodo <base64url of the signed claim>`; the claim names the registry's host, the method, the target,
the SHA-256 of the body and the time. No secret travels, so none can be overheard or used elsewhere: a claim is good
for one request, to one registry, once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import PeerError
from kodo.registry.records.signed import Signed, Time, sign, verify

__all__ = [
    "MAX_AGE_S",
    "MAX_AHEAD_S",
    "TOKEN_HEADER",
    "Claim",
    "Enrolment",
    "Seen",
    "authorization",
    "enrol_proof",
    "read_authorization",
]

MAX_AGE_S = 60
"""Seconds that a claim may be old, by the registry's clock."""
MAX_AHEAD_S = 5
"""Seconds that its time may lie in the future: little, for what was used is not known any more after a restart."""
TOKEN_HEADER = "Kodo-Token"
"""The header with the token that shows a login, beside the claim."""

_SCHEME = "Kodo "
_MAX_HEADER = 8190


class Claim(Signed):
    """A request as its sender means it.

    Attributes:
        host: name and port of the registry as the sender dialled it, lower case.
        method: of HTTP, upper case.
        target: path and query as sent.
        body_sha256: `bytes[32]`.
        at: ms UTC, the sender's clock; strictly rising.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/claim/1\n"

    v: Literal[1] = 1
    host: Annotated[str, Field(min_length=1, max_length=300)]
    method: Annotated[str, Field(max_length=16)]
    target: Annotated[str, Field(max_length=2048)]
    body_sha256: Annotated[bytes, Field(min_length=32, max_length=32)]
    at: Time


class Enrolment(Signed):
    """The holder of a key asks to be an operator.

    Attributes:
        proof: HMAC-SHA256 of both peer ids by the code that the registry printed, `bytes[32]`.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/enrolment/1\n"

    v: Literal[1] = 1
    proof: Annotated[bytes, Field(min_length=32, max_length=32)]


def enrol_proof(code: str, registry: str, peer_id: str) -> bytes:
    """Prove to know `code` to the registry of this peer id, in a way that is of no use to others."""
    plain = "".join(code.split()).replace("-", "").lower()
    return hmac.digest(plain.encode(), f"kodo/registry/enrol/1\n{registry}\n{peer_id}".encode(), hashlib.sha256)


def authorization(identity: Identity, host: str, method: str, target: str, body: bytes, at: int) -> str:
    """Return the header's value for one request."""
    claim = Claim(
        peer_id=str(identity.peer_id),
        host=host.lower(),
        method=method,
        target=target,
        body_sha256=hashlib.sha256(body).digest(),
        at=at,
    )
    return _SCHEME + base64.urlsafe_b64encode(sign(claim, identity)).rstrip(b"=").decode()


def read_authorization(header: str, host: str, method: str, target: str, body: bytes) -> Claim:
    """Read the header's value; whether it comes in time is for the caller to judge, who has a clock.

    Raises:
        PeerError: it is malformed, or about another request.
        IdentityError: the signature is not of the key that it names.
    """
    if not header.startswith(_SCHEME) or len(header) > _MAX_HEADER:
        raise PeerError("the authorization is not of the scheme `Kodo`")
    text = header.removeprefix(_SCHEME)
    try:
        signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise PeerError("the authorization is not base64url") from None
    claim = verify(Claim, signed)
    if (claim.host, claim.method, claim.target) != (host.lower(), method, target):
        raise PeerError("the authorization was made for another request, or another registry")
    if not hmac.compare_digest(claim.body_sha256, hashlib.sha256(body).digest()):
        raise PeerError("the authorization was made for another body")
    return claim


class Seen:
    """The latest claim of each key, so that none counts twice. At most `keys` are remembered.

    Args:
        since: ms UTC, from when on claims are remembered: older ones may have been used before.
    """

    def __init__(self, keys: int = 10_000, *, since: int = 0) -> None:
        self._keys = keys
        self._since = since
        self._latest: OrderedDict[str, int] = OrderedDict()

    def timely(self, claim: Claim, now: int) -> bool:
        """Return whether `claim` comes in time, `now` in ms."""
        oldest = max(self._since, now - MAX_AGE_S * 1000)
        return oldest <= claim.at <= now + MAX_AHEAD_S * 1000

    def next_at(self, peer_id: str, now: int) -> int:
        """Return a time, ms UTC, that a claim of this key may have now, `now` in ms."""
        return max(now, self._latest.get(peer_id, -1) + 1)

    def fresh(self, claim: Claim, now: int) -> bool:
        """Count `claim` at `now` (ms) and say whether it is in time and new."""
        if not self.timely(claim, now) or claim.at <= self._latest.get(claim.peer_id, -1):
            return False
        self._latest[claim.peer_id] = claim.at
        self._latest.move_to_end(claim.peer_id)
        if len(self._latest) > self._keys:
            self._latest.popitem(last=False)
        return True
