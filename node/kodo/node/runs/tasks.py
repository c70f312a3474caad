"""Work that outlives whoever asked for it: tasks with one owner, which ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from kodo.node.runs.launch import stopping
from kodo.p2p.net.turns import line_for

__all__ = ["Tasks"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """The tasks of one owner, from `open` to `aclose`."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return self._group is not None

    async def open(self) -> None:
        """Take work from now on."""
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())

    async def aclose(self) -> None:
        """Take no more work and cancel what is under way; idempotent."""
        self._group = None
        for task in list(self._tasks):
            task.cancel()
        await self._stack.aclose()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], payer: str | None = None) -> asyncio.Task[None]:
        """Do `work` in a task of this owner; a failure is logged, without its data, and stays there.

        Args:
            payer: in whose line it waits for its turn, unless somebody asks for it just now.
        """

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                logger.error("work on a run failed: %s", type(error).__name__)

        return self.start(guarded, payer)

    async def undisturbed(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` to its end although the one who asked for it may go away; give its result, or its error."""
        failed: list[Exception] = []

        async def carry() -> T | None:
            try:
                return await work()
            except Exception as error:
                failed.append(error)
                return None

        task = self.start(carry)
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise stopping() from None
            raise
        if failed:
            raise failed[0]
        return cast(T, result)

    def start(self, work: Callable[[], Coroutine[Any, Any, T]], payer: str | None = None) -> asyncio.Task[T]:
        """Do `work` in a task; a failure of it ends all of them.

        Args:
            payer: see `spawn`.

        Raises:
            CallError: 503 `stopping`, it takes none.
        """
        if self._group is None:
            raise stopping()
        task = self._group.create_task(work(), context=None if payer is None else line_for(payer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
