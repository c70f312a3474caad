"""A runner without Ray as the node holds it: one process with one run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, Protocol

import msgpack

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError, RunnerEvent
from kodo.node.executors.last_words import Pipes
from kodo.node.executors.local_files import open_below
from kodo.node.executors.process.link import ProcessLink
from kodo.node.executors.runner_calls import CALL_TIMEOUT, read_events, read_questions
from kodo.protocol.secrets import Secrets

__all__ = ["Keeper", "ProcessRunner", "describe_end"]


class Keeper(Protocol):
    """What a runner needs of the executor that started it."""

    def ended(self, runner: ProcessRunner) -> None:
        """Forget a runner that is over."""
        ...

    async def autopsy(self, runner: ProcessRunner, error: RunnerDiedError) -> None:
        """Add to an error how the process ended, and what it left behind."""
        ...

    def folder_of(self, runner: ProcessRunner) -> Path:
        """Return where a runner's files are."""
        ...

    async def remove(self, runner: ProcessRunner) -> None:
        """End all that is left of a runner, its process and what that has started, and remove its files."""
        ...


class ProcessRunner:
    """One run's process; implements `kodo.node.executors.executor.Runner`.

    Attributes:
        name: its folder's.
        pipes: the other ends of its stdout and stderr.
        taken: the number of the last event that whoever polls has.
        remains: what was found of it when it had died: whoever asks first looks, with `guard`.
    """

    def __init__(self, keeper: Keeper, link: ProcessLink, name: str, fid: str, *, started: bool = True):
        self.fid = fid
        self.name = name
        self.started = started
        self.asking = False
        self.link = link
        self.pipes: Pipes | None = None
        self.taken = 0
        self.remains: RunnerDiedError | None = None
        self.guard = asyncio.Lock()
        self._keeper = keeper

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """See `Runner.poll`. Whoever calls it says how long a runner may be silent: here is no deadline."""
        self.taken = after
        events, self.asking = read_events(await self._call("poll", after, timeout, seconds=None))
        return events

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """See `Runner.asked`."""
        return read_questions(await self._call("asked", after, timeout, seconds=timeout + CALL_TIMEOUT))

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """See `Runner.reply`."""
        await self._call("reply", aid, msgpack.packb(answer))

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """See `Runner.answer`."""
        await self._call("answer", lid, cid, candidate, secrets or [], seconds=None)

    async def expire(self, lid: str) -> None:
        """See `Runner.expire`."""
        await self._call("expire", lid, seconds=None)

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """See `Runner.read_output`; returns at most 4 MiB. Its deadline is the caller's."""
        data = await self._call("read_output", name, offset, length, seconds=None)
        if not isinstance(data, bytes):
            raise MisconductError("the runner returned an output that is not bytes")
        return data

    def open_output(self, name: str) -> int | None:
        """See `Runner.open_output`."""
        return open_below(self._keeper.folder_of(self) / "files", name)

    async def kill(self) -> None:
        """See `Runner.kill`."""
        self._keeper.ended(self)
        await self._keeper.remove(self)

    async def release(self) -> None:
        """See `Runner.release`."""
        await self.kill()

    async def _call(self, method: str, *args: Any, seconds: float | None = CALL_TIMEOUT) -> Any:
        try:
            return await self.link.call(
                method, *args, seconds=seconds, what=f"the runner of {self.fid} does not answer {method}"
            )
        except RunnerDiedError as error:
            self._keeper.ended(self)
            async with self.guard:
                if self.remains is None:
                    await self._keeper.autopsy(self, error)
                    self.remains = error
            found = self.remains
            error.args, error.signal, error.stack, error.said = found.args, found.signal, found.stack, found.said
            await self._keeper.remove(self)
            raise


def describe_end(status: int) -> tuple[str | None, str]:
    """Return the signal that ended a process, if one did, and how it ended, for people; `status` as of `waitpid`."""
    number = status & 0x7F
    if not number:
        return None, f"the flow's process ended itself with exit code {status >> 8}, without a word"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = ": somebody killed it, or its machine ran out of memory" if number == signal.SIGKILL else ""
    return name, f"the flow's process was ended by {name}{why}"
