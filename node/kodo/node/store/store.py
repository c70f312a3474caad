"""The event log: everything that a node must not forget, in one SQLite file.

One thread writes, and all that waits for it shares a transaction; a few others read, each from one moment's state.
Readers and the writer do not wait for each other, and the event loop waits for neither (`kodo.sqlite`).

Nothing is told to anybody before it is committed: `append` answers, and subscribers are called, afterwards, on the
event loop, in the order of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kodo.node.clock import Clock, SystemClock
from kodo.node.store import queries
from kodo.node.store.queries import Page, RunFilter
from kodo.node.store.rows import Created, NewEvent, NewRun, OnceKey, OutputRow, RunRow
from kodo.node.store.schema import NODE_FILE
from kodo.node.store.transaction import KEY_LIFE_MS, Commit, Heads, Transaction
from kodo.p2p.errors import KodoError, UsageError
from kodo.protocol.events import Event, RunView
from kodo.protocol.room import ENDLESS, Room
from kodo.sqlite.faults import translate
from kodo.sqlite.file import database_bytes, truncate_wal, unfolded_bytes
from kodo.sqlite.readers import Readers
from kodo.sqlite.writer import GroupWriter, Unit

__all__ = ["FROM_RESERVE", "Store"]

_READERS = 4
FROM_RESERVE = frozenset(["acknowledge", "fatal", "final", "kill", "lock-timeout", "unlock-timeout", "wait"])
"""Events that are stored although only the reserve of the disk is left: they end things, or say why not."""

_LOG_FACTOR = 2
"""What is stored lies in the write-ahead log too, until that is folded into the file."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Transaction], Any]
LastWork = Callable[[Transaction], Callable[[], None] | None]


class Store:
    """The open event log; `async with` opens and closes it.

    Args:
        path: the database file; made on first use, mode 0600.
        clock: gives events their `at`.
        max_bytes: bound of the file's size; None: the disk's.
        room: on its disk; what ends runs is stored without asking for it.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, max_bytes: int | None = None, room: Room = ENDLESS):
        self.path = path
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._room = room
        self._subscribers: list[Callable[[Commit], None]] = []
        self._last_works: list[LastWork] = []
        self._writer = GroupWriter(self._open_writer, self._begin, name="kodo-write")
        self._readers = Readers(lambda: NODE_FILE.open_reader(path), _READERS, name="kodo-read")
        self._opened = False
        self._heads: Heads = Heads()
        self._unsure: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            UsageError: when it is not ours, damaged, or of a newer kodo.
            CapacityError: when the disk takes nothing.
        """
        with self._translated():
            await asyncio.to_thread(self._open)
        self._opened = True
        return self

    def _open(self) -> None:
        try:
            self._writer.open()
            self._readers.open()
        except BaseException:
            self._writer.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what waits and close the file."""
        await self.aclose()

    async def aclose(self) -> None:
        """Commit what waits and close the file; idempotent."""
        opened, self._opened = self._opened, False
        if opened:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.stop()
        self._readers.close()
        self._writer.close()

    @property
    def taken(self) -> int:
        """The bytes of the file and its write-ahead log."""
        return database_bytes(self.path)

    @property
    def unfolded(self) -> int:
        """The bytes of the write-ahead log, which will be folded into the file."""
        return unfolded_bytes(self.path)

    def subscribe(self, subscriber: Callable[[Commit], None]) -> None:
        """Call `subscriber` on the event loop after each commit, in the log's order. It must not block."""
        self._subscribers.append(subscriber)

    def before_commit(self, work: LastWork) -> None:
        """Call `work` in the writer's thread at the end of each transaction, which what it writes belongs to.

        What it returns is called on the event loop once that is committed. It must not block.
        """
        self._last_works.append(work)

    # --- writing ---

    async def create(
        self,
        run: NewRun,
        events: Sequence[NewEvent],
        key: OnceKey | None = None,
        also: Callable[[sqlite3.Connection, str], None] | None = None,
        then: Callable[[Transaction, str], None] | None = None,
    ) -> Created:
        """Store a run together with its first events; with a `key` seen before, nothing, and its run is named.

        `also` changes other tables in the same transaction, given the run's fid; what it raises refuses the run.
        `then` writes what needs the run to be there, in that transaction, too; it must not raise.

        When the wait is cancelled the run may be stored nevertheless.

        Raises:
            KeyReusedError: the key came with other contents within 24 h.
            CapacityError: the disk takes no more; nothing was stored.
        """

        def work(tx: Transaction) -> Created:
            earlier = None if key is None else tx.earlier(key)
            if earlier is not None:
                return Created(earlier, False)
            if also is not None:
                tx.change(lambda connection: also(connection, run.fid))
            created = tx.create(run, events, key)
            if then is not None:
                then(tx, run.fid)
            return created

        created: Created = await self._write(work, _size_of(events))
        return created

    async def append(self, fid: str, events: Sequence[NewEvent], *, outputs: Sequence[OutputRow] = ()) -> list[Event]:
        """Store events and the outputs that they name; give back, numbered, those that were not stored before.

        When the wait is cancelled they may be stored nevertheless.

        Raises:
            NotFoundError: no such run.
            RunOverError: the run is over; nothing was stored.
            CapacityError: the disk takes no more; nothing was stored.
        """
        stored: list[Event] = await self._write(lambda tx: tx.append(fid, events, outputs, None), _size_of(events))
        return stored

    async def append_once(self, fid: str, events: Sequence[NewEvent], key: OnceKey) -> str | None:
        """Store events unless `key` was used within 24 h; then give the value that it was used with.

        Raises:
            KeyReusedError, NotFoundError, RunOverError, CapacityError: as `create` and `append`.
        """
        answer = await self._write(lambda tx: tx.append(fid, events, (), key), _size_of(events))
        return answer if isinstance(answer, str) else None

    async def delete(self, fid: str, *, unless_shared: bool = False) -> None:
        """Remove a run that is over, all its rows overwritten; `scrub` afterwards cleans the write-ahead log too.

        Raises:
            NotFoundError: no such run.
            RunNotOverError: it is not over; nothing was removed.
            RunSharedError: with `unless_shared`, it has a live share; nothing was removed.
            CapacityError: the disk takes no more; nothing was removed.
        """
        await self._write(lambda tx: tx.delete(fid, unless_shared=unless_shared))

    async def scrub(self) -> bool:
        """Cut the write-ahead log to nothing, where what was deleted may still stand; say whether that was possible.

        A reader in the midst of its work, or a full disk, prevents it: try again later.
        """
        return await asyncio.to_thread(truncate_wal, self.path)

    async def settle(self) -> None:
        """Write nothing, and so find out what of an earlier write that failed is stored: subscribers are told.

        Raises:
            CapacityError: that cannot be found out now.
        """
        await self._write(lambda tx: None)

    async def hand(self, fid: str) -> None:
        """Note, durably, that an executor may have started the run."""
        await self._write(lambda tx: tx.hand(fid))

    async def change(self, work: Callable[[sqlite3.Connection], T], size: int = 0) -> T:
        """Do `work` on other tables of the file, whole or not at all; it may be done again when the disk refused.

        Args:
            size: the bytes that it stores where there is room for them only; 0: it needs next to none.

        Raises:
            CapacityError: the disk takes no more, or there is no room; nothing was changed.
        """
        changed: T = await self._write(lambda tx: tx.change(work), _LOG_FACTOR * size)
        return changed

    async def published(self, releases: Sequence[tuple[str, str]]) -> list[int]:
        """Return, for each (path, release), when this node first offered it, ms UTC."""
        times: list[int] = await self._write(lambda tx: tx.published(releases))
        return times

    async def count(self, name: str) -> int:
        """Return the next number of a counter that never falls, also over restarts."""
        value: int = await self._write(lambda tx: tx.count(name))
        return value

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Do `work` in the writer's next transaction; give its answer once that is committed.

        `work` refuses, by a `KodoError`, before it has written anything, or does all it was asked. When the wait is
        cancelled it may be done nevertheless.

        Raises:
            KodoError: what `work` refused with.
            CapacityError: the disk takes no more; nothing was stored.
        """
        done: T = await self._write(work)
        return done

    async def _write(self, work: Work, size: int = 0) -> Any:
        """Do `work`; `size`: the bytes that it may only store where there is room for them."""
        self._check_open()
        with self._translated():
            if not size:
                return await self._writer.do(work)
            with self._room.promise(size) as promise, promise.writing(size):
                return await self._writer.do(work)

    def _check_open(self) -> None:
        if not self._opened:
            raise UsageError(f"the store {self.path} is not open")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what SQLite refuses as an error of ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self.path, remedy=NODE_FILE.elsewhere) from error

    # --- reading ---

    async def run(self, fid: str) -> RunRow | None:
        """Return one run, or None when there is none."""
        return await self._read(lambda connection: queries.run(connection, fid))

    async def runs(self, chosen: RunFilter, *, p: int = 1, pp: int = 100) -> Page:
        """Return page `p` (from 1) of `pp` runs, the latest first, with the counts of all and of the chosen ones."""
        return await self._read(lambda connection: queries.runs(connection, chosen, p, pp))

    async def inputs(self, fids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the inputs of these runs, by fid; secrets are hidden in them."""
        return await self._read(lambda connection: queries.inputs(connection, fids)) if fids else {}

    async def fatal_types(self, fids: Sequence[str]) -> dict[str, str]:
        """Return, by fid, the type of the error that ended each of these runs; those without one are left out."""
        return await self._read(lambda connection: queries.fatal_types(connection, fids)) if fids else {}

    async def said(self, fid: str) -> tuple[int, int]:
        """Count the events that a run has made, and their bytes, as its budget counts them."""
        return await self.ask(lambda connection: queries.said(connection, fid))

    async def unfinished(self) -> list[RunRow]:
        """Return all runs that are pending or locked, the oldest first."""
        return await self._read(queries.unfinished)

    async def events(
        self, fid: str, after: int = 0, *, limit: int = 1000, only: Sequence[str] | None = None
    ) -> list[Event]:
        """Return up to `limit` events with `seq` > `after`; of the names in `only`, if given. `[]` for no such run.

        An answer stops early at about 4 MiB; it holds at least one event if there is one.
        """
        return await self._read(lambda connection: queries.events(connection, fid, after, limit, only))

    async def packed_events(self, fid: str, after: int, *, limit: int) -> tuple[list[Event], list[bytes]]:
        """Return what `events` gives, and the data of each as msgpack."""
        return await self._read(lambda connection: queries.packed_events(connection, fid, after, limit))

    async def every(self, fid: str, only: Sequence[str]) -> list[Event]:
        """Return all events of the names in `only`: few by their nature, as those about locks are."""
        found: list[Event] = []
        while batch := await self.events(fid, found[-1].seq if found else 0, limit=10_000, only=only):
            found += batch
        return found

    async def view(self, fid: str) -> RunView | None:
        """Return what the run's events add up to, or None when there is no such run."""
        return await self._read(lambda connection: queries.view(connection, fid))

    async def outputs(self, fid: str, *, p: int = 1, pp: int = 100) -> tuple[int, list[OutputRow]]:
        """Return how many outputs the run has, and a page of them by name, without the hashes of their chunks."""
        return await self._read(lambda connection: queries.outputs(connection, fid, p, pp))

    async def output(self, fid: str, name: str) -> OutputRow | None:
        """Return one output, or None."""
        return await self._read(lambda connection: queries.output(connection, fid, name))

    async def once(self, principal: str, key: str) -> OnceKey | None:
        """Return what an idempotency key was used for, within the last 24 h."""
        now = self._clock.now_ms()
        return await self._read(lambda connection: queries.once(connection, principal, key, now - KEY_LIFE_MS))

    async def obsolete(self, before: int) -> list[tuple[str, int]]:
        """Return the runs acknowledged by `before` (ms UTC) without a live share: fid, bytes on the disk."""
        now = self._clock.now_ms()
        return await self._read(lambda connection: queries.obsolete(connection, before, now))

    async def unread(self, before: int) -> list[tuple[str, int]]:
        """Return the runs that ended at or before `before` (ms UTC) and were never acknowledged, as `obsolete`."""
        now = self._clock.now_ms()
        return await self._read(lambda connection: queries.unread(connection, before, now))

    async def old_keys(self, before: int) -> tuple[int, int]:
        """Return how many idempotency keys were used at or before `before` (ms UTC), and their bytes."""
        return await self._read(lambda connection: queries.old_keys(connection, before))

    async def forget_keys(self) -> None:
        """Remove idempotency keys that are older than their 24 h."""
        await self._write(lambda tx: tx.forget_keys())

    async def shrink(self) -> int:
        """Return free pages of the file to the disk, as far as it was made for that; give how many."""
        total = 0
        while count := int(await self._write(lambda tx: tx.shrink())):
            total += count
        return total

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read from other tables of the file."""
        return await self._read(work)

    async def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        with self._translated():
            return await self._readers.read(ask)

    # --- the writer thread ---

    def _open_writer(self) -> sqlite3.Connection:
        self._heads.clear()
        return NODE_FILE.open_writer(self.path, max_bytes=self._max_bytes)

    def _begin(self, connection: sqlite3.Connection) -> Unit[Transaction]:
        transaction = Transaction(connection, self._heads, self._clock.now_ms())
        return _LogUnit(
            transaction, _find_late(connection, self._unsure), self._unsure, self._subscribers, self._last_works
        )


class _LogUnit(Unit[Transaction]):
    """One transaction of the event log.

    Args:
        late: what is stored although its commit failed.
        unsure: by fid, the last event that followers were told of, where what came after it may be stored.
    """

    def __init__(
        self,
        transaction: Transaction,
        late: list[Commit],
        unsure: dict[str, int],
        subscribers: Sequence[Callable[[Commit], None]],
        last_works: Sequence[LastWork],
    ):
        super().__init__(transaction)
        self._late = late
        self._unsure = unsure
        self._subscribers = subscribers
        self._last_works = last_works
        self._afterwards: list[Callable[[], None]] = []

    def do(self, work: Work) -> Any:
        """Do one work, which refuses, by a `KodoError`, before it has written anything."""
        try:
            return work(self.lent)
        except KodoError as refusal:
            return refusal

    def flush(self) -> None:
        """Write the rows of runs that have changed."""
        self.lent.flush()
        self._afterwards = [after for work in self._last_works if (after := work(self.lent)) is not None]

    def committed(self) -> None:
        """Keep what the next transaction needs to know."""
        self.lent.keep()
        self._unsure.clear()

    def rolled_back(self) -> None:
        """Remember what may be stored nevertheless."""
        for commit in self.lent.commits:
            self._unsure.setdefault(commit.fid, commit.events[0].seq - 1)

    def tell(self) -> None:
        """Call the subscribers, in the order of the log."""
        for commit in self._late + self.lent.commits:
            for subscriber in self._subscribers:
                try:
                    subscriber(commit)
                except Exception:
                    logger.exception("a follower of the event log failed")
        for after in self._afterwards:
            after()


def _find_late(connection: sqlite3.Connection, unsure: dict[str, int]) -> list[Commit]:
    """Find what is stored although its commit failed: what has been written counts, even if its fsync has not."""
    late: list[Commit] = []
    for fid, told in unsure.items():
        row, after = queries.run(connection, fid), told
        while row is not None:
            events, packed = queries.packed_events(connection, fid, after, 1000)
            if not events:
                break
            after = events[-1].seq
            late.append(Commit(fid, events, packed, row.state))
    return late


def _size_of(events: Sequence[NewEvent]) -> int:
    """Return the bytes that events may take of the disk, but for those that are stored in any case."""
    return _LOG_FACTOR * sum(len(each.packed) for each in events if each.event not in FROM_RESERVE)
