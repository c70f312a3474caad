"""All runs of a node that are not over, from launch to their last event.

    launch ─► stored, queued ─► handed to the executor ─► pumped: poll ─► check ─► fetch outputs ─► commit ─► … over
    creation                    driver                    pump │
                        killed · runner died · misconduct · node stopped ─► `fatal`

This is what the rest of the node asks; `creation` stores launches, `driver` has a task for each live run, `pump`
carries what its runner says into the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from kodo.node.clock import Clock, SystemClock, wait_or_sleep
from kodo.node.executors.executor import Executor, InputFile, Runner
from kodo.node.files.outputs import Outputs
from kodo.node.runs.creation import Creation
from kodo.node.runs.driver import Driver
from kodo.node.runs.fatals import node_fatal
from kodo.node.runs.flow_requests import Asking
from kodo.node.runs.launch import Order, RunSettings, bad_state, disk_full
from kodo.node.runs.live import LiveRun
from kodo.node.runs.pump import Pump
from kodo.node.runs.queue import FairQueue
from kodo.node.runs.recovery import adopt_runners, unfinished_runs
from kodo.node.runs.run_secrets import RunSecrets
from kodo.node.runs.tasks import Tasks
from kodo.node.runs.vault import Vault
from kodo.node.store.rows import NewEvent, OutputRow, RunOverError
from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit
from kodo.p2p.errors import CapacityError
from kodo.protocol.events import Event, RunState

__all__ = ["Runs"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Listener = Callable[[LiveRun, list[Event]], None]

_ANSWER_S = 0.25


class Runs:
    """All runs of a node; `async with` takes up those that an earlier process left, and ends or leaves them.

    Args:
        new_id: gives a fresh fid, cid or lid.
        files: gives the uploads of a principal that inputs name.
        asking: answers what runs ask the node.
        vault: keeps the secrets of runs that are not over.
        spare: whether the machine has the memory to keep the process of one more run that waits for a person.
    """

    def __init__(
        self,
        store: Store,
        outputs: Outputs,
        executor: Executor,
        *,
        new_id: Callable[[], str],
        clock: Clock | None = None,
        settings: RunSettings | None = None,
        files: Callable[[str, Mapping[str, Any]], tuple[InputFile, ...]] = lambda principal, inputs: (),
        asking: Asking | None = None,
        vault: Vault | None = None,
        spare: Callable[[], bool] = lambda: True,
    ):
        self._settings = settings or RunSettings()
        self.keep_runs = self._settings.keep_runs
        """Whether runs go on when the node is closed, see `RunSettings`; may be changed."""
        self.new_id = new_id
        self.clock = clock or SystemClock()
        self._store = store
        self._executor = executor
        self.secrets = RunSecrets(vault)
        self.queue = FairQueue(self._settings.max_runs, spare)
        self._live: dict[str, LiveRun] = {}
        self._listeners: list[Listener] = []
        self._tasks = Tasks()
        self._closing = False
        self._draining: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self._pump = Pump(
            store,
            outputs,
            self.clock,
            self._settings,
            lambda: self._closing,
            self._serve,
        )
        self._driver = Driver(
            store,
            executor,
            settings=self._settings,
            live=self._live,
            queue=self.queue,
            pump=self._pump,
            tasks=self._tasks,
            secrets=self.secrets,
            files=files,
            asking=asking or Asking({}),
            retired=self._fewer.set,
        )
        self._creation = Creation(
            store,
            outputs,
            new_id=new_id,
            clock=self.clock,
            settings=self._settings,
            live=self._live,
            secrets=self.secrets,
            pump=self._pump,
            driver=self._driver,
            tasks=self._tasks,
            is_stopping=lambda: self.stopping or not self._tasks.is_open,
        )
        self.drained = asyncio.Event()
        """Set once the runs that `drain` waits for are over, or its time is."""
        store.subscribe(self._committed)

    async def __aenter__(self) -> Self:
        await self._tasks.open()
        try:
            await self._recover()
            if self.secrets.vault is not None:
                await self.secrets.vault.keep(self._live)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the runs that have begun with `fatal` (or leave them: `keep_runs`) and stop; idempotent, bounded."""
        if not self._tasks.is_open or self._closing:
            return
        self._closing = True
        await self._wind_up()
        await self._tasks.aclose()
        self._live.clear()

    async def _wind_up(self) -> None:
        if not self.keep_runs:
            try:
                async with asyncio.timeout(2 * self._settings.end_s + 5.0), asyncio.TaskGroup() as ending:
                    for live in list(self._live.values()):
                        ending.create_task(self._stop(live))
            except TimeoutError:
                logger.error("not every run could be ended before the node's own end")
        if self._driver.releasing:
            # A runner that is not let go would outlive its run.
            await asyncio.wait(self._driver.releasing, timeout=self._settings.end_s)

    # --- asked from outside ---

    @property
    def live(self) -> Mapping[str, LiveRun]:
        """The runs that are not over, by fid."""
        return self._live

    @property
    def settings(self) -> RunSettings:
        """Bounds and times of runs."""
        return self._settings

    @property
    def stopping(self) -> bool:
        """Whether no more launches are taken."""
        return self._closing or self._draining is not None

    @property
    def has_executor(self) -> bool:
        """Whether runs can be started now."""
        return self._executor.load().up

    def listen(self, listener: Listener) -> None:
        """Call `listener` with each live run's committed events. It must not block."""
        self._listeners.append(listener)

    def drain(self, seconds: float) -> None:
        """Take no more launches and wait for the runs that are there; `drained` is set in the end.

        Args:
            seconds: how long at most; asked again, the latest word counts.
        """
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self.spawn(partial(self._drain, seconds))

    async def launch(self, order: Order) -> tuple[str, RunState]:
        """Store a run and have it started; with a key that was used before, name the run that it made.

        When this returns, the run's first events are durable. Cancelling does not undo the launch.

        Raises:
            CallError: 409 `key-reused`, 413 `too-large`, 429 `busy`, 503 `stopping`, 507 `disk-full`.
        """
        return await self._creation.launch(order)

    def scale(self, runners: int) -> None:
        """Keep this many warm runners from now on."""
        self._executor.scale(runners)

    async def kill(self, fid: str, by: str) -> RunState:
        """End a run that is pending or locked; when this returns its runner is gone. Cancelling does not undo it.

        Raises:
            CallError: 400 `bad-state` when it is over.
        """
        live = self._live.get(fid)
        if live is None:
            row = await self._store.run(fid)
            raise bad_state("kill", RunState.ERROR if row is None else row.state)
        return await self.undisturbed(lambda: self._kill(live, by))

    async def append(self, live: LiveRun, events: Sequence[NewEvent], outputs: Sequence[OutputRow] = ()) -> None:
        """Append to a live run's log: see `Pump.append`."""
        await self._pump.append(live, events, outputs)

    async def patiently(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write something small, again while the disk takes nothing: see `Pump.patiently`."""
        await self._pump.patiently(write)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Do `work` in a task of this owner: see `Tasks.spawn`."""
        return self._tasks.spawn(work)

    async def undisturbed(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` to its end although the one who asked for it may go away: see `Tasks.undisturbed`."""
        return await self._tasks.undisturbed(work)

    # --- inside ---

    def _committed(self, commit: Commit) -> None:
        live = self._live.get(commit.fid)
        if live is None:
            return
        live.apply(commit.events)
        self._park_or_resume(live)
        for listener in self._listeners:
            listener(live, commit.events)

    def _park_or_resume(self, live: LiveRun) -> None:
        """Park a run that waits for a person, so that it holds nobody up."""
        if live.view.state is RunState.LOCKED:
            self.queue.park(live.fid)
        else:
            self.queue.resume(live.fid)

    async def _recover(self) -> None:
        """Take up what an earlier process left: runners that live on, runs that wait, runs whose runner is gone."""
        runners = await adopt_runners(self._executor, self.clock, self._settings.grace_s)
        for live in await unfinished_runs(self._store, runners):
            self._live[live.fid] = live
            if live.runner is not None:
                self.queue.take(live.payer, live.fid)
                self._park_or_resume(live)
            if live.row.killed:
                self._tasks.spawn(partial(self._finish_kill, live), live.payer)
            elif live.runner is not None or not live.handed:
                self._driver.drive(live)
            else:
                await self._driver.end(live, node_fatal("RunnerDied", "the runner was gone when the node came back"))
        for runner in runners.values():
            known = await self._store.run(runner.fid)
            self.spawn(partial(self._dismiss, runner, known=known is not None and runner.started))

    async def _dismiss(self, runner: Runner, *, known: bool) -> None:
        """End a runner that no live run needs: one of a run that is over, or of none that the log knows."""
        await self._driver.bounded(runner.release() if known else runner.kill())

    def _serve(self, live: LiveRun, runner: Runner) -> None:
        self._driver.serve(live, runner)

    async def _drain(self, seconds: float) -> None:
        deadline = self.clock.steady_ms() + seconds * 1000
        # Whoever asked gets the answer before sessions end.
        await self.clock.sleep(_ANSWER_S)
        while self._live and (left := deadline - self.clock.steady_ms()) > 0:
            self._fewer.clear()
            await wait_or_sleep(self.clock, self._fewer, left / 1000)
        self.drained.set()

    async def _kill(self, live: LiveRun, by: str) -> RunState:
        async with live.ending:
            if live.view.state.over or live.fid not in self._live:
                raise bad_state("kill", live.view.state)
            await self._driver.halt(live)
            try:
                await self._store.append(live.fid, [NewEvent.make("kill", {"by": by})])
            except RunOverError as error:
                self.spawn(partial(self._driver.retire, live))
                raise bad_state("kill", error.state) from None
            except CapacityError as error:
                self._driver.drive(live)
                raise disk_full(error) from None
            await self._finish_kill(live)
            return RunState.ERROR

    async def _finish_kill(self, live: LiveRun) -> None:
        await self._driver.end_runner(live)
        await self._driver.end(live, node_fatal("Killed", "the run was killed"))

    async def _stop(self, live: LiveRun) -> None:
        try:
            async with live.ending:
                await self._driver.halt(live)
                row = await self._store.run(live.fid)
                if live.runner is None and (row is None or not row.handed):
                    return  # it has not begun, or is being stored just now, so the next process begins it
                await self._driver.end(live, node_fatal("NodeStopped", "the node was stopped"))
        except Exception as error:
            logger.error("run %s did not end in order: %s", live.fid, type(error).__name__)
