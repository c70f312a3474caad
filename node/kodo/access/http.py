"""HTTP to an issuer of tokens: JSON in answers, bounded, never redirected, over TLS or to this machine itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kodo.access.outgoing import open_session, proxy_error
from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.errors import DeadlineError, NetworkError, PeerError, UnreachableError, UsageError

__all__ = ["Answer", "binding_alg", "check_issuer_url", "check_metadata", "discover", "get_json", "post_form"]

MAX_ANSWER_BYTES = 512 << 10
SECONDS = 10.0
WELL_KNOWN = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the JSON object, and a DPoP nonce if one was given (RFC 9449, section 8)."""

    status: int
    body: dict[str, Any]
    nonce: str | None = None


def check_issuer_url(url: str) -> str:
    """Return back a URL that may be spoken to: `https`, or `http` on this machine; no user, query or fragment.

    Raises:
        UsageError: it may not.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{url[:200]!r} is not a URL: {error}") from None
    if not host or parts.username is not None or parts.query or parts.fragment or len(url) > 2048:
        raise UsageError(f"{url[:200]!r} is not the URL of an issuer: https://HOST/PATH")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_own_host(host)):
        raise UsageError(f"{url[:200]!r} is not an https URL, so anybody could forge its answers")
    return url


async def discover(issuer: str) -> dict[str, Any]:
    """Return what an issuer says of itself.

    Raises:
        UnreachableError, DeadlineError: it does not answer.
        PeerError: what it says is not about it.
    """
    return check_metadata(issuer, await get_json(issuer.rstrip("/") + WELL_KNOWN))


def binding_alg(said: Mapping[str, Any]) -> str | None:
    """Return how an issuer binds tokens to an Ed25519 key (DPoP, RFC 9449), by its metadata; None when it cannot."""
    known = said.get("dpop_signing_alg_values_supported")
    return next((alg for alg in ("Ed25519", "EdDSA") if isinstance(known, list) and alg in known), None)


def check_metadata(issuer: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return back what an issuer says of itself when it is about it, and sends nobody off TLS.

    Raises:
        PeerError: it is not.
    """
    if said.get("issuer") != issuer:
        raise PeerError(f"{issuer} names itself as the issuer {str(said.get('issuer'))[:200]!r}")
    for name, place in said.items():
        spoken_to = name == "jwks_uri" or name.endswith("_endpoint")
        if spoken_to and issuer.startswith("https:") and not str(place).startswith("https:"):
            raise PeerError(f"{issuer} names a {name} that is not https")
    return said


async def get_json(url: str) -> dict[str, Any]:
    """Return the JSON object at `url`.

    Raises:
        UnreachableError, DeadlineError: it does not answer.
        PeerError: the answer is something else, or too large.
    """
    answer = await _ask("GET", url, None, {})
    if answer.status != 200:
        raise UnreachableError(f"{url} answers with {answer.status}")
    return answer.body


async def post_form(url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
    """Post a form; give the answer, whatever its status.

    Raises:
        UnreachableError, DeadlineError: nobody answers.
        PeerError: the answer is no JSON object, or too large.
    """
    return await _ask("POST", url, dict(form), dict(headers or {}))


async def _ask(method: str, url: str, form: dict[str, str] | None, headers: dict[str, str]) -> Answer:
    import aiohttp  # only where an issuer is asked: importing it takes longer than most commands that never do

    try:
        check_issuer_url(url)
    except UsageError as error:
        raise PeerError(str(error)) from None
    client, proxy = await open_session(url, timeout=aiohttp.ClientTimeout(total=SECONDS))
    try:
        async with (
            client as session,
            session.request(
                method, url, data=form, headers={"Accept": "application/json", **headers}, allow_redirects=False
            ) as response,
        ):
            raw = await response.content.read(MAX_ANSWER_BYTES + 1)
            while len(raw) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES)):
                raw += more
            if len(raw) > MAX_ANSWER_BYTES:
                raise PeerError(f"{url} answers with more than {MAX_ANSWER_BYTES} bytes")
            if response.status >= 500:
                raise UnreachableError(f"{url} answers with {response.status}")
            body = json.loads(raw)
            if not isinstance(body, dict):
                raise PeerError(f"{url} answers with something that is not a JSON object")
            return Answer(response.status, body, response.headers.get("DPoP-Nonce"))
    except (PeerError, NetworkError):
        raise
    except TimeoutError:
        raise DeadlineError(f"{url}: no answer within {SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise proxy_error(error, url, proxy) or UnreachableError(f"{url} does not answer: {error}") from None
    except (ValueError, RecursionError):
        raise PeerError(f"{url} answers with something that is not JSON") from None
