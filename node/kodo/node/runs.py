"""The life of a run, from launch to its last event.

    launch ─► stored, queued ─► handed to the executor ─► pumped: poll ─► check ─► fetch outputs ─► commit ─► … over
                                                            │
                    killed · runner died · misconduct · node stopped ─► `fatal`

One task a live run (its driver) carries the runner's events into the log; the next poll tells the runner what is
committed. Whatever goes wrong becomes one `fatal`, and the store lets no second end in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from kodo.node.checks import Conduct, MisconductError
from kodo.node.clock import Clock, SystemClock, wait_or_sleep
from kodo.node.executor import Executor, InputFile, Runner, RunnerDiedError, RunSpec
from kodo.node.live import LiveRun
from kodo.node.outputs import Outputs
from kodo.node.queue import FairQueue
from kodo.node.rows import KeyReusedError, NewEvent, NewRun, OnceKey, OutputRow, RunOverError, RunRow, digest_of
from kodo.node.store import Store
from kodo.node.transaction import Commit
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, IntegrityError, KodoError, NotFoundError
from kodo.protocol.events import LOCK_EXPIRES_S, LOCK_VERDICT_S, Event, RunState

__all__ = ["Order", "RunSettings", "Runs", "bad_state"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Listener = Callable[[LiveRun, list[Event]], None]

_COMMIT_EVENTS = 4096
"""Events of one run that go into one transaction at most."""

_ANSWER_S = 0.25

_COMMIT_BYTES = 4 << 20
"""Their bytes, roughly."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Bounds and times of runs; seconds.

    Attributes:
        max_live: runs that are not over at once, waiting ones too.
        max_runs: runs that have a runner at once; further ones wait in line.
        poll_s: how long one poll waits for news.
        grace_s: how long a restarted node looks for the runners it left.
        end_s: how long a runner may take to end.
        disk_s: how long a run outlives a disk that takes nothing.
        keep_runs: whether runs go on when the node is closed; else each ends with `fatal`.
        versions: the data of each run's `version` event.
    """

    max_live: int = 1000
    max_runs: int = 64
    poll_s: float = 20.0
    grace_s: float = 30.0
    end_s: float = 10.0
    disk_s: float = 600.0
    keep_runs: bool = False
    versions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What a launch is about; the inputs are valid already. `about`: the data of the run's `flow` event.

    `demand`: JSON Schema of inputs that are missing; the run begins with a lock that asks for them.
    """

    principal: str
    path: str
    name: str
    entry: str
    inputs: dict[str, Any]
    resources: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    key: str | None = None
    demand: dict[str, Any] | None = None


class Runs:
    """All runs of a node; `async with` takes up those that an earlier process left, and ends or leaves them.

    Args:
        new_id: gives a fresh fid, cid or lid.
        files: gives the uploads of a principal that inputs name.
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
    ):
        self.settings = settings or RunSettings()
        self.new_id = new_id
        self.clock = clock or SystemClock()
        self._store = store
        self._outputs = outputs
        self._executor = executor
        self._files = files
        self.queue = FairQueue(self.settings.max_runs)
        self._live: dict[str, LiveRun] = {}
        self._listeners: list[Listener] = []
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._closing = False
        self._draining: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self.drained = asyncio.Event()
        """Set once the runs that `drain` waits for are over, or its time is."""
        store.subscribe(self._committed)

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        try:
            await self._recover()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the live runs with `fatal` (or leave them, with `keep_runs`) and stop; idempotent, bounded."""
        group = self._group
        if group is None or self._closing:
            return
        self._closing = True
        await self._wind_up()
        self._group = None
        for task in list(self._tasks):
            task.cancel()
        await group.__aexit__(None, None, None)
        self._live.clear()

    async def _wind_up(self) -> None:
        if not self.settings.keep_runs:
            try:
                async with asyncio.timeout(2 * self.settings.end_s + 5.0), asyncio.TaskGroup() as ending:
                    for live in list(self._live.values()):
                        ending.create_task(self._stop(live))
            except TimeoutError:
                _log.error("not every run could be ended before the node's own end")
        if self._releasing:
            # A runner that is not let go would outlive its run.
            await asyncio.wait(self._releasing, timeout=self.settings.end_s)

    # --- asked from outside ---

    @property
    def live(self) -> Mapping[str, LiveRun]:
        """The runs that are not over, by fid."""
        return self._live

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with each live run's committed events. It must not block."""
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
        self._check_open()
        fid = self.new_id()
        try:
            first = [
                NewEvent.make("version", dict(self.settings.versions)),
                NewEvent.make("flow", order.about),
                NewEvent.make("inputs", order.inputs),
            ]
            if order.demand is not None:
                first.append(_ask_inputs(self.new_id(), order))
            digest = digest_of([order.path, order.inputs])
        except ValueError as error:
            raise CallError(413, "too-large", f"inputs do not fit an event: {error}; upload large ones") from None
        run = NewRun(fid, order.principal, order.path, order.name, order.entry, order.resources, order.tags)
        key = None if order.key is None else OnceKey(order.principal, f"launch/{order.key}", fid, digest)
        return await self.undisturbed(lambda: self._launch(run, first, key))

    def scale(self, runners: int) -> None:
        """Have so many warm runners kept from now on."""
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
        """Append to a live run's log, with patience while the disk is full: what was not stored is not lost.

        Raises:
            RunOverError: the run is over.
            CapacityError: the disk took nothing for `disk_s`.
        """
        deadline = self.clock.now_ms() + self.settings.disk_s * 1000
        pause = 0.5
        while True:
            try:
                await self._store.append(live.fid, events, outputs=outputs)
                return
            except CapacityError:
                if self.clock.now_ms() >= deadline or self._closing:
                    raise
                _log.warning("run %s waits: the disk takes nothing", live.fid)
                await self.clock.sleep(pause)
                pause = min(pause * 2, 10.0)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Have `work` done by a task of this owner; a failure is logged, without its data, and stays there."""

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                _log.error("work on a run failed: %s", type(error).__name__)

        return self._task(guarded)

    async def undisturbed(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` to its end although the one who asked for it may go away; give its result, or its error."""
        failed: list[Exception] = []

        async def carry() -> T | None:
            try:
                return await work()
            except Exception as error:
                failed.append(error)
                return None

        task = self._task(carry)
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise _stopping() from None
            raise
        if failed:
            raise failed[0]
        return cast(T, result)

    # --- inside ---

    def _task(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        if self._group is None:
            raise _stopping()
        task = self._group.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_open(self) -> None:
        if self._closing or self._draining is not None or self._group is None:
            raise _stopping()
        if len(self._live) >= self.settings.max_live:
            raise CallError(
                429, "busy", f"this node has {self.settings.max_live} unfinished runs", {"retry_after_ms": 1000}
            )
        try:
            self._outputs.check_room()
        except CapacityError as error:
            raise CallError(507, "disk-full", str(error)) from None

    async def _launch(self, run: NewRun, first: list[NewEvent], key: OnceKey | None) -> tuple[str, RunState]:
        now = self.clock.now_ms()
        row = RunRow(
            run.fid, run.principal, run.path, run.name, run.entry, run.resources, run.tags, RunState.PENDING,
            None, None, False, False, now, now, 0, 0,
        )  # fmt: skip
        live = self._live[run.fid] = LiveRun(row)
        try:
            created = await self._store.create(run, first, key)
        except KeyReusedError as error:
            self._live.pop(run.fid, None)
            raise CallError(409, "key-reused", str(error)) from None
        except CapacityError as error:
            self._live.pop(run.fid, None)
            raise CallError(507, "disk-full", str(error)) from None
        except BaseException:
            self._live.pop(run.fid, None)
            raise
        if created.fresh:
            self._drive(live)
            return run.fid, live.view.state
        self._live.pop(run.fid, None)
        earlier = await self._store.run(created.fid)
        return created.fid, earlier.state if earlier else RunState.PENDING

    def _committed(self, commit: Commit) -> None:
        live = self._live.get(commit.fid)
        if live is None:
            return
        live.apply(commit.events)
        for listener in self._listeners:
            listener(live, commit.events)

    async def _recover(self) -> None:
        """Take up what an earlier process left: runners that live on, runs that wait, runs whose runner is gone."""
        runners = {runner.fid: runner for runner in await self._adopt()}
        for row in await self._store.unfinished():
            view = await self._store.view(row.fid)
            if view is None:
                continue
            locks = await self._store.every(row.fid, ["lock"])
            live = LiveRun(row, view, {str(event.data.get("lid")) for event in locks}, runners.pop(row.fid, None))
            self._live[row.fid] = live
            if live.runner is not None:
                self.queue.take(row.fid)
            if row.killed:
                self.spawn(partial(self._finish_kill, live))
            elif live.runner is not None or not row.handed:
                self._drive(live)
            else:
                await self._end(live, "RunnerDied", "the runner was gone when the node came back")
        for runner in runners.values():
            known = await self._store.run(runner.fid)
            self.spawn(partial(self._dismiss, runner, known=known is not None))

    async def _adopt(self) -> list[Runner]:
        pause = 0.5
        try:
            async with asyncio.timeout(self.settings.grace_s):
                while True:
                    try:
                        return await self._executor.adopt()
                    except KodoError as error:
                        _log.warning("looking for runners failed, trying again: %s", type(error).__name__)
                    await self.clock.sleep(pause)
                    pause = min(pause * 2, 5.0)
        except TimeoutError:
            return []

    def _drive(self, live: LiveRun) -> None:
        live.driver = self.spawn(partial(self._run, live))

    async def _run(self, live: LiveRun) -> None:
        """Drive one run to its end."""
        try:
            if live.runner is None:
                await self._inputs(live)
                await self.queue.turn(live.row.principal, live.fid)
                await self._patiently(lambda: self._store.hand(live.fid))
                files = self._files(live.row.principal, live.view.inputs)
                spec = RunSpec(live.fid, live.row.path, live.row.entry, live.view.inputs, live.row.resources, files)
                live.runner = await self._executor.launch(spec)
            await self._pump(live, live.runner)
        except RunOverError:
            await self._retire(live)
        except RunnerDiedError as error:
            await self._end(live, "RunnerDied", str(error), _remains(error, live))
        except MisconductError as error:
            await self._end(live, "Misconduct", str(error))
        except IntegrityError as error:
            await self._end(live, "OutputError", str(error))
        except CapacityError as error:
            await self._end(live, "NodeFull", str(error))
        except KodoError as error:
            await self._end(live, "NotStarted" if live.runner is None else type(error).__name__, str(error))
        except Exception as error:
            _log.error("run %s: %s in the node", live.fid, type(error).__name__)
            await self._end(live, "InternalError", f"the node failed: {type(error).__name__}")
        else:
            await self._retire(live)

    async def _inputs(self, live: LiveRun) -> None:
        """Wait until the lock that asks for missing inputs is answered, if there is one.

        Raises:
            DeadlineError: nobody answered it in time.
        """
        while live.view.locks:
            live.moved.clear()
            await live.moved.wait()
        if live.lids and await self._store.every(live.fid, ["lock-timeout"]):
            raise DeadlineError("nobody gave the missing inputs in time")

    async def _patiently(self, write: Callable[[], Awaitable[None]]) -> None:
        pause = 0.5
        while True:
            try:
                return await write()
            except CapacityError:
                if pause > 60:
                    raise
                await self.clock.sleep(pause)
                pause *= 2

    async def _pump(self, live: LiveRun, runner: Runner) -> None:
        """Carry events into the log until the run is over."""
        row = await self._store.run(live.fid)
        if row is None:
            raise NotFoundError("the run was deleted")
        conduct = Conduct.resume(row.last_rseq, live.view, live.lids)
        while not conduct.over:
            said = await self._poll(runner, conduct.rseq)
            batch: list[NewEvent] = []
            size = 0
            try:
                for event in said:
                    new = conduct.check(event)
                    if event.event == "output":
                        await self._flush(live, batch)
                        fetched = await self._fetch(runner, event.data)
                        await self.append(live, [new], [fetched])
                    else:
                        batch.append(new)
                        size += len(new.packed)
                        if len(batch) >= _COMMIT_EVENTS or size >= _COMMIT_BYTES:
                            await self._flush(live, batch)
                            size = 0
                    if conduct.over:
                        break
            except MisconductError:
                await self._flush(live, batch)
                raise
            await self._flush(live, batch)

    async def _flush(self, live: LiveRun, batch: list[NewEvent]) -> None:
        if batch:
            await self.append(live, batch)
            batch.clear()

    async def _poll(self, runner: Runner, after: int) -> list[Any]:
        try:
            async with asyncio.timeout(self.settings.poll_s + 30.0):
                return list(await runner.poll(after, self.settings.poll_s))
        except TimeoutError:
            raise RunnerDiedError("the runner does not answer") from None

    async def _fetch(self, runner: Runner, data: dict[str, Any]) -> OutputRow:
        """Fetch an output, with patience while the disk is full."""
        deadline = self.clock.now_ms() + self.settings.disk_s * 1000
        while True:
            try:
                return await self._outputs.fetch(runner, data)
            except CapacityError:
                if self.clock.now_ms() >= deadline or self._closing:
                    raise
                await self.clock.sleep(5.0)
            except NotFoundError as error:
                raise IntegrityError("an output is not where its runner put it") from error

    async def _end(self, live: LiveRun, kind: str, message: str, more: Mapping[str, Any] | None = None) -> None:
        """End a run with `fatal` unless it is over, and its runner."""
        fatal = NewEvent.make("fatal", {"type": kind, "message": message[:4096], "where": "node", **(more or {})})
        try:
            await self.append(live, [fatal])
        except RunOverError:
            pass
        except CapacityError:
            _log.error("run %s has ended, and the disk takes no note of it", live.fid)
        if live.runner is not None:
            await self._bounded(live.runner.kill())
        await self._retire(live)

    async def _retire(self, live: LiveRun) -> None:
        """Let the runner of a run that is over go, and forget the run."""
        self._live.pop(live.fid, None)
        self._fewer.set()
        runner = live.runner
        if runner is None:
            self.queue.leave(live.fid)
        else:
            release = self._task(lambda: self._bounded(runner.release()))
            self._releasing.add(release)
            release.add_done_callback(self._releasing.discard)
            release.add_done_callback(lambda _: self.queue.leave(live.fid))
            await asyncio.shield(release)

    async def _dismiss(self, runner: Runner, *, known: bool) -> None:
        """End a runner that no live run needs: one of a run that is over, or of none that the log knows."""
        await self._bounded(runner.release() if known else runner.kill())

    async def _bounded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self.settings.end_s):
                await work
        except (TimeoutError, KodoError) as error:
            _log.warning("a runner did not end as asked: %s", type(error).__name__)

    async def _drain(self, seconds: float) -> None:
        deadline = self.clock.now_ms() + seconds * 1000
        # Whoever asked gets the answer before sessions end.
        await self.clock.sleep(_ANSWER_S)
        while self._live and (left := deadline - self.clock.now_ms()) > 0:
            self._fewer.clear()
            await wait_or_sleep(self.clock, self._fewer, left / 1000)
        self.drained.set()

    async def _halt(self, live: LiveRun) -> None:
        """Stop the driver; what it was storing goes into the log before anything that is stored from now on."""
        driver, live.driver = live.driver, None
        if driver is not None:
            driver.cancel()
            await asyncio.wait([driver], timeout=self.settings.end_s)

    async def _kill(self, live: LiveRun, by: str) -> RunState:
        async with live.ending:
            if live.view.state.over or live.fid not in self._live:
                raise bad_state("kill", live.view.state)
            await self._halt(live)
            try:
                await self._store.append(live.fid, [NewEvent.make("kill", {"by": by})])
            except RunOverError as error:
                self.spawn(partial(self._retire, live))
                raise bad_state("kill", error.state) from None
            except CapacityError as error:
                self._drive(live)
                raise CallError(507, "disk-full", str(error)) from None
            await self._finish_kill(live)
            return RunState.ERROR

    async def _finish_kill(self, live: LiveRun) -> None:
        if live.runner is not None:
            await self._bounded(live.runner.kill())
        await self._end(live, "Killed", "the run was killed")

    async def _stop(self, live: LiveRun) -> None:
        try:
            async with live.ending:
                await self._halt(live)
                await self._end(live, "NodeStopped", "the node was stopped")
        except Exception as error:
            _log.error("run %s did not end in order: %s", live.fid, type(error).__name__)


def _remains(error: RunnerDiedError, live: LiveRun) -> dict[str, Any]:
    """Tell what is known of a process that died: its signal, and, as its traceback, its last words."""
    words = "\n".join(live.stderr)
    parts = [error.stack, f"Last lines of stderr:\n{words}" if words else ""]
    told = {"signal": error.signal, "traceback": "\n".join(part for part in parts if part)}
    return {name: value for name, value in told.items() if value}


def _ask_inputs(lid: str, order: Order) -> NewEvent:
    data = {"lid": lid, "title": f"Inputs of {order.name}"[:512], "schema": order.demand}
    return NewEvent.make("lock", {**data, "expires_s": LOCK_EXPIRES_S, "verdict_s": LOCK_VERDICT_S})


def _stopping() -> CallError:
    return CallError(503, "stopping", "this node is stopping; try again when it is back")


def bad_state(what: str, state: RunState) -> CallError:
    """Give the refusal of something that a run in `state` does not allow."""
    needed = "pending or locked" if state.over else "done or error"
    return CallError(
        400,
        "bad-state",
        f"cannot {what} a run that is {state.value}; it must be {needed}",
        {"state": state.value},
    )
