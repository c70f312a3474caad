"""Runners under another account: what the node has of them is a socket to the process that keeps them.

Implements `kodo.node.executor.Executor`. Nothing of Ray is in the node's process, and no file that a flow could have
made is opened by it. The process at the other end, or a flow that took it over, may say what it likes, fall silent or
end: then its runs are over, and another one is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from kodo.node.executors.apart.line import LOST, Line
from kodo.node.executors.apart.wire import read_events, size_of_events
from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import ExecutorLoad, InputFile, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.node.executors.upload_sender import RAY_PIECE_BYTES, file_reader
from kodo.p2p.errors import KodoError
from kodo.protocol.secrets import Secrets

__all__ = ["ApartExecutor", "Connect"]

logger = logging.getLogger(__name__)

START_SECONDS = 150.0
"""How long the process may take until Ray runs."""

CALL_SECONDS = 60.0
"""How long it may take for what it does at once, more than it gives a runner."""

SILENT_SECONDS = 30.0
"""After how long without a word it is given up; it has something to say every 5 s."""

CLOSE_SECONDS = 18.0

PAUSE_SECONDS = 0.5
"""How long it is waited before another process is started; the double after each that failed."""

MAX_SAID_BYTES = 50 << 20
"""Bound of what one dead runner had said: more than a runner keeps."""

Connect = Callable[[], AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class ApartExecutor:
    """The executor of a node whose runners belong to another account.

    Args:
        connect: opens the way to a process that keeps runners, and ends that process when the block ends.
        settings: what it is told at its start; see `kodo.node.executors.apart.host`.
        preload: gives the entries of the flows for which runners are made ready; see `WarmPlan`.
    """

    def __init__(
        self, connect: Connect, settings: Mapping[str, Any], preload: Callable[[], Sequence[str]] = lambda: ()
    ):
        self._connect = connect
        self._preload = preload
        self._settings = dict(settings)
        self._line: Line | None = None
        self._up = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._live: set[_ApartRunner] = set()
        self._starting = 0
        self._load = ExecutorLoad(0, 0, 0)
        self._runners: int = self._settings.get("runners", 0)
        self._leaving = asyncio.Event()

    async def start(self) -> None:
        """Start the process and Ray in it.

        Raises:
            KodoError: it does not start; says why.
        """
        if self._group is not None:
            return
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group = self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._keeping = group.create_task(self._keep(group, started))
        try:
            await asyncio.shield(started)
        except BaseException:
            await self.aclose()
            raise

    async def _keep(self, group: asyncio.TaskGroup, started: asyncio.Future[None]) -> None:
        """Keep a process for the runners, and start another one whenever it ends; never raises."""
        afresh, pause = False, PAUSE_SECONDS
        while not self._leaving.is_set():
            try:
                async with self._opened(group, afresh):
                    pause = PAUSE_SECONDS
                    if not started.done():
                        started.set_result(None)
                    await self._watch()
                if self._leaving.is_set():
                    return
                logger.error("the process that keeps the runners has ended; its runs are over, another is started")
            except KodoError as error:
                if not started.done():
                    started.set_exception(error)
                    return
                logger.error("no process that keeps runners could be started: %s", error)
            except asyncio.CancelledError:
                if not started.done():
                    started.cancel()
                raise
            afresh = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause)
            pause = min(pause * 2, 10.0)

    @contextlib.asynccontextmanager
    async def _opened(self, group: asyncio.TaskGroup, afresh: bool) -> AsyncIterator[None]:
        async with self._connect() as (reader, writer):
            line = Line(reader, writer, self._up.clear)
            reading = group.create_task(line.read())
            try:
                told = {"runners": self._runners, "preload": list(self._preload()), "afresh": afresh}
                settings = {**self._settings, **told}
                try:
                    await line.call("start", [settings], START_SECONDS)
                except RunnerDiedError:
                    raise KodoError("the process that keeps the runners ended when it started") from None
                self._line = line
                if not line.lost:
                    self._up.set()
                yield
                if not line.lost:
                    with contextlib.suppress(KodoError):
                        await line.call("close", [], CLOSE_SECONDS - 2)
            finally:
                line.lose()
                self._line = None
                for runner in list(self._live):
                    self._ended(runner)
                reading.cancel()
                await asyncio.wait([reading])

    async def _watch(self) -> None:
        """Follow the counts of runners, until the line is lost, or falls silent, or the executor is closed."""
        line = self._open_line()
        known: list[int] | None = None
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            while True:
                asking = asyncio.ensure_future(line.call("load", [known], SILENT_SECONDS))
                await asyncio.wait([asking, leaving], return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                    await asyncio.wait([asking])
                    return
                try:
                    known = [max(0, int(count)) for count in asking.result()]
                    free, _, queued = known
                except (KodoError, TypeError, ValueError):
                    return
                self._load = ExecutorLoad(free, 0, queued)
        finally:
            leaving.cancel()

    def _open_line(self) -> Line:
        if self._line is None:
            raise KodoError("the executor is not running") if self._leaving.is_set() else RunnerDiedError(LOST)
        return self._line

    async def adopt(self) -> list[Runner]:
        """See `Executor.adopt`."""
        line = self._open_line()
        told = await line.call("adopt", [], CALL_SECONDS)
        try:
            return [self._runner(line, one) for one in told]
        except (TypeError, ValueError):
            raise KodoError("the list of runners cannot be read") from None

    def _runner(self, line: Line, told: Any) -> _ApartRunner:
        name, fid, started, asking = told
        runner = _ApartRunner(self, line, str(name), str(fid), started=bool(started), asking=bool(asking))
        self._live.add(runner)
        return runner

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        """See `Executor.launch`."""
        if self._group is None or self._leaving.is_set():
            raise KodoError("the executor is not running")
        await self._up.wait()
        line = self._open_line()
        told = {**spec.message(), "resources": spec.resources, "secrets": spec.secrets}
        told["files"] = [[file.id, file.name, file.size, file.sha256] for file in spec.files]

        def give_up(late: Any) -> None:
            """End a runner that nobody waits for any more."""
            if self._group is not None and not line.lost and isinstance(late, list) and late:
                self._group.create_task(_quietly(line.call("kill", [late[0]], CALL_SECONDS)))

        failed: list[Exception] = []
        self._starting += 1
        try:
            async with _Files(spec.files) as files:
                begin = iter([about_to_start or _nothing])

                async def tell(what: str, args: list[Any]) -> Any:
                    try:
                        if what == "begin":
                            return await next(begin, _once)()
                        return await files.piece(*args)
                    except Exception as error:
                        failed.append(error)
                        raise

                try:
                    answer = await line.call("launch", [told], None, tell=tell, late=give_up)
                except KodoError:
                    if failed:  # what was told of it is less than it is
                        raise failed[0] from None
                    raise
            try:
                runner = self._runner(line, answer)
            except (TypeError, ValueError):
                raise MisconductError("the list of runners cannot be read") from None
            if failed or runner.fid != spec.fid:
                await runner.kill()
                raise failed[0] if failed else MisconductError("a runner has a run that it was not given")
            return runner
        finally:
            self._starting -= 1

    def scale(self, runners: int) -> None:
        """See `Executor.scale`."""
        self._runners = runners
        if self._line is not None and self._group is not None:
            self._group.create_task(_quietly(self._line.call("scale", [runners], CALL_SECONDS)))

    def refresh(self) -> None:
        """See `Executor.refresh`."""
        if self._line is not None and self._group is not None:
            self._group.create_task(_quietly(self._line.call("refresh", [list(self._preload())], CALL_SECONDS)))

    async def spare(self, warm_s: float) -> list[str]:
        """See `Executor.spare`."""
        names = await self._open_line().call("spare", [warm_s], CALL_SECONDS)
        return [str(name) for name in names] if isinstance(names, list) else []

    async def dismiss(self, name: str) -> None:
        """See `Executor.dismiss`."""
        await self._open_line().call("dismiss", [name], CALL_SECONDS)

    def load(self) -> ExecutorLoad:
        """Count runners: those that run here, the others as the process has told."""
        return ExecutorLoad(self._load.free, len(self._live) + self._starting, self._load.queued)

    async def aclose(self) -> None:
        """Stop Ray, unless runs go on in it, and the process; idempotent, bounded to about 20 s."""
        group, self._group = self._group, None
        self._leaving.set()
        if group is None or self._keeping is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.wait([self._keeping])
        self._keeping.cancel()
        await self._stack.aclose()

    async def logs(self, now: int) -> list[tuple[str, int]]:
        """Return the logs of ended processes that need not be kept: names and bytes."""
        told = await self._open_line().call("logs", [now], CALL_SECONDS)
        try:
            return [(str(name), max(0, int(size))) for name, size in told]
        except (TypeError, ValueError):
            return []

    async def forget_log(self, name: str) -> None:
        """Remove one of them."""
        await self._open_line().call("forget_log", [name], CALL_SECONDS)

    def _ended(self, runner: _ApartRunner) -> None:
        self._live.discard(runner)


class _ApartRunner:
    """One run's process; implements `kodo.node.executor.Runner`."""

    def __init__(self, keeper: ApartExecutor, line: Line, name: str, fid: str, *, started: bool, asking: bool):
        self.fid = fid
        self.started = started
        self.asking = asking
        self._keeper = keeper
        self._line = line
        self._name = name

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """See `Runner.poll`."""
        told = await self._call("poll", after, timeout, seconds=None)
        try:
            events, asking = told
        except (TypeError, ValueError):
            raise MisconductError("what the runner said cannot be read") from None
        self.asking = bool(asking)
        return read_events(events)

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """See `Runner.asked`."""
        told = await self._call("asked", after, timeout, seconds=timeout + CALL_SECONDS)
        try:
            first, questions = told
            return int(first), [(int(aid), str(op), args) for aid, op, args in questions]
        except (TypeError, ValueError):
            raise MisconductError("what the runner asked cannot be read") from None

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """See `Runner.reply`."""
        await self._call("reply", aid, answer)

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """See `Runner.answer`."""
        await self._call("answer", lid, cid, candidate, secrets or [])

    async def expire(self, lid: str) -> None:
        """See `Runner.expire`."""
        await self._call("expire", lid)

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """See `Runner.read_output`."""
        data = await self._call("read_output", name, offset, length, seconds=None)
        if not isinstance(data, bytes):
            raise MisconductError("the runner returned an output that is not bytes")
        return data

    def open_output(self, name: str) -> int | None:
        """Return None: the node opens no file of another account."""
        return None

    async def kill(self) -> None:
        """See `Runner.kill`."""
        await self._let_go("kill")

    async def release(self) -> None:
        """See `Runner.release`."""
        await self._let_go("release")

    async def _let_go(self, op: str) -> None:
        try:
            with contextlib.suppress(KodoError):
                await self._line.call(op, [self._name], CALL_SECONDS)
        finally:
            self._keeper._ended(self)

    async def _call(self, op: str, *args: Any, seconds: float | None = CALL_SECONDS) -> Any:
        try:
            return await self._line.call(op, [self._name, *args], seconds)
        except RunnerDiedError as error:
            self._keeper._ended(self)
            error.said = await self._last_words()
            raise

    async def _last_words(self) -> Iterable[RunnerEvent]:
        """Fetch what it had said when it died, as far as that can be had."""
        pages: list[list[Any]] = []
        known = size = 0
        with contextlib.suppress(KodoError):
            while size < MAX_SAID_BYTES:
                page = await self._line.call("said", [self._name, known], CALL_SECONDS)
                if not isinstance(page, list) or not page:
                    break
                pages.append(page)
                known += len(page)
                size += size_of_events(page)
        return _Told(pages)


class _Told:
    """What a dead runner had said, as it was told; whoever iterates makes values of a page at a time."""

    def __init__(self, pages: Sequence[list[Any]]):
        self._pages = pages

    def __iter__(self) -> Iterator[RunnerEvent]:
        with contextlib.suppress(MisconductError):
            for page in self._pages:
                yield from read_events(page)


class _Files:
    """The uploads of one launch, read for whoever may not open them."""

    def __init__(self, files: Sequence[InputFile]):
        self._files = files
        self._stack = contextlib.AsyncExitStack()
        self._readers: dict[int, Callable[[int, int], Awaitable[bytes]]] = {}

    async def __aenter__(self) -> _Files:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def piece(self, index: int, offset: int, length: int) -> bytes:
        """Read a part of the file with that index.

        Raises:
            IntegrityError: it is gone.
        """
        if not 0 <= index < len(self._files) or offset < 0 or not 0 < length <= RAY_PIECE_BYTES:
            raise KodoError("there is no such piece")
        if index not in self._readers:
            self._readers[index] = await self._stack.enter_async_context(file_reader(self._files[index]))
        return await self._readers[index](offset, length)


async def _nothing() -> None:
    pass


async def _once() -> None:
    raise MisconductError("a run was begun twice")


async def _quietly(call: Awaitable[Any]) -> None:
    with contextlib.suppress(KodoError):
        await call
