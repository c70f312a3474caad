"""Launches: each is checked against the node's bounds and stored, once for each key, before anybody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, MutableMapping
from functools import partial
from typing import Any

from kodo.access.places import fair_share
from kodo.node.clock import Clock
from kodo.node.files.outputs import Outputs
from kodo.node.runs.driver import Driver
from kodo.node.runs.fatals import node_fatal
from kodo.node.runs.launch import Order, RunSettings, disk_full, stopping, too_large
from kodo.node.runs.live import LiveRun
from kodo.node.runs.pump import Pump
from kodo.node.runs.run_secrets import RunSecrets
from kodo.node.runs.tasks import Tasks
from kodo.node.store.rows import KEY_REUSED, KeyReusedError, NewEvent, NewRun, OnceKey
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.events import RunState, RunView

__all__ = ["Creation"]


class Creation:
    """Makes runs of orders, and has them driven.

    Args:
        new_id: gives a fresh fid or lid.
        live: the runs that are not over, by fid; a run counts from the moment it is accepted.
        is_stopping: whether no more launches are taken.
    """

    def __init__(
        self,
        store: Store,
        outputs: Outputs,
        *,
        new_id: Callable[[], str],
        clock: Clock,
        settings: RunSettings,
        live: MutableMapping[str, LiveRun],
        secrets: RunSecrets,
        pump: Pump,
        driver: Driver,
        tasks: Tasks,
        is_stopping: Callable[[], bool],
    ):
        self._store = store
        self._outputs = outputs
        self._new_id = new_id
        self._clock = clock
        self._settings = settings
        self._live = live
        self._secrets = secrets
        self._pump = pump
        self._driver = driver
        self._tasks = tasks
        self._is_stopping = is_stopping
        self._keyed: dict[tuple[str, str], asyncio.Event] = {}

    async def launch(self, order: Order) -> tuple[str, RunState]:
        """Store a run and have it started: see `Runs.launch`."""
        if self._is_stopping():
            raise stopping()
        fid = self._new_id()
        try:
            first = order.first_events(self._settings.versions, self._new_id)
            digest = self._secrets.digest([order.path, order.inputs], order.secrets)
        except ValueError as error:
            raise too_large(error) from None
        run = order.new_run(fid, self._settings)
        key = None if order.key is None else OnceKey(order.principal, f"launch/{order.key}", fid, digest)
        return await self._tasks.undisturbed(lambda: self._launch(run, first, key, order))

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
        if order.check is not None:
            self._check_limit(order)  # spares the author's check
            await order.check()
            if self._is_stopping():
                raise stopping()
        # No await from here until it counts itself: others are launched meanwhile.
        live = LiveRun(run.stored(self._clock.now_ms()), code=order.code)
        self._check_limit(order)
        self._check_room(live.payer)
        self._live[run.fid] = live
        try:
            await self._secrets.put(run.fid, order.secrets)
            created = await self._store.create(run, first, key, order.also, order.then)
        except KeyReusedError as error:
            self._live.pop(run.fid, None)
            await self._secrets.forget(run.fid)
            raise CallError(409, "key-reused", str(error)) from None
        except CapacityError as error:
            self._live.pop(run.fid, None)
            self._tasks.spawn(partial(self._make_sure, run.fid, wanted=key is not None))
            raise disk_full(error) from None
        except BaseException as error:
            self._live.pop(run.fid, None)
            if isinstance(error, Exception):
                await self._secrets.forget(run.fid)
            raise
        if created.fresh:
            self._driver.drive(live)
            return run.fid, live.view.state
        self._live.pop(run.fid, None)
        await self._secrets.forget(run.fid)
        return await self._earlier(created.fid)

    async def _make_sure(self, fid: str, *, wanted: bool) -> None:
        """See to a run whose creation failed, for the case that it is stored nevertheless.

        Who launched it with a key asks again, and gets it; else it must not run, since its launch was refused.
        """
        await self._pump.patiently(self._store.settle)
        row = await self._store.run(fid)
        if row is None:
            await self._secrets.forget(fid)
        if row is None or fid in self._live:
            return
        live = self._live[fid] = LiveRun(row, await self._store.view(fid) or RunView())
        live.lids.update(live.view.locks)
        if wanted:
            self._driver.drive(live)
        else:
            await self._driver.end(
                live, node_fatal("NotStarted", "its launch was refused: the disk failed meanwhile")
            )

    def _unfinished(self) -> Collection[LiveRun]:
        """Return the runs whose end nobody was told yet; of the others some only let go of their processes."""
        return [live for live in self._live.values() if not live.view.state.over]

    def _check_limit(self, order: Order) -> None:
        limit = order.limit
        if limit is not None and sum(live.row.path == order.path for live in self._unfinished()) >= limit:
            raise _busy(f"{order.path} has {limit} unfinished runs, its limit")

    def _check_room(self, payer: str) -> None:
        unfinished = self._unfinished()
        most, total = self._settings.max_live, len(unfinished)
        if total >= most:
            raise _busy(f"this node has {most} unfinished runs and takes no more; try again when some have ended")
        mine = sum(live.payer == payer for live in unfinished)
        if mine >= fair_share(most, total - mine, self._settings.max_live_each):
            raise _busy(
                f"you have {mine} unfinished runs on this node, which has {total} in all: your share is used;"
                " end some, or try again later"
            )
        try:
            self._outputs.check_room()
        except CapacityError as error:
            raise disk_full(error) from None


def _busy(message: str) -> CallError:
    again: dict[str, Any] = {"retry_after_ms": 1000}
    return CallError(429, "busy", message, again)
