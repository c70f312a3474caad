"""Passwords: kept as argon2id hashes, checked with the same work whether there is one or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import argon2

from kodo.access.places import Places
from kodo.p2p.errors import CallError, UsageError

__all__ = ["MAX_PASSWORD", "MIN_PASSWORD", "Passwords", "check_password"]

T = TypeVar("T")

MIN_PASSWORD = 8
"""NIST SP 800-63B, 5.1.1.2."""
MAX_PASSWORD = 256

_AT_ONCE = 2
"""Each takes 64 MiB and most of a CPU while it lasts."""
_WAITING = 32


def check_password(password: str) -> str:
    """Give back a password that may be set.

    Raises:
        UsageError: it is too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise UsageError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


class Passwords:
    """Makes and checks hashes, in threads, few at once.

    Args:
        hasher: argon2id with the parameters of RFC 9106 (low memory) by default.

    Attributes:
        line: places in the line, to be held by the source of each who logs in: none takes the whole line.
    """

    def __init__(self, hasher: argon2.PasswordHasher | None = None):
        self._hasher = hasher or argon2.PasswordHasher()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self.line = Places("logins", most=_WAITING, each=_WAITING // 2)
        self._nobodys: str | None = None

    async def open(self) -> None:
        """Make ready: from here on a check for nobody costs what one for somebody costs."""
        self._nobodys = await asyncio.to_thread(self._hasher.hash, "nobody's")

    async def hash(self, password: str) -> str:
        """Give the hash to keep.

        Raises:
            UsageError: the password is too short or too long.
            CallError: 429 `busy`.
        """
        return await self._run(lambda: self._hasher.hash(check_password(password)))

    async def fits(self, kept: str | None, password: str) -> bool:
        """Say whether `password` is the one that was kept; never, and after the same work, when none was.

        Raises:
            CallError: 429 `busy`.
        """
        against = kept or self._nobodys
        assert against is not None, "passwords are checked after `open`"

        def check() -> bool:
            try:
                return self._hasher.verify(against, password) and kept is not None
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False

        return await self._run(check)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= _WAITING:
            raise CallError(429, "busy", "many are logging in just now; try again", {"retry_after_ms": 1000})
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
