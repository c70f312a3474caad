"""Runs flows without Ray: each run in a process of its own on this machine, which outlives its node's process.

    $KODO_HOME/runners/           0700
        server.log                what the fork server says when it cannot start
        runner-<random>/          one for each runner
            socket                where the node connects
            files, work, storage  what its run makes

A node that comes back finds its runners by these folders, and goes on where the last one was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kodo.flow._runtime.spool import SPOOL_FILE
from kodo.node.executors.crash import CRASH_FILE, add_crash
from kodo.node.executors.executor import ExecutorLoad, Runner, RunnerDiedError, RunSpec
from kodo.node.executors.last_words import LastWords, Pipes
from kodo.node.executors.marked_processes import end_marked, is_marked
from kodo.node.executors.process.link import ProcessLink, connect
from kodo.node.executors.process.main import MARK, SOCKET_FILE, Plan
from kodo.node.executors.process.runner import ProcessRunner, describe_end
from kodo.node.executors.process.starter import ForkingStarter, PlainStarter, Starter, can_fork
from kodo.node.executors.runner.environment import flow_environment
from kodo.node.executors.runner.imports import group_of, split_group
from kodo.node.executors.runner.service import kodo_version
from kodo.node.executors.runner.telemetry import silenced
from kodo.node.executors.runner_calls import CALL_TIMEOUT, CLOSE_TIMEOUT, NotReadyError, check_ready
from kodo.node.executors.short_path import leads_to, make_short_path, remove_short_path
from kodo.node.executors.upload_sender import send_files
from kodo.node.executors.warm_plan import BLANK, MAX_GROUPS, WarmPlan
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.p2p.net.turns import FairSemaphore, for_nobody
from kodo.protocol.ids import is_id

__all__ = ["ProcessExecutor", "end_left"]

logger = logging.getLogger(__name__)

STARTS = 8
"""Processes that are started at the same time: more would only take each other's time."""

READY_SECONDS = 60.0
"""For a process to import what its flow needs."""

REFILL_SECONDS = 0.1
"""How long after a run has begun its process is replaced: one that starts takes CPU from a run that begins."""

_PREFIX = "runner-"
_STATUS_SECONDS = 0.5
_ATTEMPTS = 3


@dataclass(eq=False, slots=True)
class _Idle:
    """A process without a run."""

    name: str
    link: ProcessLink
    group: str = ""
    born: float = field(default_factory=time.monotonic)


class ProcessExecutor:
    """Implements `kodo.node.executors.executor.Executor`."""

    def __init__(
        self,
        home: Path,
        *,
        roots: Sequence[Path] = (),
        preload: Callable[[], Sequence[str]] = lambda: (),
        runners: int = 2,
        stays: bool = True,
        forks: bool | None = None,
    ):
        """Keep the settings; nothing is started.

        Args:
            home: the node's home.
            roots: folders of the scope's sources.
            preload: gives the entries of the flows for which processes are made ready; see `WarmPlan`.
            runners: processes to keep ready.
            stays: whether runs outlive this process when it dies.
            forks: whether processes are forked; None: where the system allows it.
        """
        self._folder = home / "runners"
        self._roots = [str(Path(root).resolve()) for root in roots]
        self._plan = WarmPlan(runners, preload)
        self._stays = stays
        self._forks = can_fork() if forks is None else forks
        self._way = ""  # to the folder, short enough for sockets
        self._starter: Starter | None = None
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: deque[_Idle] = deque()
        self._live: dict[str, ProcessRunner] = {}
        self._names: set[str] = set()  # of all that are made here, until nothing is left of them
        self._starting = self._queued = 0
        self._coming: list[str] = []  # the groups of processes that are being made
        self._starts = FairSemaphore(STARTS)
        self._closed = False

    def begin(self) -> None:
        """Make ready what takes time, without waiting for it; `start` does so too.

        Raises:
            CapacityError: the disk takes nothing.
        """
        if self._starter is not None:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._way = make_short_path(self._folder)
        except OSError as error:
            raise CapacityError(f"runs cannot keep their files in {self._folder}: {error.strerror}") from error
        environment = {**flow_environment(os.environ), **silenced(os.environ)}
        environment.pop(MARK, None)
        self._starter = ForkingStarter(environment, self._folder) if self._forks else PlainStarter(environment)
        self._starter.begin()

    async def start(self) -> None:
        """Start the first processes, without waiting until they are ready.

        Raises:
            CapacityError: the disk takes nothing.
        """
        self.begin()
        if self._group is None and not self._closed:
            self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._refill()

    async def adopt(self) -> list[Runner]:
        """Find this home's runners that have a run; remove what others left."""
        adopted = await asyncio.gather(*map(self._adopt, await asyncio.to_thread(self._strangers)))
        return [runner for runner in adopted if runner is not None]

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        """See `Executor.launch`.

        Raises:
            UsageError: the flow asks for resources.
            RunnerDiedError: no process could be started.
        """
        if any(value is not None for value in spec.resources.values()):
            raise UsageError("the flow asks for resources, which only a node with Ray has (koco up --executor ray)")
        self._starting += 1
        try:
            runner = await self._begin(spec, about_to_start)
            self._live[runner.name] = runner
        finally:
            self._starting -= 1
        asyncio.get_running_loop().call_later(REFILL_SECONDS, self._refill)
        return runner

    async def _begin(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None) -> ProcessRunner:
        runner = await self._assigned(spec)
        try:
            if about_to_start is not None:
                await about_to_start()
            # From here on nothing is tried again: a flow that ends its process at once has run, and its end is told
            # by the first poll.
            with contextlib.suppress(RunnerDiedError):
                message = {**spec.message(), "kodo": kodo_version()}
                await runner.link.call(
                    "start", message, spec.secrets, seconds=CALL_TIMEOUT, what="a runner did not take its run"
                )
        except BaseException:
            await asyncio.shield(self.remove(runner))
            raise
        return runner

    async def _assigned(self, spec: RunSpec) -> ProcessRunner:
        """Return a runner that has all it needs to start the run."""
        attempt = 0
        while True:
            idle = await self._take(group_of(spec.entry, spec.code))
            link, runner = idle.link, ProcessRunner(self, idle.link, idle.name, spec.fid)
            try:
                runner.pipes = await asyncio.to_thread(self._pipes_of, idle.name, link.pid)
                await send_files(
                    spec.files,
                    lambda *part, to=link: to.call("take_input", *part, seconds=CALL_TIMEOUT, what="it took no file"),
                )
                await link.call("assign", spec.fid, seconds=CALL_TIMEOUT, what="it did not take its run's name")
                return runner
            except BaseException as error:
                await asyncio.shield(self.remove(runner))
                attempt += 1
                # One that died while it was idle is no fault of the run's.
                if not isinstance(error, RunnerDiedError) or attempt == _ATTEMPTS:
                    raise

    def scale(self, runners: int) -> None:
        """See `Executor.scale`."""
        self._plan.wanted = runners
        self.refresh()

    def refresh(self) -> None:
        """See `Executor.refresh`."""
        for group in self._plan.surplus(idle.group for idle in self._idle):
            self._let_go(self._pop(group))
        self._refill()

    async def spare(self, warm_s: float) -> list[str]:
        """See `Executor.spare`."""
        before = time.monotonic() - warm_s
        strangers = await asyncio.to_thread(self._strangers)
        return [*strangers, *(idle.name for idle in self._idle if idle.link.lost or idle.born < before)]

    async def dismiss(self, name: str) -> None:
        """See `Executor.dismiss`."""
        for idle in list(self._idle):
            if idle.name == name:
                self._idle.remove(idle)
                self._let_go(idle)
                self._refill()
                return
        if name in await asyncio.to_thread(self._strangers):
            await asyncio.to_thread(self._remove, name)

    def load(self) -> ExecutorLoad:
        """Count processes."""
        busy = len(self._live) + self._starting
        return ExecutorLoad(free=len(self._idle), busy=busy, queued=self._queued)

    async def aclose(self) -> None:
        """End the processes without a run; those with one go on where they may, and end otherwise. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(14.0):
                for task in self._tasks:
                    task.cancel()
                await self._stack.aclose()
                for link in [*(idle.link for idle in self._idle), *(run.link for run in self._live.values())]:
                    link.close()
                self._idle.clear()
                going_on = set(self._live) if self._stays else set()
                for name in self._names - going_on:
                    await asyncio.to_thread(self._remove, name)
                if self._starter is not None:
                    await self._starter.aclose()
                if not self._live and self._way:
                    await asyncio.to_thread(remove_short_path, self._way, self._folder)
        if self._stays and self._live:
            logger.warning("runs that go on until the node is started again: %d", len(self._live))

    # Processes.

    def _pop(self, group: str) -> _Idle:
        """Take one of the processes of a group, of which there is one."""
        idle = next(each for each in self._idle if each.group == group)
        self._idle.remove(idle)
        return idle

    def _ready(self, group: str) -> _Idle | None:
        """Take a process that is ready for a run of a group: its own, else one for any flow."""
        for wanted in dict.fromkeys((group, BLANK)):
            while any(idle.group == wanted for idle in self._idle):
                idle = self._pop(wanted)
                if not idle.link.lost:
                    return idle
                self._let_go(idle)
        return None

    async def _take(self, group: str) -> _Idle:
        """Return a process for a run of a group."""
        self._plan.use(group)
        for attempt in range(_ATTEMPTS):
            if idle := self._ready(group):
                return idle
            try:
                self._queued += 1
                try:
                    await self._starts.acquire()
                finally:
                    self._queued -= 1
                try:
                    return self._ready(group) or await self._spawn(BLANK)
                finally:
                    self._starts.release()
            except KodoError:
                # One that died while it was idle is no fault of the run's.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise RunnerDiedError("no process for the flow could be started: other runs took each one that was ready")

    async def _spawn(self, group: str) -> _Idle:
        """Start a process and wait until it is ready.

        Raises:
            NotReadyError: the group's module was not imported; the process is gone.
        """
        if self._starter is None or self._closed:
            raise KodoError("the executor is not running")
        name = _PREFIX + secrets.token_hex(8)
        self._names.add(name)
        link: ProcessLink | None = None
        try:
            folder = self._folder / name
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                folder.mkdir(mode=0o700)
                listener.bind(self._socket(name))
                listener.listen(8)
                pid = await self._starter.start(Plan(name, str(folder), self._stays), listener)
            link = await connect(self._socket(name), CALL_TIMEOUT)
            link.watch(pid)
            module, code = split_group(group)
            preload = [f"{module}:"] if module else []
            await link.call("prepare", self._roots, preload, code, seconds=CALL_TIMEOUT)
            told = await link.call("ready", seconds=READY_SECONDS, what="a process for the flow was not ready")
            check_ready(told, group)
            return _Idle(name, link, group)
        except BaseException as error:
            if link is not None:
                link.close()
            await asyncio.shield(asyncio.to_thread(self._remove, name))
            if isinstance(error, OSError):
                raise CapacityError(f"runs cannot keep their files: {error.strerror}") from error
            raise

    def _refill(self) -> None:
        if self._group is None or self._closed:
            return
        for group in self._plan.missing([*(idle.group for idle in self._idle), *self._coming]):
            self._coming.append(group)
            self._spawn_task(self._add(group))

    async def _add(self, group: str) -> None:
        try:
            async with self._starts:
                idle = await self._spawn(group)
            if self._closed or len(self._idle) >= self._plan.wanted + MAX_GROUPS or not self._plan.wanted:
                self._let_go(idle)
            else:
                self._idle.append(idle)
        except NotReadyError as error:
            self._plan.give_up(group)
            logger.warning("%s", error)
            asyncio.get_running_loop().call_soon(self._refill)
        except KodoError as error:
            logger.warning("a process could not be started ahead of time: %s", error)
        finally:
            self._coming.remove(group)

    def _let_go(self, idle: _Idle) -> None:
        idle.link.close()  # it ends by that
        if not self._closed:
            self._spawn_task(asyncio.to_thread(self._remove, idle.name))

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        task = self._group.create_task(work, context=for_nobody())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, name: str) -> ProcessRunner | None:
        link: ProcessLink | None = None
        told: object = None
        with contextlib.suppress(KodoError):
            link = await connect(self._socket(name), CALL_TIMEOUT)
            told = await link.call("seal", seconds=CALL_TIMEOUT, what="a runner does not answer")
        # It is a flow's process that answers: what it says may be anything.
        if link is None or not isinstance(told, dict) or not is_id(told.get("fid")):
            if link is not None:
                link.close()
            await asyncio.to_thread(self._remove, name)
            return None
        runner = ProcessRunner(self, link, name, told["fid"], started=bool(told.get("started")))
        runner.asking = bool(told.get("asking"))
        pid = told.get("pid")
        if isinstance(pid, int) and await asyncio.to_thread(is_marked, pid, MARK, name):
            link.watch(pid)
            runner.pipes = await asyncio.to_thread(Pipes, pid)
        self._names.add(name)
        self._live[name] = runner
        return runner

    def _strangers(self) -> list[str]:
        """Return the names of runners that were not made here, or of which something is left."""
        return [folder.name for folder in self._folder.glob(_PREFIX + "*") if folder.name not in self._names]

    def _socket(self, name: str) -> str:
        # A cleaner of temporary files may have taken the link away, and somebody may have put another there.
        if not leads_to(self._way, self._folder):
            raise CapacityError(f"{self._way} no longer belongs to this node: restart the node")
        return os.path.join(self._way, name, SOCKET_FILE)

    def _pipes_of(self, name: str, pid: int) -> Pipes | None:
        return Pipes(pid) if is_marked(pid, MARK, name) else None

    # What runners need of their executor.

    def ended(self, runner: ProcessRunner) -> None:
        """Forget a runner that is over; called by the runner itself."""
        self._live.pop(runner.name, None)

    async def autopsy(self, runner: ProcessRunner, error: RunnerDiedError) -> None:
        """Add to an error how a process ended, and what it left behind."""
        status = await self._starter.status(runner.name, _STATUS_SECONDS) if self._starter is not None else None
        if status is not None:
            error.signal, text = describe_end(status)
            error.args = (text,)
        folder = self._folder / runner.name
        signal_name = error.signal
        await asyncio.to_thread(add_crash, error, folder / CRASH_FILE)
        error.signal = error.signal or signal_name
        error.said = await asyncio.to_thread(LastWords, folder / SPOOL_FILE, runner.pipes, runner.taken)

    def folder_of(self, runner: ProcessRunner) -> Path:
        """Return where a runner's files are."""
        return self._folder / runner.name

    async def remove(self, runner: ProcessRunner) -> None:
        """End a runner's process, and what it started, and remove its files."""
        pid, known = runner.link.pid, not runner.link.lost
        if known and pid:
            _end_group(pid)
            await runner.link.wait_lost(CLOSE_TIMEOUT)
        elif pid:
            _end_rest(pid)
        runner.link.close()
        if runner.pipes is not None:
            runner.pipes.close()
        await asyncio.to_thread(self._remove, runner.name)

    def _remove(self, name: str) -> None:
        end_marked(MARK, name)
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._names.discard(name)
        if self._starter is not None:
            self._starter.forget(name)


def _end_group(pid: int) -> None:
    """Kill a process that lives, and its process group, where it leads one."""
    with contextlib.suppress(OSError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def end_left(home: Path, *, user: int | None = None) -> None:
    """End the runners that were left running in a home, and remove their files; blocks.

    Args:
        user: the id of the user whose they are; None: this process's. Another's files stay: what leads to them may
            lead elsewhere.
    """
    for folder in (home / "runners").glob(_PREFIX + "*"):
        end_marked(MARK, folder.name, user=user)
        if user is None:
            shutil.rmtree(folder, ignore_errors=True)


def _end_rest(leader: int) -> None:
    """Kill the process group of one that is gone, if any of it is left: then no other process can have its number."""
    with contextlib.suppress(OSError):
        if not psutil.pid_exists(leader):
            os.killpg(leader, signal.SIGKILL)
