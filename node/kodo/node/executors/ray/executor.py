"""Runs flows on Ray: warm runners, queueing, adoption of what an earlier process of this node left running.

The scope's sources: an embedded Ray runs on this machine, where runners get the scope's folders on their import path;
copying would take along whatever else lies in them. A cluster that was joined may be on other machines: there
they travel by Ray's `py_modules`, and are what they were when the node started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from kodo.flow._runtime.spool import SPOOL_FILE
from kodo.node.executors.crash import CRASH_FILE, add_crash
from kodo.node.executors.executor import ExecutorLoad, Runner, RunnerDiedError, RunSpec
from kodo.node.executors.last_words import LastWords, Pipes
from kodo.node.executors.marked_processes import end_marked, is_marked
from kodo.node.executors.ray.cluster import cluster_lives, start_cluster, stop_cluster
from kodo.node.executors.ray.connection import RayLink
from kodo.node.executors.ray.joined import LOOK_SECONDS, JoinedCluster
from kodo.node.executors.ray.options import actor_options, amounts
from kodo.node.executors.ray.pool import NAME_PREFIX, StaleLinkError, Warm, WarmPool
from kodo.node.executors.ray.runner import RayRunner
from kodo.node.executors.runner.imports import group_of
from kodo.node.executors.runner_calls import CALL_TIMEOUT, NotReadyError, check_ready
from kodo.node.executors.upload_sender import send_files
from kodo.p2p.errors import KodoError
from kodo.p2p.net.turns import FairSemaphore
from kodo.protocol.ids import is_id

__all__ = ["RayExecutor"]

logger = logging.getLogger(__name__)

READY_TIMEOUT = 60.0
"""Seconds in which a fresh runner must be ready when nothing has to be installed for it."""

STARTS = 4
"""Runners that are started at the same time for runs that found no warm one."""

STALE_TRIES = 10
"""How often a run tries to start while the head of a joined cluster is another one that is not joined yet."""

MIND_SECONDS = 0.5
"""How often the embedded Ray is looked at."""


class RayExecutor:
    """Implements `kodo.node.executors.executor.Executor`. One per process: Ray has one connection per process."""

    def __init__(
        self,
        home: Path,
        namespace: str,
        roots: Sequence[Path] = (),
        preload: Callable[[], Sequence[str]] = lambda: (),
        num_cpus: int | None = None,
        object_store_bytes: int | None = None,
        ray_address: str | None = None,
        runners: int = 2,
        entries: Callable[[], Sequence[str]] | None = None,
        files: Sequence[str] = (),
        wait_s: float = 0.0,
        code: Callable[[], str] = str,
    ):
        """Keep the settings; nothing is started.

        Args:
            home: the node's home; an embedded Ray and the files of its runs lie in `home/ray`.
            namespace: `kodo-<peer id>`: runners are found again in it.
            roots: folders of the scope's sources.
            preload: gives the entries of the flows for which runners are made ready; see `WarmPlan`.
            num_cpus: CPUs of an embedded Ray; None: all.
            object_store_bytes: shared memory of an embedded Ray; None: Ray's choice.
            ray_address: an existing cluster to join, `host:port` of its head; None: embed one.
            runners: warm runners to keep.
            entries: gives what may be run; its sources travel to a cluster that is joined. None: `preload`.
            files: patterns of further files that travel there, relative to the first of `roots`.
            wait_s: how long a run waits there for a machine that has what its flow asks for.
            code: gives the file with the sources as they are kept, of which those that travel there are taken.
        """
        self._home = home
        self._namespace = namespace
        self._roots = [Path(root).resolve() for root in roots]
        self._folders = home / "ray" / "runs"
        self._num_cpus = num_cpus
        self._object_store_bytes = object_store_bytes
        self._joined: JoinedCluster | None = None
        if ray_address is not None:
            self._joined = JoinedCluster(home, ray_address, self._roots, entries or preload, files, wait_s, code=code)
        self._link: RayLink | None = None
        self._up = asyncio.Event()
        self._changing = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._minding: asyncio.Task[None] | None = None
        self._warm = WarmPool(namespace, self._roots, preload, None if self.far else self._folders, runners)
        self._live: dict[str, RayRunner] = {}
        self._ended: set[str] = set()
        self._starting = 0
        self._queued = 0
        self._starts = FairSemaphore(STARTS)
        self._closed = False

    @property
    def far(self) -> bool:
        """Whether runners may be on other machines: those of a cluster that was joined."""
        return self._joined is not None

    async def start(self) -> None:
        """Start or join Ray, then start the warm runners without waiting until they are ready.

        An embedded Ray that dies later is replaced: its runs are lost, launches wait meanwhile.

        Raises:
            KodoError: Ray cannot be started or reached.
        """
        if self._group is None:
            link = await self._connected()
            self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
            await self._use(link)
            if self._joined is None:
                self._minding = self._group.create_task(self._mind())
            else:
                watch = self._joined.watch(lambda: self._link, self._placed, self._warm.dismiss, self._join_again)
                self._minding = self._group.create_task(watch)

    async def _connected(self) -> RayLink:
        """Connect; whoever gives up waiting leaves no Ray behind that was started for it."""
        theirs = self.far or cluster_lives(self._home)
        connecting = asyncio.ensure_future(asyncio.to_thread(self._connect))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The thread goes on, and what it starts would be nobody's.
            link = None
            with contextlib.suppress(Exception):
                link = await connecting
            await asyncio.to_thread(self._disconnect, link, not theirs)
            raise

    async def adopt(self) -> list[Runner]:
        """Find this node's runners that have a run; end those that have none, or do not answer."""
        mine = {warm.name for warm in self._warm} | {runner.name for runner in self._live.values()}
        link = self._open_link()
        names = [name for name in await self._names(link) if name not in mine]
        adopted = await asyncio.gather(*(self._adopt(link, name) for name in names))
        runners: list[Runner] = [runner for runner in adopted if runner is not None]
        if not self.far:
            await asyncio.to_thread(self._sweep)
        return runners

    async def _names(self, link: RayLink) -> list[str]:
        names = await link.block(link.ray.util.list_named_actors, CALL_TIMEOUT, "Ray did not list its actors")
        return [name for name in names if name.startswith(NAME_PREFIX)]

    async def spare(self, warm_s: float) -> list[str]:
        """See `Executor.spare`."""
        names = await self._names(self._open_link())
        self._ended &= set(names)
        self._warm.made -= self._ended
        used = self._warm.made | set(self._live)
        return [*(name for name in names if name not in used), *self._warm.spare(names, warm_s)]

    async def dismiss(self, name: str) -> None:
        """See `Executor.dismiss`."""
        if self._warm.dismiss(name) or name in self._warm.made or name in self._live:
            return
        link = self._open_link()
        with contextlib.suppress(ValueError):  # it is gone
            handle = await link.block(lambda: link.ray.get_actor(name), CALL_TIMEOUT, "Ray did not find an actor")
            link.kill(handle)
        if not self.far:
            await asyncio.to_thread(self._remove_files, name)

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        """Start a run; waits while Ray is replaced. Cancelling is safe.

        How many run at a time is for the caller to say: there is one line, the node's.

        The runner is told whose it is before `about_to_start`: when this process dies in between, the next one finds
        a runner of that run, and can make sure that it never begins.

        Raises:
            UsageError: the resources are not of those that Ray knows.
            CapacityError: no machine has the resources that the flow asks for.
            RunnerDiedError: no runner could be started.
        """
        link = await self._link_in_use()
        options = actor_options(spec.resources, None if self.far else link.totals)
        self._starting += 1
        try:
            if self._joined is not None:
                await self._joined.check(amounts(options))
            runner = await self._start(spec, options, about_to_start)
            self._live[runner.name] = runner
        finally:
            self._starting -= 1
        return runner

    def scale(self, runners: int) -> None:
        """See `Executor.scale`."""
        self._warm.scale(runners)

    def refresh(self) -> None:
        """See `Executor.refresh`."""
        self._warm.refresh()

    def load(self) -> ExecutorLoad:
        """Count runners."""
        busy = len(self._live) + self._starting
        return ExecutorLoad(free=self._warm.ready, busy=busy, queued=self._queued, up=self._up.is_set())

    async def aclose(self) -> None:
        """Stop the warm runners, and an embedded Ray unless runs go on in it; idempotent, bounded to 15 s.

        Runs that are live keep Ray alive: the next process of this node adopts them.
        """
        if self._closed:
            return
        self._closed = True
        if self._group is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(14.0):
                # A Ray that is just being started must have started to be stopped.
                async with self._changing:
                    await self._leave()

    async def _leave(self) -> None:
        self._group = None
        if self._minding is not None:
            self._minding.cancel()
        if self._joined is not None:
            self._joined.leave()
        self._warm.close()
        await self._stack.aclose()
        link, self._link = self._link, None
        if not self.far:
            await asyncio.to_thread(self._sweep)
        going_on = sum(runner.alive for runner in self._live.values())
        if going_on:
            logger.warning("%d runs go on; Ray stays until they are over and the node was started again", going_on)
        await asyncio.to_thread(self._disconnect, link, going_on == 0)

    # Ray's death.

    async def _mind(self) -> None:
        """Notice when the embedded Ray has died, and start another."""
        while True:
            await asyncio.sleep(MIND_SECONDS)
            if not cluster_lives(self._home):
                async with self._changing:
                    await self._replace()

    async def _join_again(self) -> None:
        """Join a cluster whose head was restarted: what ran on it is over."""
        async with self._changing:
            await self._replace()

    def _placed(self) -> list[RayRunner | Warm]:
        """Return the runners that there are, those that are warm and ready too."""
        for warm in self._warm:
            if warm.machine is None and warm.ready.done() and warm.ready.exception() is None:
                warm.machine = _machine_of(warm.ready.result())
        return [*self._live.values(), *self._warm]

    async def _replace(self) -> None:
        """Abandon the Ray that is gone and all that ran in it, and start or join another; tries until it succeeds."""
        if self._joined is None:
            logger.error("the embedded Ray has died; its runs are over, and another is started")
            why = "the node's Ray died, and the flow's process with it"
        else:
            logger.error("the head of Ray at %s was restarted; its runs are over", self._joined.address)
            why = "the head of the Ray cluster was restarted, and the flow's process ended with it"
        self._up.clear()
        lost, pause = self._link, 0.5
        if lost is not None:
            lost.lose(why)
        self._warm.forget()
        while not self._closed:
            leaving, lost = lost, None
            try:
                lost = await asyncio.shield(asyncio.to_thread(self._reconnect, leaving))
                await self._use(lost)
                break
            except Exception as error:  # whatever it was, the next try may do better: a full disk gets room again
                logger.error("Ray could not be started again: %s", error)
                self._up.clear()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._sweep)

    def _reconnect(self, lost: RayLink | None) -> RayLink:
        if self._joined is not None:
            if lost is not None:
                lost.disconnect()
            self._link = None
            return self._connect()
        # Its processes first: a flow must not go on for long when its run is over.
        stop_cluster(self._home, politely=False)
        leaving = threading.Thread(target=lost.disconnect if lost else int, daemon=True)
        leaving.start()
        start_cluster(self._home, num_cpus=self._num_cpus, object_store_bytes=self._object_store_bytes)
        leaving.join()
        self._link = None
        if self._closed:
            raise KodoError("the node is closing")
        return self._connect()

    async def _use(self, link: RayLink) -> None:
        self._link = link
        self._up.set()
        if self._group is not None:
            await self._warm.use(link, self._group)
        if self._joined is not None:
            self._joined.begin(link)

    async def _link_in_use(self) -> RayLink:
        """Return the connection to Ray, once there is one: a run that comes while Ray is replaced waits for it."""
        await self._up.wait()
        return self._open_link()

    def _open_link(self) -> RayLink:
        if self._link is None or self._closed:
            raise KodoError("the executor is not running")
        return self._link

    # Ray, in threads: its own calls block.

    def _connect(self) -> RayLink:
        if self._joined is None:
            return RayLink.embed(self._home, self._namespace, self._num_cpus, self._object_store_bytes)
        return self._joined.join(self._namespace)

    def _disconnect(self, link: RayLink | None, stop: bool) -> None:
        if link is not None:
            link.disconnect()
        if not self.far and stop:
            stop_cluster(self._home)

    def _sweep(self) -> None:
        """Remove the files of runners that are gone."""
        alive = {warm.name for warm in self._warm} | set(self._live)
        for folder in self._folders.glob(NAME_PREFIX + "*"):
            if folder.name not in alive:
                shutil.rmtree(folder, ignore_errors=True)

    # Runners.

    async def _start(
        self, spec: RunSpec, options: dict[str, Any], about_to_start: Callable[[], Awaitable[None]] | None
    ) -> RayRunner:
        from kodo.node.executors.runner.service import kodo_version

        warm = await self._ready_runner(options, group_of(spec.entry, spec.code))
        link = warm.link
        runner = RayRunner(self, link, warm.name, warm.handle, spec.fid)
        runner.machine = warm.machine
        runner.pipes = await asyncio.to_thread(self._pipes_of, warm.name, warm.pid)
        message = {**spec.message(), "kodo": kodo_version()}
        if self.far:  # what has travelled is what is kept
            message["code"] = ""

        def start() -> Any:
            started = warm.handle.start.remote(message, spec.secrets)
            runner.look_ahead()
            return started

        try:
            give = warm.handle.take_input.remote
            await send_files(
                spec.files, lambda *part: link.ask(lambda: give(*part), CALL_TIMEOUT, "the runner took no file")
            )
            await link.ask(
                lambda: warm.handle.assign.remote(spec.fid), CALL_TIMEOUT, "a runner did not take its run's name"
            )
            if about_to_start is not None:
                await about_to_start()
            # From here on nothing is tried again: a flow that ends its process at once has run, and its end is told
            # by the first poll.
            with contextlib.suppress(RunnerDiedError):
                await link.ask(start, CALL_TIMEOUT, "a runner did not take its run")
        except BaseException:
            await runner.kill()  # and its files, which are on its machine
            raise
        self._warm.refill_soon()
        return runner

    async def _ready_runner(self, options: dict[str, Any], group: str) -> Warm:
        """Return a runner that has no run yet and answers."""
        attempt = stale = 0
        while True:
            link = await self._link_in_use()
            try:
                warm = self._warm.take(group) if not options else None
                if warm is not None:
                    return await _ready(warm, READY_TIMEOUT)
                if options:
                    # Waiting for CPUs that others use is a queue; everything else must be quick.
                    return await _ready(await self._warm.spawn(link, options), None)
                # Ray starts processes a few at a time: more at once would only wait in it, at the cost of their time.
                self._queued += 1
                try:
                    await self._starts.acquire()
                finally:
                    self._queued -= 1
                try:
                    warm = self._warm.take(group) or await self._warm.spawn(link, {})
                    return await _ready(warm, READY_TIMEOUT)
                finally:
                    self._starts.release()
            except NotReadyError as error:
                logger.warning("%s", error)
                self._warm.give_up(group)
            except StaleLinkError:
                stale += 1
                if stale == STALE_TRIES:
                    raise
                await asyncio.sleep(LOOK_SECONDS)  # meanwhile the new head is noticed, and joined
            except RunnerDiedError:
                # A warm runner may have died while it was idle; a flow's own resources fail the same way again. When
                # all of Ray died, it is no runner's fault.
                attempt += not link.lost
                if attempt and (attempt == 3 or options):
                    raise

    async def _adopt(self, link: RayLink, name: str) -> RayRunner | None:
        try:
            handle = await link.block(lambda: link.ray.get_actor(name), CALL_TIMEOUT, "Ray did not find an actor")
        except ValueError:
            return None
        try:
            told = await link.ask(handle.seal.remote, CALL_TIMEOUT, "a runner does not answer")
        except KodoError:
            told = None
        # It is a flow's process that answers: what it says may be anything.
        if not isinstance(told, dict) or not is_id(told.get("fid")):
            link.kill(handle)
            return None
        runner = RayRunner(self, link, name, handle, told["fid"], started=bool(told.get("started")))
        runner.asking = bool(told.get("asking"))
        runner.machine = _machine_of(told)
        runner.pipes = await asyncio.to_thread(self._pipes_of, name, told.get("pid"))
        self._live[name] = runner
        return runner

    async def fate(self, runner: RayRunner) -> str | None:
        """See `JoinedCluster.fate`."""
        return None if self._joined is None else await self._joined.fate(runner)

    def ended(self, runner: RayRunner) -> None:
        """Forget a runner that is over; called by the runner itself."""
        self._ended.add(runner.name)
        self._live.pop(runner.name, None)

    def _pipes_of(self, name: str, pid: object) -> Pipes | None:
        """Hold the pipes of a runner that says what process it is: of none but one that was started for it."""
        if self.far or not isinstance(pid, int) or not is_marked(pid, "KODO_RUNNER", name):
            return None
        return Pipes(pid)

    def autopsy(self, runner: RayRunner, error: RunnerDiedError) -> None:
        """Add to an error what the dying process left behind on this machine."""
        if self.far:
            return
        with runner.guard:
            if runner.remains is None:
                folder = self._folders / runner.name
                add_crash(error, folder / CRASH_FILE)
                error.said = LastWords(folder / SPOOL_FILE, runner.pipes, runner.taken)
                runner.remains = error
        found = runner.remains
        error.args, error.signal, error.stack, error.said = found.args, found.signal, found.stack, found.said

    def folder_of(self, runner: RayRunner) -> Path | None:
        """Return where a runner's files are on this machine."""
        return None if self.far else self._folders / runner.name

    def remove_files(self, runner: RayRunner) -> None:
        """Remove an ended runner's files from this machine, and what its flow left running."""
        if runner.pipes is not None:
            runner.pipes.close()
        if not self.far:
            self._remove_files(runner.name)

    def _remove_files(self, name: str) -> None:
        end_marked("KODO_RUNNER", name)
        shutil.rmtree(self._folders / name, ignore_errors=True)


async def _ready(warm: Warm, seconds: float | None) -> Warm:
    """Wait until a runner is ready; one that is given up is ended."""
    try:
        told = await warm.link.ask(warm.ready, seconds, "a runner did not become ready", warm.name)
        warm.pid = told.get("pid") if isinstance(told, dict) else None
        check_ready(told, warm.group)
        warm.machine = _machine_of(told)
    except BaseException:
        warm.link.kill(warm.handle)
        raise
    return warm


def _machine_of(told: Any) -> str | None:
    """Return the id of a runner's machine, as it says itself."""
    machine = told.get("machine") if isinstance(told, dict) else None
    return machine if isinstance(machine, str) and len(machine) <= 128 else None
