"""Notices, from the log to their targets: each kept in the database until its target took it.

    transaction of an event ─► in it, a row for each target ─► sent, one after the other ─► row gone
                                                                │
        not taken: this notice is put off; nobody answers: the target is left alone for a while

A notice is sent at least once, in the order of the log unless it was put off. What no target took for `KEPT_MS` goes,
and so do the oldest of more than `MAX_QUEUED`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from kodo.node.clock import Clock, wait_or_sleep
from kodo.node.runs.tasks import Tasks
from kodo.node.store import notice_rows
from kodo.node.store.notice_rows import NoticeRow
from kodo.node.store.store import Store
from kodo.node.store.transaction import Transaction
from kodo.node.webhooks.notices import Source, notices_of
from kodo.node.webhooks.targets import NotTakenError, Target
from kodo.p2p.errors import KodoError

__all__ = ["KEPT_MS", "Webhooks"]

logger = logging.getLogger(__name__)

KEPT_MS = 3 * 86_400_000
"""How long a notice is tried."""

_PAUSE_S = 5.0
_MOST_PAUSE_S = 600.0
_DEAD = 3
"""After so many failures in a row a target is told to be failing."""

_LOOK_S = 3600.0
"""The longest sleep: the clock on the wall may be set."""


@dataclass(slots=True)
class _State:
    """How it goes with one target. `failures`: in a row; `since`: of the first of them, ms UTC."""

    news: asyncio.Event
    failures: int = 0
    since: int | None = None
    why: str = ""


class Webhooks:
    """Sends notices while it is open; `async with`, inside of the store's.

    Args:
        chance: gives numbers from 0 to 1, by which tries of many nodes spread.
    """

    def __init__(
        self, store: Store, source: Source, targets: Sequence[Target], clock: Clock, chance: Callable[[], float]
    ):
        self._store = store
        self._source = source
        self._targets = targets
        self._clock = clock
        self._chance = chance
        self._tasks = Tasks()
        self._states = {target.key: _State(asyncio.Event()) for target in targets}
        self._dropped = 0

    async def __aenter__(self) -> Self:
        """Take note of what happens from now on, and send what is left from before.

        Raises:
            CapacityError: the disk takes nothing.
        """
        keys = list(self._states)
        if await self._store.ask(notice_rows.waiting):
            await self._store.change(lambda connection: notice_rows.keep_only(connection, keys))
        if self._targets:
            self._store.before_commit(self._note)
        await self._tasks.open()
        for target in self._targets:
            self._tasks.spawn(partial(self._serve, target))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sending; what is left is sent after the next start."""
        await self._tasks.aclose()

    async def state(self) -> list[dict[str, Any]]:
        """Return how it goes with each target: `key, target, queued, oldest?, why?, failing_since?`.

        Times are ms UTC.
        """
        waiting = await self._store.ask(notice_rows.waiting) if self._targets else {}
        told = []
        for target in self._targets:
            state, waits = self._states[target.key], waiting.get(target.key, notice_rows.Waiting(0, None))
            row: dict[str, Any] = {"key": target.key, "target": target.shown, "queued": waits.amount}
            if waits.oldest is not None:
                row["oldest"] = waits.oldest
            if state.failures:
                row["why"] = state.why
            if state.failures >= _DEAD:
                row["failing_since"] = state.since
            told.append(row)
        return told

    # --- inside ---

    def _note(self, tx: Transaction) -> Callable[[], None] | None:
        """Keep what is to be told of a transaction, inside of it. Called in the writer's thread."""
        notices = notices_of(self._source, tx.connection, tx.commits, tx.downloads, tx.now)
        if not notices:
            return None
        dropped = notice_rows.add(tx.connection, list(self._states), tx.now, notices)
        if dropped and not self._dropped:
            logger.warning("more than %d notices wait for a target; the oldest go", notice_rows.MAX_QUEUED)
        self._dropped += dropped
        return self._wake

    def _wake(self) -> None:
        for state in self._states.values():
            state.news.set()

    async def _serve(self, target: Target) -> None:
        """Send to one target, one notice after the other, for as long as the node runs."""
        state = self._states[target.key]
        while True:
            try:
                pause = await self._step(target, state)
            except KodoError as error:
                logger.warning("notices for %s wait: %s", target.shown, error)
                pause = _PAUSE_S
            if pause:
                await self._clock.sleep(pause)

    async def _step(self, target: Target, state: _State) -> float:
        """Send the next notice, or wait for one; return for how long the target is to be left alone, in seconds."""
        state.news.clear()
        row = await self._store.ask(lambda connection: notice_rows.next_due(connection, target.key))
        now = self._clock.now_ms()
        if row is None or row.due > now:
            left = _LOOK_S if row is None else min((row.due - now) / 1000, _LOOK_S)
            await wait_or_sleep(self._clock, state.news, left)
            return 0.0
        if row.at < now - KEPT_MS:
            gone = await self._store.change(
                lambda connection: notice_rows.drop_old(connection, target.key, now - KEPT_MS)
            )
            logger.error("%d notices were never taken by %s and are given up", gone, target.shown)
            return 0.0
        try:
            await target.send(row.event, json.loads(row.event)["id"], now)
        except NotTakenError as error:
            return await self._failed(target, state, row, error)
        if state.failures:
            logger.info("%s takes notices again", target.shown)
        state.failures, state.since, state.why = 0, None, ""
        await self._store.change(lambda connection: notice_rows.drop(connection, row))
        return 0.0

    async def _failed(self, target: Target, state: _State, row: NoticeRow, error: NotTakenError) -> float:
        now = self._clock.now_ms()
        state.failures += 1
        state.since = state.since or now
        if str(error) != state.why:
            logger.warning("%s did not take a notice, which is tried again: %s", target.shown, error)
        state.why = str(error)
        if not error.answered:
            return self._pause(state.failures)
        # It may be this one that is not liked: others have their turn.
        due = now + round(self._pause(row.tries + 1) * 1000)
        with contextlib.suppress(KodoError):
            await self._store.change(lambda connection: notice_rows.put_off(connection, row, due))
        return max(error.wait_s, self._pause(state.failures))

    def _pause(self, failures: int) -> float:
        longest: float = min(_PAUSE_S * 2 ** min(failures - 1, 10), _MOST_PAUSE_S)
        return longest * (0.75 + 0.5 * self._chance())
