"""What this node owes others: the runs that its own runs launched there are to be ended when those are over.

Noted in the database before the first launch at a node, and forgotten when that node has been told. So no run is left
behind elsewhere: not when this node dies between the launch and its answer, nor when the run that launched it dies
with this node, nor when the other node is away just then, in which case it is asked again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import Enum
from functools import partial
from typing import NamedTuple

from kodo.node.clock import Clock, wait_or_sleep
from kodo.node.runs.tasks import Tasks
from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit
from kodo.p2p.errors import CallError, DeadlineError, KodoError, NetworkError

__all__ = ["Debt", "Debts"]

logger = logging.getLogger(__name__)

_TRY_S = 30.0
_PAUSE_S = 2.0
_MOST_PAUSE_S = 600.0

_UNSURE_MS = 10_000
"""How long a launch that was cut off may still come to something on the other node."""

_KEPT_MS = 30 * 86_400_000
"""How old a debt becomes whose node stays away or refuses."""


class Debt(NamedTuple):
    """Runs of the node `peer_id`, found at `reach`, that the run `fid` launched; noted `at` (ms UTC)."""

    fid: str
    peer_id: str
    reach: str
    at: int


class _Outcome(Enum):
    """What became of trying to settle a debt."""

    SETTLED = "settled"
    UNSETTLED = "unsettled"
    AWAY = "away"


class Debts:
    """Keeps and settles them; inside of the store's `async with`.

    Args:
        settle: ends what there is of a debt on the other node.
    """

    def __init__(self, store: Store, clock: Clock, settle: Callable[[Debt], Awaitable[None]]):
        self._store = store
        self._clock = clock
        self._settle = settle
        self._tasks = Tasks()
        self._owed: dict[str, dict[str, Debt]] = {}
        self._noted: set[Debt] = set()
        self._over: set[str] = set()
        self._launching: Counter[str] = Counter()
        self._unsure: dict[str, int] = {}
        self._payers: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    @contextlib.asynccontextmanager
    async def open(self, *, wait_s: float) -> AsyncIterator[None]:
        """Settle what an earlier process left, and then what comes; at the end wait so long for what is due."""
        await self._tasks.open()
        try:
            for debt in await self._store.ask(_all):
                self._owed.setdefault(debt.peer_id, {})[debt.fid] = debt
                self._noted.add(debt)
                if await self._is_over(debt.fid):
                    self._over.add(debt.fid)
            self._store.subscribe(self._committed)
            self._pay()
            yield
            if self._payers:
                await asyncio.wait([task for _, task in self._payers.values()], timeout=wait_s)
        finally:
            await self._tasks.aclose()

    @contextlib.asynccontextmanager
    async def launching(self, fid: str, peer_id: str, reach: str) -> AsyncIterator[None]:
        """Launch, inside of the block, something on the node `peer_id` for the run `fid`.

        Raises:
            CallError: 409 `over`: the run has ended, so it launches nothing more.
            CapacityError: the disk does not take the note.
        """
        debt = self._owed.setdefault(peer_id, {}).setdefault(fid, Debt(fid, peer_id, reach, self._clock.now_ms()))
        self._launching[fid] += 1
        try:
            if debt not in self._noted:
                await self._store.write(lambda transaction: transaction.change(lambda tables: _note(tables, debt)))
                self._noted.add(debt)
            if await self._is_over(fid):
                self._over.add(fid)
                raise CallError(409, "over", "the run that would launch this has ended")
            yield
        except BaseException as error:
            if not isinstance(error, CallError) or error.code >= 500:
                self._unsure[fid] = self._clock.steady_ms() + _UNSURE_MS
            raise
        finally:
            self._launching[fid] -= 1
            if not self._launching[fid]:
                del self._launching[fid]
            self._pay()

    # --- inside ---

    async def _is_over(self, fid: str) -> bool:
        row = await self._store.run(fid)
        return row is None or row.state.over

    def _committed(self, commit: Commit) -> None:
        if commit.state.over and any(commit.fid in debts for debts in self._owed.values()):
            self._over.add(commit.fid)
            self._pay()

    def _due(self, peer_id: str) -> list[Debt]:
        owed = self._owed.get(peer_id, {}).values()
        return [debt for debt in owed if debt.fid in self._over and not self._launching[debt.fid]]

    def _pay(self) -> None:
        """Inform every node to which something is due, each by a task of its own."""
        for peer_id in self._owed:
            if not self._due(peer_id) or not self._tasks.is_open:
                continue
            if peer_id in self._payers:
                self._payers[peer_id][0].set()
            else:
                news = asyncio.Event()
                self._payers[peer_id] = news, self._tasks.spawn(partial(self._settle_with, peer_id, news))

    async def _settle_with(self, peer_id: str, news: asyncio.Event) -> None:
        """Settle what is due to one node: what fails is tried again after a pause, what comes meanwhile at once."""
        pause, again_at = _PAUSE_S, 0
        failed: dict[Debt, _Outcome] = {}
        tries: Counter[Debt] = Counter()
        try:
            while due := self._due(peer_id):
                news.clear()
                if fresh := [debt for debt in due if debt not in failed]:
                    await self._try_each(sorted(fresh, key=tries.__getitem__), failed, tries)
                    again_at = again_at or self._clock.steady_ms() + round(pause * 1000)
                    continue
                left = again_at - self._clock.steady_ms()
                if left <= 0:
                    failed.clear()
                    again_at, pause = 0, min(pause * 2, _MOST_PAUSE_S)
                else:
                    await wait_or_sleep(self._clock, news, left / 1000)
        finally:
            del self._payers[peer_id]

    async def _try_each(self, debts: Sequence[Debt], failed: dict[Debt, _Outcome], tries: Counter[Debt]) -> None:
        """Try each of `debts` once, whatever becomes of the others; `failed` gets those that are not settled.

        Where nobody answered just now nobody waits a second time: those that were left out are the first next time.
        """
        away: set[str] = set()
        for debt in debts:
            if debt.reach in away:
                failed[debt] = _Outcome.AWAY
                continue
            tries[debt] += 1
            outcome = await self._try(debt)
            if outcome is _Outcome.SETTLED:
                away.discard(debt.reach)
                for other in [other for other, how in failed.items() if how is _Outcome.AWAY]:
                    if other.reach == debt.reach:
                        del failed[other]
            else:
                failed[debt] = outcome
                if outcome is _Outcome.AWAY:
                    away.add(debt.reach)

    async def _try(self, debt: Debt) -> _Outcome:
        """Settle one."""
        try:
            async with asyncio.timeout(_TRY_S):
                await self._settle(debt)
            if self._unsure.get(debt.fid, 0) > self._clock.steady_ms():
                return _Outcome.UNSETTLED
            await self._forget(debt)
        except (KodoError, TimeoutError) as error:
            away = isinstance(error, (NetworkError, DeadlineError, TimeoutError))
            old = self._clock.now_ms() - debt.at > _KEPT_MS
            what = "is left there" if old else "is not ended yet"
            logger.warning("what the run %s launched on %s %s: %s", debt.fid, debt.peer_id, what, error)
            if old:
                with contextlib.suppress(KodoError):
                    await self._forget(debt)
                    return _Outcome.SETTLED
            return _Outcome.AWAY if away else _Outcome.UNSETTLED
        except Exception as error:
            logger.error("ending what the run %s launched failed: %s", debt.fid, type(error).__name__)
            return _Outcome.UNSETTLED
        return _Outcome.SETTLED

    async def _forget(self, debt: Debt) -> None:
        await self._store.write(lambda transaction: transaction.change(lambda tables: _strike(tables, debt)))
        self._noted.discard(debt)
        owed = self._owed[debt.peer_id]
        del owed[debt.fid]
        if not owed:
            del self._owed[debt.peer_id]
        if not any(debt.fid in debts for debts in self._owed.values()):
            self._over.discard(debt.fid)
            self._unsure.pop(debt.fid, None)


def _all(tables: sqlite3.Connection) -> list[Debt]:
    return [Debt(*row) for row in tables.execute("SELECT fid, peer_id, reach, at FROM debts ORDER BY at")]


def _note(tables: sqlite3.Connection, debt: Debt) -> None:
    tables.execute("INSERT OR IGNORE INTO debts (fid, peer_id, reach, at) VALUES (?, ?, ?, ?)", debt)


def _strike(tables: sqlite3.Connection, debt: Debt) -> None:
    tables.execute("DELETE FROM debts WHERE fid=? AND peer_id=?", (debt.fid, debt.peer_id))
