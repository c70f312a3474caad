"""What is done about runs that are over: acknowledged, deleted without a trace.

    delete: rows overwritten (`secure_delete`) ─► followers told ─► files removed ─► write-ahead log cut to nothing
                                                                                      └─ again and again until it is

A crash on the way leaves a log that was not cut, which the next start does, and perhaps files without a run,
for housekeeping.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kodo.node.files.outputs import Outputs
from kodo.node.housekeeping import cleanup
from kodo.node.housekeeping.cleanup import Chore
from kodo.node.housekeeping.housekeeping import Housekeeping
from kodo.node.runs.launch import bad_state, disk_full
from kodo.node.runs.runs import Runs
from kodo.node.store import queries
from kodo.node.store.rows import NewEvent, RunNotOverError, RunOverError
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, NotFoundError
from kodo.protocol.events import RunState

__all__ = ["Manager"]

logger = logging.getLogger(__name__)

_RETIRE_S = 30.0
"""Seconds that a run which is over may take to let go of its runner before it can be deleted."""

_SCRUB_TRIES = 10
"""How often a deletion tries to cut the write-ahead log before it answers; afterwards it goes on by itself."""


async def _nothing() -> Mapping[str, int]:
    return {}


class Manager:
    """Acknowledges and deletes. Enter `runs` first.

    Args:
        retention_s: how long a run stays when it was acknowledged.
        unread_s: how long one that is over stays when nobody acknowledged it; None: for ever, as somebody may still
            want what it made.
        housekeeping_s: seconds between two rounds of housekeeping.
        more: what else housekeeping looks after.
        forget: removes what else there is of a run that is deleted.
        besides: gives the bytes of that, by fid.
    """

    def __init__(
        self,
        store: Store,
        runs: Runs,
        outputs: Outputs,
        *,
        retention_s: float = 7 * 86400.0,
        unread_s: float | None = None,
        housekeeping_s: float = 600.0,
        forget: Callable[[str], Awaitable[None]] | None = None,
        besides: Callable[[], Awaitable[Mapping[str, int]]] = _nothing,
        more: Sequence[Chore] = (),
    ):
        kinds: list[Chore] = [cleanup.Runs("run", store, self._delete_obsolete, retention_s, besides)]
        if unread_s is not None:
            kinds.append(cleanup.Runs("unread", store, self._delete_obsolete, unread_s, besides))
        kinds += [
            cleanup.LostFiles(store, outputs),
            cleanup.Parts(outputs),
            cleanup.Keys(store),
            cleanup.Shares(store),
        ]
        self.housekeeping = Housekeeping(store, [*kinds, *more], runs.clock, interval_s=housekeeping_s)
        self._store = store
        self._runs = runs
        self._outputs = outputs
        self._forget = forget
        self._scrubbing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Cut the write-ahead log that an earlier process left, and begin to keep house."""
        self._scrub_later()
        self._runs.spawn(self.housekeeping.keep)

    async def acknowledge(self, fid: str, by: str) -> RunState:
        """Note that the run's outcome was received; a second time changes nothing.

        Raises:
            CallError: 400 `bad-state` when it is not over, 404 `no-such-run`, 507 `disk-full`.
        """
        row = await self._store.run(fid)
        if row is None:
            raise CallError(404, "no-such-run", "there is no such run")
        if not row.state.over:
            raise bad_state("acknowledge", row.state)
        try:
            await self._store.append(fid, [NewEvent.make("acknowledge", {"by": by})])
        except (NotFoundError, RunOverError):
            raise CallError(404, "no-such-run", "there is no such run") from None
        except CapacityError as error:
            raise disk_full(error) from None
        return row.state

    async def largest(self, count: int) -> list[dict[str, Any]]:
        """Return the finished runs that take most; see `queries.largest`."""
        now = self._runs.clock.now_ms()
        return await self._store.ask(lambda connection: queries.largest(connection, count, now))

    async def delete(self, fid: str) -> bool:
        """Remove everything about a run that is over; cancelling does not undo it.

        Gives whether the disk holds nothing of it any more. False: somebody was reading the log for so long that it
        could not be cut yet; that is tried again until it is done.

        Raises:
            CallError: 400 `bad-state` when it is not over, 404 `no-such-run`, 507 `disk-full`.
        """
        return await self._runs.undisturbed(lambda: self._delete(fid))

    async def _delete_obsolete(self, fid: str) -> bool:
        """Remove a run that was found to be obsolete, unless it has been shared since."""
        return await self._delete(fid, unless_shared=True)

    async def _delete(self, fid: str, *, unless_shared: bool = False) -> bool:
        live = self._runs.live.get(fid)
        if live is not None and live.view.state.over and live.driver is not None:
            # Its runner still holds files of the run.
            await asyncio.wait([live.driver], timeout=_RETIRE_S)
        try:
            await self._store.delete(fid, unless_shared=unless_shared)
        except RunNotOverError as error:
            raise bad_state("delete", error.state) from None
        except NotFoundError:
            raise CallError(404, "no-such-run", "there is no such run") from None
        except CapacityError as error:
            raise disk_full(error) from None
        try:
            if self._forget is not None:
                await self._forget(fid)
            await self._outputs.remove(fid)
        except CapacityError as error:
            logger.error("%s; housekeeping tries again", error)
        for _ in range(_SCRUB_TRIES):
            if await self._store.scrub():
                return True
        self._scrub_later()
        return False

    def _scrub_later(self) -> None:
        if self._scrubbing is None or self._scrubbing.done():
            self._scrubbing = self._runs.spawn(self._scrub)

    async def _scrub(self) -> None:
        pause = 0.5
        while not await self._store.scrub():
            await self._runs.clock.sleep(pause)
            pause = min(pause * 2, 30.0)
