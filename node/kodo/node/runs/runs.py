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
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from kodo.access.places import fair_share
from kodo.node.clock import Clock, SystemClock, wait_or_sleep
from kodo.node.executors.executor import Executor, InputFile, Runner, RunnerDiedError, RunSpec
from kodo.node.files.outputs import Outputs
from kodo.node.runs.fatals import fatal_of, node_fatal
from kodo.node.runs.flow_requests import Asking
from kodo.node.runs.launch import Order, RunSettings, ask_inputs, bad_state, disk_full, stopping, too_large
from kodo.node.runs.live import LiveRun
from kodo.node.runs.pump import Pump
from kodo.node.runs.queue import FairQueue
from kodo.node.runs.recovery import adopt_runners, unfinished_runs
from kodo.node.runs.tasks import Tasks
from kodo.node.runs.vault import INPUTS, Vault
from kodo.node.store.rows import (
    KEY_REUSED,
    KeyReusedError,
    NewEvent,
    NewRun,
    OnceKey,
    OutputRow,
    RunOverError,
    digest_of,
)
from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, IntegrityError, KodoError, UsageError
from kodo.protocol.access import account_of
from kodo.protocol.events import Event, RunState, RunView
from kodo.protocol.secrets import Secrets, masked

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
        self.settings = settings or RunSettings()
        self.new_id = new_id
        self.clock = clock or SystemClock()
        self._store = store
        self._outputs = outputs
        self._executor = executor
        self._files = files
        self._asking = asking or Asking({})
        self.vault = vault
        self.queue = FairQueue(self.settings.max_runs, spare)
        self._live: dict[str, LiveRun] = {}
        self._keyed: dict[tuple[str, str], asyncio.Event] = {}
        self._listeners: list[Listener] = []
        self._tasks = Tasks()
        self._pump = Pump(store, outputs, self.clock, self.settings, lambda: self._closing, self._serve)
        self._releasing: set[asyncio.Task[None]] = set()
        self._closing = False
        self._draining: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()
        self.drained = asyncio.Event()
        """Set once the runs that `drain` waits for are over, or its time is."""
        store.subscribe(self._committed)

    async def __aenter__(self) -> Self:
        await self._tasks.open()
        try:
            await self._recover()
            if self.vault is not None:
                await self.vault.keep(self._live)
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
        if not self.settings.keep_runs:
            try:
                async with asyncio.timeout(2 * self.settings.end_s + 5.0), asyncio.TaskGroup() as ending:
                    for live in list(self._live.values()):
                        ending.create_task(self._stop(live))
            except TimeoutError:
                logger.error("not every run could be ended before the node's own end")
        if self._releasing:
            # A runner that is not let go would outlive its run.
            await asyncio.wait(self._releasing, timeout=self.settings.end_s)

    # --- asked from outside ---

    @property
    def live(self) -> Mapping[str, LiveRun]:
        """The runs that are not over, by fid."""
        return self._live

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
        if self.stopping or not self._tasks.is_open:
            raise stopping()
        fid = self.new_id()
        try:
            first = [
                NewEvent.make("version", dict(self.settings.versions)),
                NewEvent.make("flow", order.about),
                NewEvent.make("inputs", order.inputs),
            ]
            if order.demand is not None:
                first.append(ask_inputs(self.new_id(), order))
            digest = self.digest([order.path, order.inputs], order.secrets)
        except ValueError as error:
            raise too_large(error) from None
        run = NewRun(
            fid=fid,
            principal=order.principal,
            path=order.path,
            name=order.name,
            entry=order.entry,
            resources=order.resources,
            tags=order.tags,
            payer=order.payer,
            max_events=self.settings.max_events,
            max_event_bytes=self.settings.max_event_bytes,
        )
        key = None if order.key is None else OnceKey(order.principal, f"launch/{order.key}", fid, digest)
        return await self.undisturbed(lambda: self._launch(run, first, key, order))

    def digest(self, value: Any, secrets: Secrets) -> bytes:
        """Return what an idempotency key is kept with; of secrets it tells nothing.

        Raises:
            ValueError: it is not plain data.
        """
        if not secrets:
            return digest_of(value)
        if self.vault is None:
            raise UsageError("this node keeps no secrets")
        return self.vault.digest([value, secrets])

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

    def _unfinished(self) -> list[LiveRun]:
        """Return the runs whose end nobody was told yet; of the others some only let go of their processes."""
        return [live for live in self._live.values() if not live.view.state.over]

    def _check_limit(self, order: Order) -> None:
        limit = order.limit
        if limit is not None and sum(live.row.path == order.path for live in self._unfinished()) >= limit:
            message = f"{order.path} has {limit} unfinished runs, its limit"
            raise CallError(429, "busy", message, {"retry_after_ms": 1000})

    def _check_room(self, payer: str) -> None:
        unfinished = self._unfinished()
        most, total = self.settings.max_live, len(unfinished)
        if total >= most:
            message = f"this node has {most} unfinished runs and takes no more; try again when some have ended"
            raise CallError(429, "busy", message, {"retry_after_ms": 1000})
        mine = sum(live.payer == payer for live in unfinished)
        if mine >= fair_share(most, total - mine, self.settings.max_live_each):
            message = (
                f"you have {mine} unfinished runs on this node, which has {total} in all: your share is used;"
                " end some, or try again later"
            )
            raise CallError(429, "busy", message, {"retry_after_ms": 1000})
        try:
            self._outputs.check_room()
        except CapacityError as error:
            raise disk_full(error) from None

    async def _launch(
        self, run: NewRun, first: list[NewEvent], key: OnceKey | None, order: Order
    ) -> tuple[str, RunState]:
        if key is None:
            return await self._create(run, first, None, order)
        place = (key.principal, key.key)
        # One at a time for each key: those that come to nothing take no room meanwhile.
        while (known := await self._store.once(*place)) is None:
            busy = self._keyed.get(place)
            if busy is not None:
                await busy.wait()
                continue
            busy = self._keyed[place] = asyncio.Event()
            try:
                # Asked again: the one before may have ended since the question.
                known = await self._store.once(*place)
                if known is None:
                    return await self._create(run, first, key, order)
            finally:
                del self._keyed[place]
                busy.set()
            break
        if known.digest != key.digest:
            raise CallError(409, "key-reused", KEY_REUSED)
        return await self._earlier(known.value)

    async def _earlier(self, fid: str) -> tuple[str, RunState]:
        row = await self._store.run(fid)
        return fid, row.state if row else RunState.PENDING

    async def _create(
        self, run: NewRun, first: list[NewEvent], key: OnceKey | None, order: Order
    ) -> tuple[str, RunState]:
        payer, secrets = order.payer or account_of(run.principal), order.secrets
        if order.check is not None:
            self._check_limit(order)  # spares the author's check
            await order.check()
            if self._closing or self._draining is not None:
                raise stopping()
        # No await from here until it counts itself: others are launched meanwhile.
        self._check_limit(order)
        self._check_room(payer)
        live = self._live[run.fid] = LiveRun(run.stored(self.clock.now_ms()), payer=payer, code=order.code)
        try:
            await self._put_secrets(run.fid, secrets)
            created = await self._store.create(run, first, key, order.also)
        except KeyReusedError as error:
            self._live.pop(run.fid, None)
            await self.forget_secrets(run.fid)
            raise CallError(409, "key-reused", str(error)) from None
        except CapacityError as error:
            self._live.pop(run.fid, None)
            self.spawn(partial(self._make_sure, run.fid, wanted=key is not None))
            raise disk_full(error) from None
        except BaseException as error:
            self._live.pop(run.fid, None)
            if isinstance(error, Exception):
                await self.forget_secrets(run.fid)
            raise
        if created.fresh:
            self._drive(live)
            return run.fid, live.view.state
        self._live.pop(run.fid, None)
        await self.forget_secrets(run.fid)
        return await self._earlier(created.fid)

    async def _put_secrets(self, fid: str, secrets: Secrets) -> None:
        """Keep the secrets of a run before it is stored: so it has them also after a crash in between.

        Raises:
            CallError: 507 `disk-full`.
        """
        if secrets and self.vault is not None:
            try:
                await self.vault.put(fid, INPUTS, secrets)
            except CapacityError as error:
                raise disk_full(error) from None

    async def _make_sure(self, fid: str, *, wanted: bool) -> None:
        """See to a run whose creation failed, for the case that it is stored nevertheless.

        Who launched it with a key asks again, and gets it; else it must not run, since its launch was refused.
        """
        await self._pump.patiently(self._store.settle)
        row = await self._store.run(fid)
        if row is None:
            await self.forget_secrets(fid)
        if row is None or fid in self._live:
            return
        live = self._live[fid] = LiveRun(row, await self._store.view(fid) or RunView())
        live.lids.update(live.view.locks)
        if wanted:
            self._drive(live)
        else:
            await self._end(live, node_fatal("NotStarted", "its launch was refused: the disk failed meanwhile"))

    def _committed(self, commit: Commit) -> None:
        live = self._live.get(commit.fid)
        if live is None:
            return
        live.apply(commit.events)
        self._park_or_resume(live)
        for listener in self._listeners:
            listener(live, commit.events)

    def _park_or_resume(self, live: LiveRun) -> None:
        """Let a run that waits for a person hold nobody up."""
        if live.view.state is RunState.LOCKED:
            self.queue.park(live.fid)
        else:
            self.queue.resume(live.fid)

    async def _recover(self) -> None:
        """Take up what an earlier process left: runners that live on, runs that wait, runs whose runner is gone."""
        runners = await adopt_runners(self._executor, self.clock, self.settings.grace_s)
        for live in await unfinished_runs(self._store, runners):
            self._live[live.fid] = live
            if live.runner is not None:
                self.queue.take(live.payer, live.fid)
                self._park_or_resume(live)
            if live.row.killed:
                self.spawn(partial(self._finish_kill, live))
            elif live.runner is not None or not live.handed:
                self._drive(live)
            else:
                await self._end(live, node_fatal("RunnerDied", "the runner was gone when the node came back"))
        for runner in runners.values():
            known = await self._store.run(runner.fid)
            self.spawn(partial(self._dismiss, runner, known=known is not None and runner.started))

    def _drive(self, live: LiveRun) -> None:
        live.driver = self.spawn(partial(self._run, live))

    async def _run(self, live: LiveRun) -> None:
        """Drive one run to its end."""
        fresh = live.runner is None
        try:
            if live.runner is None:
                await self._inputs(live)
                await self.queue.turn(live.payer, live.fid)
                if live.handed:
                    raise RunnerDiedError("the node died while it started this run, so the run may have begun")
                inputs, row = live.view.inputs, live.row
                files = self._files(row.principal, inputs)
                secrets = await self.secrets_of(live)
                spec = RunSpec(
                    fid=live.fid,
                    path=row.path,
                    entry=row.entry,
                    inputs=inputs,
                    resources=row.resources,
                    files=files,
                    secrets=secrets,
                    # As they were when it was launched: a process of this node that takes it up knows them too.
                    max_events=row.max_events or self.settings.max_events,
                    max_event_bytes=row.max_event_bytes or self.settings.max_event_bytes,
                    node=str(self.settings.versions.get("node", "")),
                    code=live.code,
                )
                live.runner = await self._executor.launch(spec, partial(self._hand, live))
            await self._pump.carry(live, live.runner, fresh=fresh)
        except RunOverError:
            await self._retire(live)
        except Exception as error:
            if not isinstance(error, KodoError):
                logger.error("run %s: %s in the node", live.fid, type(error).__name__)
            await self._end(
                live, fatal_of(error, has_runner=live.runner is not None or live.handed, stderr=live.stderr)
            )
        else:
            await self._retire(live)

    async def _hand(self, live: LiveRun) -> None:
        """Note that the flow is about to begin: from now on the run is not started again, whatever happens."""
        await self._pump.patiently(lambda: self._store.hand(live.fid))
        live.handed = True

    def _serve(self, live: LiveRun, runner: Runner) -> None:
        if live.server is None:
            live.server = self.spawn(lambda: self._asking.serve(live, runner))

    async def secrets_of(self, live: LiveRun) -> Secrets:
        """Return what belongs in the place of each `MASK` in a run's inputs.

        Raises:
            IntegrityError: it is not there, or cannot be read.
        """
        if not masked(live.view.inputs) or self.vault is None:
            return []
        found = await self.vault.get(live.fid, INPUTS)
        if not found:
            raise IntegrityError("the secrets of this run are gone: start it again")
        return found

    async def forget_secrets(self, fid: str, name: str | None = None) -> None:
        """Erase the secrets of a run that is over, or was never stored; with `name` those of one answer alone."""
        if self.vault is None or not self.vault.has(fid):
            return
        try:
            await (self.vault.erase(fid) if name is None else self.vault.drop(fid, name))
        except (CapacityError, IntegrityError) as error:
            logger.error("run %s: its secrets are erased with the node's next start: %s", fid, error)

    async def _inputs(self, live: LiveRun) -> None:
        """Wait until the lock that asks for missing inputs is answered, if there is one.

        Raises:
            DeadlineError: nobody answered it in time.
        """
        while live.view.locks:
            live.moved.clear()
            await live.moved.wait()
        if live.lids and await self._store.every(live.fid, ["lock-timeout"]):
            raise DeadlineError("nobody provided the missing inputs in time")

    async def _end(self, live: LiveRun, fatal: dict[str, Any]) -> None:
        """End a run with `fatal` unless it is over, and its runner; whatever fails, its place and process go."""
        try:
            await self.append(live, [NewEvent.make("fatal", fatal)])
        except RunOverError:
            pass
        except Exception as error:
            logger.error("run %s has ended, and no note of it could be stored: %s", live.fid, type(error).__name__)
        if live.runner is not None:
            await self._bounded(live.runner.kill())
        await self._retire(live)

    async def _retire(self, live: LiveRun) -> None:
        """Let the runner of a run that is over go, and forget the run."""
        self._live.pop(live.fid, None)
        self._fewer.set()
        try:
            if self.vault is not None and self.vault.has(live.fid):
                await self.vault.erase(live.fid)
        except Exception as error:
            logger.error("run %s: its secrets are erased with the node's next start: %s", live.fid, error)
        if live.server is not None:
            live.server.cancel()
            self.spawn(lambda: self._asking.ended(live.fid))
        runner = live.runner
        if runner is None:
            self.queue.leave(live.fid)
        else:
            release = self._tasks.start(lambda: self._bounded(runner.release()))
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
        except Exception as error:
            logger.warning("a runner did not end as asked: %s", type(error).__name__)

    async def _drain(self, seconds: float) -> None:
        deadline = self.clock.steady_ms() + seconds * 1000
        # Whoever asked gets the answer before sessions end.
        await self.clock.sleep(_ANSWER_S)
        while self._live and (left := deadline - self.clock.steady_ms()) > 0:
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
                raise disk_full(error) from None
            await self._finish_kill(live)
            return RunState.ERROR

    async def _finish_kill(self, live: LiveRun) -> None:
        if live.runner is not None:
            await self._bounded(live.runner.kill())
        await self._end(live, node_fatal("Killed", "the run was killed"))

    async def _stop(self, live: LiveRun) -> None:
        try:
            async with live.ending:
                await self._halt(live)
                row = await self._store.run(live.fid)
                if live.runner is None and (row is None or not row.handed):
                    return  # it has not begun, or is being stored just now, so the next process begins it
                await self._end(live, node_fatal("NodeStopped", "the node was stopped"))
        except Exception as error:
            logger.error("run %s did not end in order: %s", live.fid, type(error).__name__)
