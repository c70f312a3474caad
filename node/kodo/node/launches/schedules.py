"""Schedules: launches at times, in the name of who made them, with what they may do at each of those times.

A time that came is taken note of in the very transaction that stores its run, and its run has an idempotency key of
its own. So each is launched once, whenever the node dies. All times are those of the clock on the wall, which may be
set: back, and nothing is launched twice; forward, and what was left out is treated as missed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import msgpack

from kodo.access.places import fair_share
from kodo.access.provider import Provider
from kodo.node.catalog.catalog import Catalog
from kodo.node.clock import Clock, wait_or_sleep
from kodo.node.launches.launcher import Launcher
from kodo.node.launches.times import Timing
from kodo.node.runs.launch import ROW_BYTES, disk_full
from kodo.node.runs.live import LiveRun
from kodo.node.runs.runs import Runs
from kodo.node.runs.tasks import Tasks
from kodo.node.store import schedule_rows
from kodo.node.store.schedule_rows import ScheduleRow
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, KodoError
from kodo.p2p.net.turns import line_for
from kodo.protocol.events import Event
from kodo.protocol.uploads import find_uploads

__all__ = ["MAX_EACH", "Schedules", "timing_of"]

logger = logging.getLogger(__name__)

MAX_EACH = 100
"""Schedules of one user."""

MAX_ALL = 2000

LATE_MS = 60_000
"""A time that is noticed later than this was missed."""

LOOK_S = 30.0
"""How often the clock is looked at, which may be set."""

_RETRY_S = 10.0
_READ = 200
"""How many schedules that are due are read for one look."""

_AT_ONCE = 8
"""How many of them are settled at once, each of another payer: an author's check may take long."""

_LOOK_MS = 10_000
"""After this long a look settles no second schedule of a payer: what came due meanwhile gets its turn."""

_ENDED_MS = 7 * 86_400_000
"""How long a schedule is listed that launches nothing any more."""

_LATER = frozenset([429, 503, 507])
"""Refusals that pass: the launch waits."""


def timing_of(row: ScheduleRow) -> Timing:
    """Return when a schedule is due."""
    return Timing(row.cron, row.tz, row.at, row.every_s, row.created)


class Schedules:
    """The schedules of a node; `async with` launches what is due.

    Args:
        node: the node's name: who may not deal with it any more, their schedules launch nothing.
    """

    def __init__(
        self,
        store: Store,
        runs: Runs,
        launcher: Launcher,
        catalog: Catalog,
        provider: Provider,
        clock: Clock,
        node: str,
        new_id: Callable[[], str],
    ):
        self._store = store
        self._runs = runs
        self._launcher = launcher
        self._catalog = catalog
        self._provider = provider
        self._clock = clock
        self._node = node
        self._new_id = new_id
        self._tasks = Tasks()
        self._news = asyncio.Event()
        self._files: dict[str, frozenset[str]] = {}
        self._after = (0, "")
        """(due, sid) of the last that waited and was tried: many that go on waiting keep the others from nothing."""
        self._since = self._until = 0
        """From when until when the clock was looked at without a gap, ms UTC: what came due then is not missed."""
        runs.listen(self._heard)

    async def __aenter__(self) -> Self:
        self._files = await self._store.ask(schedule_rows.files)
        await self._tasks.open()
        self._tasks.spawn(self._drive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    # --- asked from outside ---

    async def add(self, row: ScheduleRow) -> ScheduleRow:
        """Keep a schedule; give it with its id, and when it is due.

        Raises:
            UsageError: it is never due.
            CallError: 429 `busy`: there are too many; 507 `disk-full`.
        """
        now = self._clock.now_ms()
        row = replace(row, sid=self._new_id(), created=now)
        row = replace(row, due=timing_of(row).check().after(now))
        if row.due is None:
            raise CallError(400, "bad-args", "schedule.add: this is not due within the next ten years", {"arg": "at"})

        def write(connection: sqlite3.Connection) -> None:
            schedule_rows.sweep(connection, now - _ENDED_MS)
            mine, total = schedule_rows.counts(connection, row.payer)
            if mine >= fair_share(MAX_ALL, total - mine, MAX_EACH):
                message = f"you have {mine} schedules on this node, which has {total} in all; remove some first"
                raise CallError(429, "busy", message, {"retry_after_ms": 60_000})
            schedule_rows.add(connection, row)

        # Before it is stored: it may be due at once, and over.
        self._files[row.sid] = frozenset(find_uploads(row.inputs))
        try:
            await self._store.change(write, ROW_BYTES + len(msgpack.packb(row.inputs)))
        except KodoError as error:
            self._files.pop(row.sid, None)
            if isinstance(error, CapacityError):
                raise disk_full(error) from None
            raise
        self._news.set()
        return row

    async def get(self, sid: str) -> ScheduleRow | None:
        """Return one schedule."""
        return await self._store.ask(lambda connection: schedule_rows.by_sid(connection, sid))

    async def page(self, principal: str | None, p: int, pp: int) -> tuple[int, list[ScheduleRow]]:
        """Return how many schedules a principal (None: everybody) has, and a page of them, the latest first."""
        return await self._store.ask(lambda connection: schedule_rows.page(connection, principal, p, pp))

    async def pause(self, row: ScheduleRow, *, paused: bool) -> ScheduleRow:
        """Pause a schedule, or let it go on with the next time from now; what it is already changes nothing."""
        now = self._clock.now_ms()
        following = timing_of(row).after(now)

        # What the row was when it was read may have changed: it may have been launched since.
        def write(connection: sqlite3.Connection) -> None:
            if paused:
                schedule_rows.pause(connection, row.sid, now)
            else:
                schedule_rows.resume(connection, row.sid, following)

        await self._store.change(write)
        self._news.set()
        return await self.get(row.sid) or row

    async def remove(self, row: ScheduleRow) -> None:
        """Remove a schedule; its runs go on."""
        await self._store.change(lambda connection: schedule_rows.remove(connection, row.sid))
        self._files.pop(row.sid, None)

    def upcoming(self, row: ScheduleRow, count: int) -> list[int]:
        """Return the next times at which a schedule is due, ms UTC."""
        if row.due is None or row.paused is not None:
            return []
        return [row.due, *timing_of(row).upcoming(max(row.due, self._clock.now_ms()), count - 1)]

    def files(self) -> frozenset[str]:
        """Return the ids of the uploads that schedules need."""
        return frozenset().union(*self._files.values())

    # --- inside ---

    def _heard(self, live: LiveRun, events: Sequence[Event]) -> None:
        """Look again when a run of a schedule has ended: the next may wait for it."""
        if live.view.state.over and "schedule" in live.view.flow:
            self._news.set()

    async def _drive(self) -> None:
        while True:
            self._news.clear()
            try:
                pause = await self._look()
            except KodoError as error:
                logger.warning("schedules: %s", error)
                pause = _RETRY_S
            await wait_or_sleep(self._clock, self._news, pause)

    async def _look(self) -> float:
        """Settle what is due; give the seconds after which to look again."""
        now, after = self._clock.now_ms(), self._after
        if abs(now - self._until) > LATE_MS:
            self._since = now
        try:
            rows = await self._store.ask(lambda connection: schedule_rows.due(connection, now, _READ, after))
            settled = await self._settle_all(rows, now)
        finally:
            self._until = self._clock.now_ms()
        tried = [row.sid in settled for row in rows]
        more = len(rows) == _READ or not all(tried)
        if not more:
            self._after = (0, "")
        for row, was_tried in zip(rows, tried, strict=True):
            if row.waits and not was_tried:
                break
            if row.waits and more:
                self._after = (row.due or 0, row.sid)
        if not all(tried) or (len(rows) == _READ and any(settled.values())):
            return 0.0
        if not all(settled.values()):
            return _RETRY_S
        due = await self._store.ask(lambda connection: schedule_rows.next_due(connection, now))
        left = LOOK_S if due is None else max(due - self._clock.now_ms(), 0) / 1000
        return min(left, LOOK_S)

    async def _settle_all(self, rows: Sequence[ScheduleRow], now: int) -> dict[str, bool]:
        """Settle schedules for a while, a few at once, one at a time for each payer; give by sid what `_settle` gave.

        Raises:
            KodoError: the first that one met with, once the others are through.
        """
        lines: dict[str, list[ScheduleRow]] = {}
        for row in rows:
            lines.setdefault(row.payer, []).append(row)
        settled: dict[str, bool] = {}
        failed: list[KodoError] = []
        places, begun = asyncio.Semaphore(_AT_ONCE), self._clock.steady_ms()

        async def serve(line: Sequence[ScheduleRow]) -> None:
            for number, row in enumerate(line):
                async with places:
                    # Each payer has one at least: else those whose checks take long were the first again and again.
                    if failed or (number and self._clock.steady_ms() - begun > _LOOK_MS):
                        return
                    try:
                        settled[row.sid] = await self._settle(row, now)
                    except KodoError as error:
                        failed.append(error)

        async with asyncio.TaskGroup() as group:
            for payer, line in lines.items():
                group.create_task(serve(line), context=line_for(payer))
        if failed:
            raise failed[0]
        return settled

    async def _settle(self, row: ScheduleRow, now: int) -> bool:
        """Do what a time that came asks for; whether that is done, and need not be tried again."""
        assert row.due is not None
        if row.missed == "skip" and not row.waits and self._since - row.due > LATE_MS:
            return await self._move(row, now, "missed")
        earlier = self._running(row.sid)
        if earlier is not None and row.overlap != "allow":
            if row.overlap == "skip":
                return await self._move(row, now, f"skipped: the run {earlier} went on")
            return await self._hold(row, f"waits for the run {earlier}")
        try:
            fid = await self._launch(row, now)
        except CallError as error:
            if error.code in _LATER:
                return await self._hold(row, f"waits: {error.message}")
            return await self._move(row, now, f"{error.reason}: {error.message}")
        # Where a run of this key was there already, the time has not been moved with it.
        await self._move(row, now, None, fid=fid)
        return True

    async def _launch(self, row: ScheduleRow, now: int) -> str:
        """Launch a run for the time at which a schedule is due.

        Raises:
            CallError: it is refused; 503 `login-needed` while nobody can tell what its owner may do.
        """
        principal = await self._provider.present(row.principal)
        if principal is None:
            raise CallError(503, "login-needed", "its owner has not been here since the node was started")
        if not principal.enters(self._node):
            raise CallError(403, "not-admitted", "its owner may not use this node any more")
        flow = self._catalog.find(path=row.path, granted=lambda path: principal.flow_grant(path, "r") is not None)
        following = timing_of(row).after(now)

        def also(connection: sqlite3.Connection, fid: str) -> None:
            if not schedule_rows.move(connection, row, following, fid=fid, reason=None):
                raise CallError(409, "changed", "the schedule was changed meanwhile")

        fid, _ = await self._launcher.start(
            principal,
            row.payer,
            flow,
            row.inputs,
            tags=tuple(row.tags),
            key=f"schedule/{row.sid}/{row.due}",
            strict=True,
            about={"schedule": {"sid": row.sid, "due": row.due}},
            also=also,
        )
        return fid

    def _running(self, sid: str) -> str | None:
        """Return the fid of a run of a schedule that is not over."""
        for fid, live in self._runs.live.items():
            told = live.view.flow.get("schedule")
            if not live.view.state.over and isinstance(told, dict) and told.get("sid") == sid:
                return fid
        return None

    async def _move(self, row: ScheduleRow, now: int, reason: str | None, fid: str | None = None) -> bool:
        following = timing_of(row).after(now)
        shown = None if reason is None else reason[:500]
        await self._store.change(
            lambda connection: schedule_rows.move(connection, row, following, fid=fid, reason=shown)
        )
        if following is None:
            # It may have been paused meanwhile, and is due for the last time when it goes on.
            left = await self.get(row.sid)
            if left is None or left.due is None:
                self._files.pop(row.sid, None)
        return True

    async def _hold(self, row: ScheduleRow, reason: str) -> bool:
        if not row.waits or row.last_reason != reason[:500]:
            await self._store.change(lambda connection: schedule_rows.hold(connection, row, reason[:500]))
        return False
