"""Credentials for a TURN server, for pages in networks that let no UDP out.

A browser reaches the relay by UDP alone, or by a TURN server (RFC 8656) that it reaches over TCP or TLS. That is one
of the operator's own, e.g. coturn with `use-auth-secret`: it shares a secret with the registry, and takes whoever
shows a user name that says until when it holds, and as the password its HMAC by that secret ("A REST API for access
to TURN services", draft-uberti-behave-turn-rest). The secret stays here.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import hdrs, web

from kodo.access.throttle import Throttle
from kodo.p2p.core.hosts import source_of
from kodo.registry.problems import problem

__all__ = ["TURN_TTL_S", "Turn", "credentials"]

TURN_TTL_S = 600
"""Seconds for which credentials hold: a session that has begun by then goes on."""

_DAY_MS = 86_400_000
_NAME_CHARACTERS = 20


@dataclass(slots=True)
class Turn:
    """The route.

    Attributes:
        urls: of the TURN servers; none: this registry names none.
        secret: what it shares with them.
        admit: raises `CallError` when whoever calls may not read this registry.
        clock: gives ms UTC.
        asked: how often one source may ask.
    """

    urls: tuple[str, ...]
    secret: str = field(repr=False)
    admit: Callable[[web.Request], Awaitable[object]]
    clock: Callable[[], int]
    asked: Throttle = field(default_factory=lambda: Throttle(burst=30, every_ms=2000))

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/turn", self.answer)]

    async def answer(self, request: web.Request) -> web.Response:
        """Make credentials for a page: what an `RTCIceServer` has, and until when it holds."""
        if not self.urls:
            raise problem(404, "no-turn", "this registry names no TURN server")
        await self.admit(request)
        now = self.clock()
        source = source_of(request.remote)
        wait = self.asked.wait_ms(source, now)
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many of these at once; wait {seconds} s", retry_after_s=seconds)
        expires_s = now // 1000 + TURN_TTL_S
        username, credential = credentials(self.secret, expires_s, self._name(source, now))
        told = {
            "urls": list(self.urls),
            "username": username,
            "credential": credential,
            "expires_at": expires_s * 1000,
        }
        return web.json_response(told, headers={hdrs.CACHE_CONTROL: "no-store"})

    def _name(self, source: str, now: int) -> str:
        """Return the name by which the TURN server counts what a source uses; who it is, only the secret tells."""
        text = f"name {now // _DAY_MS} {source}"
        return hmac.digest(self.secret.encode(), text.encode(), "sha256").hex()[:_NAME_CHARACTERS]


def credentials(secret: str, expires_s: int, name: str) -> tuple[str, str]:
    """Return a user name that holds until `expires_s` (seconds UTC), and its password."""
    username = f"{expires_s}:{name}"
    return username, base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
