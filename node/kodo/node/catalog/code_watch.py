"""Notices that the code of flows is edited while the node runs: describes it anew, or tells it once and leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from kodo.node.catalog.scope_code import ScopeCode, Seen
from kodo.node.clock import Clock
from kodo.p2p.errors import KodoError

__all__ = ["CodeWatch", "running"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often sources are looked at; less often where that takes long."""

_SHARE = 50
"""One part in so many of a processor's time may be spent on it."""

_NAMED = 5


class CodeWatch:
    """Looks at the sources of a scope again and again.

    Args:
        seen: the sources whose flows are offered.
        reload: describes the flows anew and offers them; returns what is wrong with those that stay as they were.
            None: what is edited is left.
        keeps: whether runs take the code as it was when the node started.
    """

    def __init__(
        self,
        code: ScopeCode,
        seen: Callable[[], Seen],
        clock: Clock,
        reload: Callable[[], Awaitable[list[str]]] | None,
        *,
        keeps: bool = True,
    ):
        self._code = code
        self._seen = seen
        self._clock = clock
        self._reload = reload
        self._keeps = keeps
        self._told: Seen | None = None
        self._fault = ""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(max(LOOK_SECONDS, await self.look() * _SHARE))

    async def look(self) -> float:
        """Look once, and do what is to be done; return how long looking took, in seconds. Raises nothing."""
        begin = time.monotonic()
        try:
            now = await asyncio.to_thread(self._code.look)
        except Exception as error:  # whatever it is: the node and its runs go on without it
            fault = _text_of(error)
            if fault != self._fault:
                logger.warning("the code of flows cannot be looked at, and the flows stay as they were: %s", fault)
            self._fault = fault
            return time.monotonic() - begin
        took, before, self._fault = time.monotonic() - begin, self._seen(), ""
        if now == before:
            self._told = None
        elif now != self._told:
            self._told = now
            await self._note(_changed(before, now))
        return took

    async def _note(self, paths: list[str]) -> None:
        names = _names(paths)
        if self._reload is None:
            self._leave(paths)
            return
        try:
            faults = await self._reload()
        except Exception as error:  # also what nobody thought of must not end the node
            logger.warning("%s changed, and the flows stay as they were: %s", names, _text_of(error))
            return
        for fault in faults:
            logger.warning("%s changed: %s", names, fault)
        if not faults:
            logger.warning("%s changed: new runs take the new code", names)

    def _leave(self, paths: list[str]) -> None:
        """Log what becomes of changed files, as nothing is described anew."""
        read = [path for path in paths if path in self._code.read_when_run]
        if code := [path for path in paths if path not in read]:
            what = (
                "runs go on with the code that the node started with; restart it to offer what is new, or start it "
                "with --reload"
            )
            unkept = "restart the node: until then runs may take the new code under the form of the old one"
            logger.warning("%s changed: %s", _names(code), what if self._keeps else unkept)
        if read:
            logger.warning(
                "%s changed: runs in processes that are ready have the variables of before, later ones those of now; "
                "restart the node, or start it with --reload",
                _names(read),
            )


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do `work` for as long as the block lasts."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


def _changed(before: Seen, now: Seen) -> list[str]:
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, KodoError) else f"{type(error).__name__}: {error}"


def _names(paths: list[str]) -> str:
    names = ", ".join(os.path.basename(path) for path in paths[:_NAMED])
    return names + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
