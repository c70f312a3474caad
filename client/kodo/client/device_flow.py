"""Getting tokens of an OpenID Connect issuer without a browser of one's own: the device flow (RFC 8628), and refresh.

Where the issuer can (RFC 9449), the token is bound to this user's key: a node that shows it to another is then
refused there, since it cannot open a session with that key.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kodo.access import http
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import DeadlineError, NetworkError, PeerError, UsageError
from kodo.protocol.numbers import seconds_within

__all__ = ["DeviceFlow", "Prompt", "Tokens", "is_bound"]

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_MAX_WAIT_S = 1800.0
_MIN_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
_PAUSE_S = 5.0
"""Between two questions, where the issuer does not say (RFC 8628, section 3.2)."""


class Prompt(NamedTuple):
    """What a person has to do: open `uri` (or `uri_complete`) within `expires_s` and enter `code`."""

    uri: str
    uri_complete: str | None
    code: str
    expires_s: float


class Tokens(NamedTuple):
    """`token` is for nodes, `refresh` for the issuer alone; `expires_at` in ms UTC."""

    token: str
    refresh: str | None
    expires_at: int

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Tokens | None:
        """Read what `kept` gave; None when that is not it."""
        token, refresh, expires = kept.get("token"), kept.get("refresh"), kept.get("expires_at")
        if not isinstance(token, str) or not isinstance(expires, int):
            return None
        return cls(token, refresh if isinstance(refresh, str) else None, expires)


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """Asks one issuer for tokens for one audience.

    Attributes:
        issuer, client_id, audience, scope: what the node said and the user approved.
        identity: the user's key.
        bound: take no token that is not bound to that key.
        sleep, now: how to wait, and seconds UTC.
    """

    issuer: str
    client_id: str
    audience: str
    scope: str
    identity: Identity
    bound: bool = False
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.time

    async def run(self, show: Callable[[Prompt], None]) -> Tokens:
        """Ask a person to approve in a browser, and wait until it is done. Cancelling is safe.

        Raises:
            UsageError: the issuer has no such flow, or no tokens for this audience; it was denied.
            DeadlineError: it was not approved in time.
            NetworkError, PeerError: the issuer is away, or makes no sense.
        """
        said = await http.discover(self.issuer)
        if self.bound and http.binding_alg(said) is None:
            raise UsageError(
                f"{self.issuer} cannot bind tokens to your key (DPoP with Ed25519), and you allow bound tokens only"
            )
        place = said.get("device_authorization_endpoint")
        if not isinstance(place, str):
            raise UsageError(f"{self.issuer} does not support the device flow that logins need")
        answer = await http.post_form(place, {"scope": self.scope, **self._asked()})
        body = answer.body
        code, shown, uri = (body.get(name) for name in ("device_code", "user_code", "verification_uri"))
        if answer.status != 200 or not (isinstance(code, str) and isinstance(shown, str) and isinstance(uri, str)):
            raise UsageError(f"{self.issuer} refused to start a login: {_why(body)}")
        complete = body.get("verification_uri_complete")
        wait = seconds_within(body.get("expires_in"), 600.0, most=_MAX_WAIT_S)
        pause = seconds_within(body.get("interval"), _PAUSE_S, least=_MIN_PAUSE_S, most=_MAX_PAUSE_S)
        until = self.now() + wait
        show(Prompt(uri, complete if isinstance(complete, str) else None, shown, wait))
        first = True
        while self.now() < until:
            # The pause is one between two questions.
            await self.sleep(_MIN_PAUSE_S if first else pause)
            first = False
            try:
                answer = await self._token(said, {"grant_type": _GRANT, "device_code": code, **self._asked()})
            except (NetworkError, DeadlineError):
                pause = min(pause * 2, _MAX_PAUSE_S)  # RFC 8628, section 3.5
                continue
            match answer.body.get("error"):
                case None:
                    return self._tokens(answer, None)
                case "authorization_pending":
                    pass
                case "slow_down":
                    pause = min(pause + 5.0, _MAX_PAUSE_S)
                case "access_denied":
                    raise UsageError(f"the login was denied at {self.issuer}")
                case "expired_token":
                    break
                case _:
                    raise UsageError(f"{self.issuer} refused a token: {_why(answer.body)}")
        raise DeadlineError(f"nobody approved the login at {self.issuer} within {wait:g} s")

    async def refresh(self, tokens: Tokens) -> Tokens | None:
        """Get new tokens without anybody; None when the issuer gives none any more.

        Raises:
            NetworkError, DeadlineError, PeerError: the issuer is away, or makes no sense.
        """
        if tokens.refresh is None:
            return None
        said = await http.discover(self.issuer)
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh, **self._asked()}
        answer = await self._token(said, form)
        return self._tokens(answer, tokens.refresh) if answer.status == 200 else None

    def _asked(self) -> dict[str, str]:
        asked = {"client_id": self.client_id, "audience": self.audience}
        # By RFC 8707 the audience is asked for as a resource, which is a URI; some issuers know `audience` instead.
        return asked | {"resource": self.audience} if "://" in self.audience else asked

    async def _token(self, said: Mapping[str, Any], form: Mapping[str, str]) -> http.Answer:
        place = said.get("token_endpoint")
        if not isinstance(place, str):
            raise PeerError(f"{self.issuer} does not publish where it issues tokens")
        alg = http.binding_alg(said)
        answer = await http.post_form(place, form, self._bound(place, alg, None))
        if alg is not None and answer.nonce is not None and answer.body.get("error") == "use_dpop_nonce":
            answer = await http.post_form(place, form, self._bound(place, alg, answer.nonce))
        return answer

    def _bound(self, place: str, alg: str | None, nonce: str | None) -> dict[str, str]:
        if alg is None:
            return {}
        # Imported here: most commands log nobody in, and joserfc takes its time.
        from kodo.access.jose import make_proof_of_key

        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": "POST",
            "htu": place,
            "iat": int(self.now()),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        key = self.identity.peer_id.public_key
        return {"DPoP": make_proof_of_key(self.identity.seed, alg, claims, key)}

    def _tokens(self, answer: http.Answer, refresh: str | None) -> Tokens:
        body = answer.body
        # An opaque access token says nothing to a node; the id token is for the client, so only where that is meant.
        found = [body.get("access_token"), body.get("id_token") if self.audience == self.client_id else None]
        token = next((each for each in found if isinstance(each, str) and each.count(".") == 2), None)
        if token is None:
            raise UsageError(
                f"{self.issuer} issues no signed token for {self.audience}; its operator must allow that audience"
            )
        if self.bound and not is_bound(token, self.identity):
            raise UsageError(
                f"{self.issuer} issued a token that is not bound to your key, and you allow bound tokens only"
            )
        new = body.get("refresh_token")
        expires = self.now() + seconds_within(body.get("expires_in"), 300.0, least=1.0, most=366 * 86400.0)
        return Tokens(token, new if isinstance(new, str) else refresh, int(expires * 1000))


def is_bound(token: str, identity: Identity) -> bool:
    """Whether a signed token says that it is bound to this key (RFC 9449, 6.1); its signature is not looked at."""
    from kodo.access.jose import peer_thumbprint

    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        bound = claims["cnf"]["jkt"]
    except (IndexError, KeyError, TypeError, ValueError):
        return False
    return bool(bound == peer_thumbprint(identity.peer_id.public_key))


def _why(body: Mapping[str, Any]) -> str:
    return str(body.get("error_description") or body.get("error") or "it does not say why")[:300]
