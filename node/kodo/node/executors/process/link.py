"""The node's end of the socket to a runner's process. All that waits on it is told at once when that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from kodo.node.clock import awake_timeout
from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError
from kodo.node.executors.process.main import is_same_user
from kodo.node.executors.process.wire import MAX_ANSWER_VALUES, FrameReader, pack_call, read_answer
from kodo.p2p.errors import DeadlineError, KodoError

__all__ = ["ProcessLink", "connect"]

GONE = "the flow's process ended without a word: it was killed, crashed, or called os._exit"

_DEATH_SECONDS = 1.0
"""How long after a process's death its socket may still have something to read."""


class ProcessLink(asyncio.Protocol):
    """One connection, open until the process or `close` ends it.

    Attributes:
        pid: of the runner's process.
    """

    def __init__(self, pid: int = 0):
        self.pid = pid
        self._reader = FrameReader(MAX_ANSWER_VALUES)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._lost: KodoError | None = None
        self._gone = asyncio.Event()
        self._watched: int | None = None

    @property
    def lost(self) -> bool:
        """Whether the process is gone, or of no use any more."""
        return self._lost is not None

    def watch(self, pid: int) -> None:
        """Notice the death of the process also while one that it has forked holds its socket."""
        self.pid = pid
        if self._watched is None and not self.lost and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._watched = os.pidfd_open(pid)
                asyncio.get_running_loop().add_reader(self._watched, self._died)

    async def call(self, method: str, *args: Any, seconds: float | None, what: str = "") -> Any:
        """Make a call; returns its answer. Cancelling is safe.

        Args:
            seconds: the deadline; None: none.
            what: begins the message of the error when it passes.

        Raises:
            RunnerDiedError: the process is gone.
            DeadlineError: there was no answer in time.
            CapacityError: it is more than a runner is told at once.
            MisconductError: it said what is no answer.
            KodoError: what the runner raised.
        """
        if self._lost is not None:
            raise self._error()
        assert self._transport is not None
        self._number += 1
        number = self._number
        frame = pack_call(number, method, args)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(frame)
            async with awake_timeout(seconds):
                return await waiting
        except TimeoutError:
            # Its number stays among those that wait: a late answer is none that was never asked for.
            raise DeadlineError(f"{what or 'the runner did not answer'} within {seconds:g} s") from None

    async def wait_lost(self, seconds: float) -> bool:
        """Wait until the process is gone, at most `seconds`; returns whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        return self.lost

    def close(self) -> None:
        """Release the connection; idempotent."""
        self.lose(RunnerDiedError(GONE))

    def lose(self, error: KodoError) -> None:
        """Fail all that waits, and all that comes, with why there is no answer."""
        if self._lost is not None:
            return
        self._lost = error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._error())
        self._waiting.clear()
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None
        if self._transport is not None:
            self._transport.abort()
        self._gone.set()

    def _error(self) -> KodoError:
        assert self._lost is not None
        return type(self._lost)(*self._lost.args)

    def _died(self) -> None:
        assert self._watched is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._watched)
        # What it said last may lie in the socket.
        loop.call_later(_DEATH_SECONDS, self.close)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not is_same_user(transport.get_extra_info("socket")):
            self.lose(MisconductError("the runner's socket is another user's"))

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that the process is gone, or has closed its end."""
        self.close()

    def data_received(self, data: bytes) -> None:
        """Take answers."""
        try:
            for frame in self._reader.feed(data):
                number, value, error = read_answer(frame)
                waiting = self._waiting.pop(number)
                if waiting.done():
                    continue
                if error is not None:
                    waiting.set_exception(error)
                else:
                    waiting.set_result(value)
        except (ValueError, KeyError, TypeError):
            self.lose(MisconductError("the runner's message does not answer the question"))


async def connect(path: Path | str, seconds: float) -> ProcessLink:
    """Connect to a runner's socket.

    Raises:
        RunnerDiedError: nobody listens there.
    """
    try:
        async with awake_timeout(seconds):
            _, link = await asyncio.get_running_loop().create_unix_connection(ProcessLink, os.fspath(path))
    except (OSError, TimeoutError) as error:
        raise RunnerDiedError("the flow's process is gone") from error
    return link
