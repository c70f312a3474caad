"""Signed tokens: judged by fixed algorithms, against keys that were fetched from the issuer and from nowhere else.

What a token says about itself never chooses how it is judged: its `alg` has to be on the list and fit the kind of
key, and headers that bring or name a key (`jwk`, `jku`, `x5c`, `x5u`) are refused.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import errors as jose
from joserfc import jwk, jws, jwt

__all__ = [
    "ALGORITHMS",
    "MAX_TOKEN_BYTES",
    "BadTokenError",
    "Header",
    "Key",
    "check_claims",
    "make_proof_of_key",
    "peer_thumbprint",
    "read_header",
    "read_keys",
    "read_signed",
]
__all__ += ["peer_thumbprint", "read_header", "read_keys", "read_signed"]

MAX_TOKEN_BYTES = 16 << 10

_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
ALGORITHMS = (
    *(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)),
    "Ed25519",
    "EdDSA",
)
"""RFC 7518, 8037, 9864: signatures by a private key only."""

_TYPES = frozenset(["jwt", "at+jwt", "application/at+jwt", "application/jwt"])
"""RFC 9068 and plain; not, say, `logout+jwt` or `dpop+jwt`."""
_OWN_KEYS = frozenset(["jwk", "jku", "x5c", "x5u"])
_MIN_RSA_BITS = 2048
_MAX_KEYS = 100

Key = jwk.RSAKey | jwk.ECKey | jwk.OKPKey


class BadTokenError(Exception):
    """The token is not to be believed; the text says why, and nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says of its signature: believed by nobody, used to find the key."""

    alg: str
    kid: str | None


def read_header(token: str) -> Header:
    """Read the header of a token, and refuse what cannot be right whatever the key.

    Raises:
        BadTokenError: saying why.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise BadTokenError(f"it is larger than {MAX_TOKEN_BYTES} bytes")
    if token.count(".") != 2:
        raise BadTokenError("it is not a signed token")
    try:
        headers = jws.extract_compact(token.encode("ascii")).headers()
    except (jose.JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadTokenError("it is not a signed token") from None
    alg, kid, kind = headers.get("alg"), headers.get("kid"), headers.get("typ")
    if alg not in ALGORITHMS:
        raise BadTokenError("its algorithm is not accepted")
    if "crit" in headers or headers.get("b64", True) is not True:
        raise BadTokenError("it has a critical header that is not supported")
    if _OWN_KEYS & headers.keys():
        raise BadTokenError("it brings a key of its own")
    if kid is not None and not isinstance(kid, str):
        raise BadTokenError("its key id is not text")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
        raise BadTokenError("it was made for another purpose")
    return Header(alg, kid)


def read_keys(document: Mapping[str, Any]) -> dict[str | None, list[Key]]:
    """Read a key set: the keys that may verify signatures, by key id. What is no such key is passed over."""
    found: dict[str | None, list[Key]] = {}
    entries = document.get("keys")
    for entry in entries[:_MAX_KEYS] if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or entry.get("kty") not in _KINDS.values():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", jose.SecurityWarning)  # said of keys that are too short: see below
                key = jwk.import_key(dict(entry))
        except (jose.JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if not isinstance(key, Key) or entry.get("use", "sig") != "sig" or key.is_private:
            continue
        if isinstance(key, jwk.RSAKey) and key.public_key.key_size < _MIN_RSA_BITS:
            continue
        kid = entry.get("kid")
        found.setdefault(kid if isinstance(kid, str) else None, []).append(key)
    return found


def read_signed(token: str, header: Header, keys: Mapping[str | None, list[Key]]) -> dict[str, Any] | None:
    """Verify the signature; give the claims, or None when the key that the token names is not there.

    Raises:
        BadTokenError: the signature is not by that key.
    """
    named = [key for each in keys.values() for key in each] if header.kid is None else keys.get(header.kid, [])
    kind = _KINDS[header.alg[:2]]
    fitting = [key for key in named if key.key_type == kind and key.get("alg", header.alg) == header.alg]
    if not named:
        return None
    for key in fitting:
        try:
            with warnings.catch_warnings():
                # The name `EdDSA` is deprecated, and what many issuers say.
                warnings.simplefilter("ignore", jose.SecurityWarning)
                return dict(jwt.decode(token, key, algorithms=[header.alg]).claims)
        except (jose.JoseError, ValueError, TypeError):
            continue
    raise BadTokenError("its signature is not its issuer's")


def check_claims(claims: Mapping[str, Any], *, issuer: str, audience: str, now: float, skew: float) -> float:
    """Judge the claims of a token whose signature is right; give the time of its end, seconds UTC.

    Raises:
        BadTokenError: saying which claim is wrong.
    """
    if claims.get("iss") != issuer:
        raise BadTokenError("it was issued by another issuer")
    said = claims.get("aud")
    if audience not in (said if isinstance(said, list) else [said]):
        raise BadTokenError("it is for another audience")
    expires = _time(claims, "exp")
    if expires is None:
        raise BadTokenError("it has no time of expiry")
    if expires <= now - skew:
        raise BadTokenError("it has ended")
    if (begins := _time(claims, "nbf")) is not None and begins > now + skew:
        raise BadTokenError("it is not valid yet")
    if (made := _time(claims, "iat")) is not None and made > now + skew:
        raise BadTokenError("it was made in the future")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 53:
        raise BadTokenError(f"its {name} is not a time")
    return float(value)


def peer_thumbprint(public_key: bytes) -> str:
    """Return the thumbprint (RFC 7638) of a peer's Ed25519 key: what `cnf.jkt` of a token for that peer is."""
    return str(_peer_key(public_key).thumbprint())


def _peer_key(public_key: bytes) -> jwk.OKPKey:
    return jwk.OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _base64url(public_key)})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_proof_of_key(seed: bytes, alg: str, claims: Mapping[str, Any], public_key: bytes) -> str:
    """Make a DPoP proof (RFC 9449, section 4.2) by an Ed25519 key: it has an issuer bind its token to that key."""
    public = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(public_key)}
    key = jwk.OKPKey.import_key({**public, "d": _base64url(seed)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jose.SecurityWarning)
        return jwt.encode({"typ": "dpop+jwt", "alg": alg, "jwk": public}, dict(claims), key, algorithms=[alg])
