"""A user's side of what registries ask for: signed requests, and the token of a login beside them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from yarl import URL

from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError
from kodo.registry.records.claims import TOKEN_HEADER, authorization

__all__ = ["Claimant", "check_private_url", "claimed_host", "is_private"]

Token = Callable[[str | None], Awaitable[str | None]]
"""Gives the token of the login to a registry, another than the one that was just refused; None when there is none."""


def _system_clock() -> int:
    return time.time_ns() // 1_000_000


class Claimant:
    """Signs the requests of one user, or of one registry, to one registry.

    Args:
        identity: whose requests.
        token: gives the token of a login there.
        now: gives ms UTC.
    """

    def __init__(self, identity: Identity, token: Token | None = None, *, now: Callable[[], int] = _system_clock):
        self.identity = identity
        self._find = token
        self._now = now
        self._ahead_ms = 0
        self._latest = 0
        self._token: str | None = None
        self._asked = token is None

    async def headers(self, url: str, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the headers that make one request to the registry at `url` this user's."""
        # Strictly rising, also within a millisecond.
        self._latest = max(self._latest + 1, self._now() + self._ahead_ms)
        shown = {"Authorization": authorization(self.identity, claimed_host(url), method, target, body, self._latest)}
        if not self._asked and self._find is not None:
            self._token, self._asked = await self._find(None), True
        if self._token is not None:
            shown[TOKEN_HEADER] = self._token
        return shown

    def forget(self) -> None:
        """Look for a token anew: there was a login, or there is none any more."""
        self._token, self._asked = None, self._find is None

    async def learns(self, error: CallError) -> bool:
        """Return whether a refused request is worth making again: by the registry's clock, or by another token."""
        clock = error.data.get("registry")
        if error.reason == "stale-claim" and isinstance(clock, int) and 0 <= clock < 2**53:
            self._ahead_ms, self._latest = clock - self._now(), 0
            return True
        if error.reason != "bad-token" or self._token is None:
            return False
        # Without it one is who one is by one's key alone, as in a session that is not logged in.
        self._token = await self._find(self._token) if self._find is not None else None
        return True


def claimed_host(url: str) -> str:
    """Return the host name and port of `url` as `Host` spells them: without a port that goes without saying."""
    return URL(url).host_port_subcomponent or ""


def is_private(url: str) -> bool:
    """Return whether nobody on the way reads, or changes, what is said to `url`: over TLS, or on this machine."""
    parsed = URL(url)
    return parsed.scheme == "https" or is_own_host(parsed.host or "")


def check_private_url(url: str) -> None:
    """Check that something private can be sent to the URL of a registry.

    Raises:
        CallError: 403 `tls-only`.
    """
    if not is_private(url):
        raise CallError(
            403, "tls-only", f"nothing was sent, since others could read it on the way to {url}; use its https:// URL"
        )
