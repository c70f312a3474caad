"""A runner on Ray as the node holds it: one actor with one run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgpack

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError, RunnerEvent
from kodo.node.executors.last_words import Pipes
from kodo.node.executors.local_files import open_below
from kodo.node.executors.ray.connection import RayLink
from kodo.node.executors.runner_calls import CALL_TIMEOUT, CLOSE_TIMEOUT, read_events, read_questions
from kodo.p2p.errors import KodoError
from kodo.protocol.secrets import Secrets

__all__ = ["Keeper", "RayRunner"]

AHEAD_SECONDS = 20.0
"""How long the poll that is made ahead waits."""

UNAVAILABLE_TIMEOUT = 10.0
"""Seconds for which a runner that cannot be reached may still come back."""


class Keeper(Protocol):
    """What a runner needs of the executor that started it."""

    @property
    def far(self) -> bool:
        """Whether runners may be on other machines, out of reach of this one's file system."""
        ...

    def ended(self, runner: RayRunner) -> None:
        """Forget a runner that is over."""
        ...

    async def fate(self, runner: RayRunner) -> str | None:
        """Return why a runner is gone, where its machine is to blame."""
        ...

    def autopsy(self, runner: RayRunner, error: RunnerDiedError) -> None:
        """Add to an error what the dying process left behind on this machine; blocks."""
        ...

    def folder_of(self, runner: RayRunner) -> Path | None:
        """Return where a runner's files are on this machine; None: they are on another one, or may be."""
        ...

    def remove_files(self, runner: RayRunner) -> None:
        """Remove an ended runner's files from this machine, and what its flow left running; blocks."""
        ...


class RayRunner:
    """One run's process; implements `kodo.node.executors.executor.Runner`.

    Attributes:
        machine: the id of its machine, as far as it is known.
        pipes: the other ends of its stdout and stderr, on this machine.
        taken: the number of the last event that whoever polls has.
        remains: what was found of it when it had died: whoever asks it first looks, with `guard`.
    """

    def __init__(self, keeper: Keeper, link: RayLink, name: str, handle: Any, fid: str, *, started: bool = True):
        self.fid = fid
        self.started = started
        self.name = name
        self.handle = handle
        self.asking = False
        self._keeper = keeper
        self._link = link
        self._ahead: Future[Any] | None = None
        self.machine: str | None = None
        self.pipes: Pipes | None = None
        self.taken = 0
        self.remains: RunnerDiedError | None = None
        self.guard = threading.Lock()

    def look_ahead(self) -> None:
        """Ask for the first events now: the run's start need not be answered before that."""
        with contextlib.suppress(Exception):  # what is wrong is told to whoever polls
            self._ahead = self.handle.poll.remote(0, AHEAD_SECONDS).future()

    @property
    def alive(self) -> bool:
        """Whether its Ray is."""
        return not self._link.lost

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """See `Runner.poll`. Whoever calls it says how long a runner may be silent: here is no deadline."""
        self.taken = after
        ahead, self._ahead = self._ahead, None
        if after == 0 and ahead is not None:
            with contextlib.suppress(KodoError):  # the poll below tells it
                return self._read(await self._link.ask(ahead, None, "", self.name))
        return self._read(await self._call("poll", after, timeout, deadline=None))

    def _read(self, packed: bytes) -> list[RunnerEvent]:
        events, self.asking = read_events(packed)
        return events

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """See `Runner.asked`."""
        packed = await self._call("asked", after, timeout, deadline=timeout + CALL_TIMEOUT)
        return read_questions(packed)

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """See `Runner.reply`."""
        await self._call("reply", aid, msgpack.packb(answer))

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """See `Runner.answer`."""
        # Arguments of their own: what is as small as secrets are, Ray hands over without its object store.
        await self._call("answer", lid, cid, candidate, secrets or [], deadline=None)

    async def expire(self, lid: str) -> None:
        """See `Runner.expire`."""
        await self._call("expire", lid, deadline=None)

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """See `Runner.read_output`; gives at most 4 MiB. Its deadline is the caller's.

        Raises:
            KodoError: there is no such output, or it cannot be read.
        """
        data = await self._call("read_output", name, offset, length, deadline=None)
        if not isinstance(data, bytes):
            raise MisconductError("the runner returned an output that is not bytes")
        return data

    def open_output(self, name: str) -> int | None:
        """See `Runner.open_output`."""
        folder = self._keeper.folder_of(self)
        return None if folder is None else open_below(folder / "files", name)

    async def kill(self) -> None:
        """See `Runner.kill`."""
        if self._keeper.far:
            # Where the files lie, only the runner knows.
            with contextlib.suppress(KodoError):
                await self._link.ask(self.handle.clean.remote, CLOSE_TIMEOUT, "files were not removed", self.name)
        await self._end()

    async def release(self) -> None:
        """See `Runner.release`."""
        with contextlib.suppress(KodoError):
            await self._link.ask(self.handle.clean.remote, CLOSE_TIMEOUT, "files were not removed", self.name)
        await self._end()

    async def _end(self) -> None:
        self._link.kill(self.handle)
        with contextlib.suppress(KodoError):
            # Ray's kill does not wait; whoever asked for it may expect that the process is gone.
            await self._link.ask(self.handle.describe.remote, CLOSE_TIMEOUT, "a runner did not end", self.name)
        self._keeper.ended(self)
        await asyncio.to_thread(self._keeper.remove_files, self)

    async def _call(self, method: str, *args: Any, deadline: float | None = CALL_TIMEOUT) -> Any:
        from ray.exceptions import ActorUnavailableError

        loop = asyncio.get_running_loop()
        give_up = loop.time() + UNAVAILABLE_TIMEOUT
        while True:
            try:
                return await self._link.ask(
                    lambda: getattr(self.handle, method).remote(*args),
                    deadline,
                    f"the runner of {self.fid} does not answer {method}",
                    self.name,
                )
            except RunnerDiedError as error:
                # The way to it broke, perhaps not the runner: every call may be made again.
                if isinstance(error.__cause__, ActorUnavailableError) and loop.time() < give_up:
                    await asyncio.sleep(0.5)
                    continue
                if (fate := await self._keeper.fate(self)) is not None:
                    error.args = (fate,)
                self._keeper.ended(self)
                await asyncio.to_thread(self._keeper.autopsy, self, error)
                await asyncio.to_thread(self._keeper.remove_files, self)
                raise
