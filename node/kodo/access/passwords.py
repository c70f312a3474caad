"""Passwords: kept as argon2id hashes, checked with the same work whether there is one or not."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, deque
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

_AT_ONCE = max(1, min(4, (os.cpu_count() or 1) // 2))
"""Each takes 64 MiB and a CPU while it lasts, and the rest of the machine is for all else."""
_WAITING = 32


def check_password(password: str) -> str:
    """Return back a password that may be set.

    Raises:
        UsageError: it is too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise UsageError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


class _Turns:
    """Who checks next: those who are known, then one of each source after the other.

    Args:
        at_once: how many have a turn at once.
    """

    def __init__(self, at_once: int):
        self._free = at_once
        self._known: deque[asyncio.Future[None]] = deque()
        self._others: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, source: str | None) -> None:
        """Wait for a turn, which `go_on` ends; None is somebody known. Cancelling is safe."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._known if source is None else self._others.setdefault(source, deque())).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.go_on()
            raise

    def go_on(self) -> None:
        """Pass the turn that ended to the next who still waits."""
        while self._known or self._others:
            if self._known:
                turn = self._known.popleft()
            else:
                source, line = next(iter(self._others.items()))
                turn = line.popleft()
                if line:
                    self._others.move_to_end(source)
                else:
                    del self._others[source]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Passwords:
    """Makes and checks hashes, in threads, few at once.

    Args:
        hasher: argon2id with the memory and passes of RFC 9106 (low memory) by default, in one lane: four threads for
            each check would keep the node's own from running.

    Attributes:
        line: places in the line, to be held by the source of each who logs in: none takes the whole line.
        line_of_known: the same for devices on which the user has logged in before, by peer.
    """

    def __init__(self, hasher: argon2.PasswordHasher | None = None):
        self._hasher = hasher or argon2.PasswordHasher(parallelism=1)
        self._turns = _Turns(_AT_ONCE)
        self._waiting = 0
        self.line = Places("logins", most=_WAITING, each=_WAITING // 2)
        self.line_of_known = Places("logins", most=_WAITING, each=2)
        self._nobodys: str | None = None

    async def open(self) -> None:
        """Make ready: from here on a check for nobody costs what one for somebody costs."""
        self._nobodys = await asyncio.to_thread(self._hasher.hash, "nobody's")

    async def hash(self, password: str) -> str:
        """Return the hash to keep.

        Raises:
            UsageError: the password is too short or too long.
            CallError: 429 `busy`.
        """
        return await self._run(lambda: self._hasher.hash(check_password(password)), None)

    async def fits(self, kept: str | None, password: str, *, source: str | None = "") -> bool:
        """Return whether `password` is the one that was kept; never, and after the same work, when none was.

        Args:
            source: where it comes from; sources take turns. None: from one of the user's own devices, which comes
                before all of them.

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

        return await self._run(check, source)

    async def _run(self, work: Callable[[], T], source: str | None) -> T:
        if source is not None and self._waiting >= _WAITING:
            raise CallError(429, "busy", "too many logins at once; try again", {"retry_after_ms": 1000})
        self._waiting += 1
        try:
            await self._turns.take(source)
            checking = asyncio.ensure_future(asyncio.to_thread(work))
            # Not when the caller gives up: its thread goes on until then, and so do its 64 MiB.
            checking.add_done_callback(lambda _: self._turns.go_on())
            return await asyncio.shield(checking)
        finally:
            self._waiting -= 1
