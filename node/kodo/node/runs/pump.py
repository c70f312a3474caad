"""From a runner into the log: what it says is polled, checked, its files fetched, and committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from kodo.node.clock import Clock, awake_timeout
from kodo.node.executors.checks import Conduct, MisconductError
from kodo.node.executors.executor import Runner, RunnerDiedError, RunnerEvent
from kodo.node.files.ledger import NeverFitsError, QuotaReachedError
from kodo.node.files.outputs import Outputs
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.live import LiveRun
from kodo.node.store.rows import NewEvent, OutputRow, RunOverError
from kodo.node.store.store import Store
from kodo.p2p.errors import CapacityError, IntegrityError, NotFoundError
from kodo.protocol.event_budget import EventBudget

__all__ = ["Pump"]

logger = logging.getLogger(__name__)

_COMMIT_EVENTS = 4096
"""Events of one run that go into one transaction at most."""

_COMMIT_BYTES = 4 << 20
"""Their bytes, roughly."""

_TOLD_WAITS = 20
"""How often a run's log says that it waits for room."""

_HEARD_BYTES = 1 << 20
_HEARD_EACH_BYTES = 256
"""How much of what a dead runner had said is made values at once, and what an event takes at least."""


class Pump:
    """Carries events of live runs into the log, with patience while the disk is full.

    Args:
        hurried: whether there is no time left for patience.
        serve: told of each runner whose flow has asked something, after every poll.
    """

    def __init__(
        self,
        store: Store,
        outputs: Outputs,
        clock: Clock,
        settings: RunSettings,
        hurried: Callable[[], bool],
        serve: Callable[[LiveRun, Runner], None] = lambda live, runner: None,
    ):
        self._store = store
        self._outputs = outputs
        self._clock = clock
        self._settings = settings
        self._hurried = hurried
        self._serve = serve

    async def append(self, live: LiveRun, events: Sequence[NewEvent], outputs: Sequence[OutputRow] = ()) -> None:
        """Append to a live run's log, with patience while the disk is full: what was not stored is not lost.

        Raises:
            RunOverError: the run is over.
            CapacityError: the disk took nothing for `disk_s`.
        """
        deadline = self._clock.steady_ms() + self._settings.disk_s * 1000
        pause = 0.5
        while True:
            try:
                await self._store.append(live.fid, events, outputs=outputs)
                live.waits = ""
                return
            except CapacityError as error:
                if self._clock.steady_ms() >= deadline or self._hurried():
                    raise
                await self._wait_for_room(live, error)
                logger.warning("run %s waits: the disk takes nothing", live.fid)
                await self._clock.sleep(pause)
                pause = min(pause * 2, 10.0)

    async def patiently(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write something small, again while the disk takes nothing, for about two minutes.

        Raises:
            CapacityError: it took nothing.
        """
        pause = 0.5
        while True:
            try:
                return await write()
            except CapacityError:
                if pause > 60:
                    raise
                await self._clock.sleep(pause)
                pause *= 2

    async def carry(self, live: LiveRun, runner: Runner, *, fresh: bool) -> None:
        """Carry events into the log until the run is over.

        Args:
            fresh: the runner was started just now, so nothing that it says is stored yet.

        Raises:
            RunOverError: something else has ended it.
            RunnerDiedError, MisconductError, IntegrityError, CapacityError: why it cannot go on.
        """
        row = None if fresh else await self._store.run(live.fid)
        conduct = Conduct.resume(row.last_rseq if row else 0, live.view, live.lids)
        most, most_bytes = live.row.max_events, live.row.max_event_bytes
        if fresh:
            most, most_bytes = most or self._settings.max_events, most_bytes or self._settings.max_event_bytes
        if most is not None and most_bytes is not None:
            conduct.budget = EventBudget.of_node(most, most_bytes)
            if not fresh:
                conduct.budget.events, conduct.budget.size = await self._store.said(live.fid)
        try:
            await self._carry(live, runner, conduct)
        except RunnerDiedError as error:
            await self._hear(live, conduct, error.said)
            if not conduct.over:
                raise

    async def _hear(self, live: LiveRun, conduct: Conduct, said: Iterable[RunnerEvent]) -> None:
        """Store what a process had said when it died; its files went with it, and so does an end that needs them."""
        batch: list[NewEvent] = []
        lost = len(conduct.outputs) > len(live.view.outputs)  # it died while one was fetched
        words, good = iter(said), True
        while good and (some := await asyncio.to_thread(_some, words)):
            for event in some:
                if event.rseq <= conduct.rseq:
                    continue
                if event.event == "output" or (lost and event.event == "final"):
                    lost = True
                    continue
                try:
                    batch.append(conduct.check(event._replace(rseq=conduct.rseq + 1)))
                except MisconductError:
                    good = False
                    break
            await self._flush(live, batch)

    async def _carry(self, live: LiveRun, runner: Runner, conduct: Conduct) -> None:
        while not conduct.over:
            if runner.asking:
                self._serve(live, runner)
            said = await self._poll(runner, conduct.rseq)
            batch: list[NewEvent] = []
            size = 0
            try:
                for event in said:
                    new = conduct.check(event)
                    if event.event == "output":
                        await self._flush(live, batch)
                        fetched = await self._fetch(live, runner, event.data)
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
            async with awake_timeout(self._settings.poll_s + self._settings.silent_s):
                return list(await runner.poll(after, self._settings.poll_s))
        except TimeoutError:
            raise RunnerDiedError("the runner does not answer") from None

    async def _wait_for_room(self, live: LiveRun, error: CapacityError) -> None:
        """Report that a run waits for room, in its log and beside its state: at once, and once as long as it does."""
        if live.waits:
            return
        live.waits = "room"
        live.waited += 1
        if live.waited <= _TOLD_WAITS:
            full = (
                "the node's quota is reached" if isinstance(error, QuotaReachedError) else "the node's disk is full"
            )
            new = NewEvent.make("wait", {"for": "room", "text": f"waits for room: {full}"})
            # The reserve may be used up too; and what has ended says so by itself.
            with contextlib.suppress(CapacityError, RunOverError):
                await self._store.append(live.fid, [new])

    async def _fetch(self, live: LiveRun, runner: Runner, data: dict[str, Any]) -> OutputRow:
        """Fetch an output, with patience while the disk is full."""
        deadline = self._clock.steady_ms() + self._settings.disk_s * 1000
        while True:
            try:
                return await self._outputs.fetch(runner, data)
            except NeverFitsError:
                raise
            except CapacityError as error:
                if self._clock.steady_ms() >= deadline or self._hurried():
                    raise
                await self._wait_for_room(live, error)
                await self._clock.sleep(5.0)
            except NotFoundError as error:
                raise IntegrityError("the file of an output is not where its runner wrote it") from error


def _some(events: Iterator[RunnerEvent]) -> list[RunnerEvent]:
    """Return the next events, about `_HEARD_BYTES` of them at most; making values of bytes takes time."""
    found, size = [], 0
    for event in events:
        found.append(event)
        size += len(event.packed or b"") + _HEARD_EACH_BYTES
        if size >= _HEARD_BYTES:
            break
    return found
