"""The node's end of a connection to the process that keeps its runners: calls with numbers, and their answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from kodo.node.clock import awake_timeout
from kodo.node.executors.apart.wire import pack_frame, read_error, read_frame
from kodo.node.executors.executor import RunnerDiedError
from kodo.p2p.errors import BrokenSessionError, DeadlineError, KodoError

__all__ = ["LOST", "Line"]

LOST = "the process that keeps the runners has ended, and the flow's process with it"


class Line:
    """One connection: calls with numbers, and the answers to them."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_lost: Callable[[], None] = lambda: None
    ):
        """Use a connection; `on_lost` is called when it is one no more."""
        self._on_lost = on_lost
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self.lost = False

    async def read(self) -> None:
        """Read until the other side has gone, or said what nobody asked for; then everybody who waits is told."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    number, kind, value = await read_frame(self._reader)
                    call = self._calls.get(number)
                    if call is None:
                        raise BrokenSessionError("it answered a question that was not asked")
                    if kind == "ask":
                        if call.tell is None or (call.telling is not None and not call.telling.done()):
                            raise BrokenSessionError("it asked for something that it may not ask for")
                        call.telling = group.create_task(self._tell(number, call.tell, value))
                        continue
                    if kind not in ("done", "error"):
                        raise BrokenSessionError("it sent something that is neither a question nor an answer")
                    del self._calls[number]
                    if kind == "done":
                        call.end(value, None)
                    else:
                        call.end(None, read_error(value))
        except* BrokenSessionError:
            pass
        finally:
            self.lose()

    def lose(self) -> None:
        """Wake everybody who waits: the other side has gone; idempotent."""
        if not self.lost:
            self.lost = True
            self._on_lost()
        self._writer.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(None, RunnerDiedError(LOST))

    async def call(
        self,
        op: str,
        args: Any,
        seconds: float | None,
        *,
        tell: Callable[[str, list[Any]], Awaitable[Any]] | None = None,
        late: Callable[[Any], None] = lambda value: None,
    ) -> Any:
        """Make a call and return its answer. Cancelling is safe.

        Args:
            seconds: the deadline, which a machine that sleeps does not use up; None: the caller's.
            tell: answers what is asked before the answer comes.
            late: takes an answer that came although the call was given up.

        Raises:
            RunnerDiedError: the other side has gone, or says that the runner has.
            DeadlineError: there was no answer in time.
            KodoError: what it answered.
        """
        if self.lost:
            raise RunnerDiedError(LOST)
        number = next(self._numbers)
        packed = pack_frame([number, op, args])
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._calls[number] = _Call(waiting, tell, late)
        try:
            async with awake_timeout(seconds):
                await self._send(packed)
                return await waiting
        except TimeoutError:
            raise DeadlineError(f"the process that keeps the runners does not answer {op}") from None
        finally:
            if number in self._calls:
                call.waiting = None
                if call.telling is not None:
                    call.telling.cancel()
                self._writer.write(pack_frame([0, "cancel", number]))

    async def _tell(self, number: int, tell: Callable[[str, list[Any]], Awaitable[Any]], asked: Any) -> None:
        try:
            what, args = asked
            answer = [await tell(str(what), list(args)), None]
        except asyncio.CancelledError:
            raise
        except Exception as error:  # it is told whoever asked, who gives up then
            answer = [None, str(error) or type(error).__name__]
        if number in self._calls:
            with contextlib.suppress(RunnerDiedError):
                await self._send(pack_frame([number, "told", answer]))

    async def _send(self, packed: bytes) -> None:
        self._writer.write(packed)
        try:
            await self._writer.drain()
        except OSError:
            raise RunnerDiedError(LOST) from None


class _Call:
    """One that is not answered; `waiting` is None when it was given up."""

    def __init__(
        self,
        waiting: asyncio.Future[Any],
        tell: Callable[[str, list[Any]], Awaitable[Any]] | None,
        late: Callable[[Any], None],
    ):
        self.waiting: asyncio.Future[Any] | None = waiting
        self.tell = tell
        self.late = late
        self.telling: asyncio.Task[None] | None = None

    def end(self, value: Any, error: KodoError | None) -> None:
        if self.waiting is None:
            if error is None:
                self.late(value)
        elif self.waiting.done():
            return
        elif error is None:
            self.waiting.set_result(value)
        else:
            self.waiting.set_exception(error)
