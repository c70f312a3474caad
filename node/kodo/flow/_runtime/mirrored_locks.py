"""Locks of a run on another node, shown as locks of the run that launched it: their answers are passed on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from kodo.flow._runtime.context import Context, Demand
from kodo.flow.locks import DeniedError
from kodo.p2p.errors import CallError
from kodo.protocol.events import LOCK_VERDICT_S, OpenLock

__all__ = ["MirroredLock"]

_WAY_SECONDS = 30.0
"""How much longer than the other run its verdict may take to arrive."""


class MirroredLock:
    """One of them. Thread-safe.

    Args:
        forward: passes an answer on to the lock of that id, and gives the data of its `unlock`.
    """

    def __init__(self, context: Context, lock: OpenLock, forward: Callable[[str, Any], Mapping[str, Any]]):
        self._context = context
        self._lock = lock
        self._forward = forward
        self._guard = threading.Lock()
        self._judging = 0
        self._closed = False
        self._answer: Any = None
        self._future: Future[Any] | None = None

    def open(self) -> None:
        """Show it; blocks while the node is behind.

        Raises:
            UsageError, CapacityError: this run cannot have such a lock, or no more of them.
        """
        lock = self._lock
        self._future = self._context.lock(
            Demand(
                title=lock.title,
                schema=lock.schema,
                accept=self._accept,
                expires_s=max((lock.expires_at - lock.opened_at) / 1000, 1.0),
                verdict_s=LOCK_VERDICT_S + _WAY_SECONDS,
                default=lock.default,
                has_default=lock.has_default,
                roles=(),
                users=(),
            )
        )

    def close(self, answer: Any = None) -> None:
        """Take it away: it was answered there, or its run is over."""
        with self._guard:
            self._closed, self._answer = True, answer
            if self._judging:
                return  # whoever has just answered closes it
        self._take_away()

    def _accept(self, candidate: Any) -> tuple[Any, Any]:
        with self._guard:
            self._judging += 1
        accepted = False
        try:
            answer = self._forward(self._lock.lid, candidate).get("answer")
            accepted = True
            return answer, answer
        except CallError as error:
            raise DeniedError(error.data.get("reasons") or [error.message or error.reason]) from None
        finally:
            with self._guard:
                self._judging -= 1
                left = self._closed and not self._judging and not accepted
            if left:
                self._take_away()

    def _take_away(self) -> None:
        if self._future is not None:
            self._context.close_lock(self._future, self._answer)
