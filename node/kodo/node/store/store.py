"""The event log: everything that a node must not forget, in one SQLite file.

One thread writes. All that waits for it goes into one transaction (group commit), so the price of making a commit
durable is shared by everybody who waits. Reading happens on connections of its own in a few other threads; in WAL
mode readers and the writer do not wait for each other, and the event loop waits for neither.

Nothing is told to anybody before it is committed: `append` answers, and subscribers are called, afterwards, on the
event loop, in the order of the log.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kodo.flow._runtime.disk import database_bytes, unfolded_bytes
from kodo.node.clock import Clock, SystemClock
from kodo.node.store import queries
from kodo.node.store.queries import Page, RunFilter
from kodo.node.store.rows import Created, NewEvent, NewRun, OnceKey, OutputRow, RunRow
from kodo.node.store.schema import open_reader, open_writer, translate, truncate_wal
from kodo.node.store.transaction import KEY_LIFE_MS, Commit, Heads, Transaction
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol.events import Event, RunView
from kodo.protocol.room import ENDLESS, Room

__all__ = ["FROM_RESERVE", "Store"]

_READERS = 4
_MAX_GROUP = 512
"""Jobs that share a transaction at most."""

FROM_RESERVE = frozenset(["acknowledge", "fatal", "final", "kill", "lock-timeout", "unlock-timeout"])
"""Events that are stored although only the reserve of the disk is left: they are few, small, and end things."""

_LOG_FACTOR = 2
"""What is stored lies in the write-ahead log too, until that is folded into the file."""

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Transaction], Any]


@dataclass(slots=True)
class _Job:
    work: Work
    future: asyncio.Future[Any]


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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._subscribers: list[Callable[[Commit], None]] = []
        self._writer: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heads: Heads = Heads()
        self._unsure: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            UsageError: when it is not ours, damaged, or of a newer kodo.
            CapacityError: when the disk takes nothing.
        """
        self._loop = asyncio.get_running_loop()
        self._writer = await asyncio.to_thread(open_writer, self.path, self._max_bytes)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="kodo-read")
        self._thread = threading.Thread(target=self._write_all, name="kodo-write", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what waits and close the file."""
        await self.aclose()

    async def aclose(self) -> None:
        """Commit what waits and close the file; idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(None)
        await asyncio.to_thread(thread.join)
        if self._readers is not None:
            await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        if self._writer is not None:
            # The last connection to close folds the WAL into the file.
            await asyncio.to_thread(self._writer.close)
            self._writer = None

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

    # --- writing ---

    async def create(self, run: NewRun, events: Sequence[NewEvent], key: OnceKey | None = None) -> Created:
        """Store a run together with its first events; with a `key` seen before, nothing, and its run is named.

        When the wait is cancelled the run may be stored nevertheless.

        Raises:
            KeyReusedError: the key came with other contents within 24 h.
            CapacityError: the disk takes no more; nothing was stored.
        """
        created: Created = await self._write(lambda tx: tx.create(run, events, key), _size_of(events))
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

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on other tables of the file, whole or not at all; it may be done again when the disk refused.

        Raises:
            CapacityError: the disk takes no more; nothing was changed.
        """
        changed: T = await self._write(lambda tx: tx.change(work))
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
        if self._thread is None or self._loop is None:
            raise UsageError(f"the store {self.path} is not open")
        job = _Job(work, self._loop.create_future())
        if not size:
            self._jobs.put(job)
            return await job.future
        with self._room.promise(size) as promise, promise.writing(size):
            self._jobs.put(job)
            return await job.future

    # --- reading ---

    async def run(self, fid: str) -> RunRow | None:
        """Return one run, or None when there is none."""
        return await self._read(lambda connection: queries.run(connection, fid))

    async def runs(self, chosen: RunFilter, *, p: int = 1, pp: int = 100) -> Page:
        """Return page `p` (from 1) of `pp` runs, the latest first, with the counts of all and of the chosen ones."""
        return await self._read(lambda connection: queries.runs(connection, chosen, p, pp))

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
        if self._thread is None or self._readers is None:
            raise UsageError(f"the store {self.path} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._ask, ask)

    def _ask(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection: sqlite3.Connection | None = getattr(self._reading, "connection", None)
            if connection is None:
                connection = self._reading.connection = open_reader(self.path)
                self._connections.append(connection)
            return ask(connection)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    # --- the writer thread ---

    def _write_all(self) -> None:
        closing = False
        while not closing:
            first = self._jobs.get()
            if first is None:
                break
            jobs = [first]
            while len(jobs) < _MAX_GROUP:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    closing = True
                    break
                jobs.append(job)
            self._commit(jobs)

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            answers, commits = self._transact(jobs)
        except CapacityError as error:
            answers, commits = [error] * len(jobs), []
        except Exception as error:
            if len(jobs) > 1:
                # One of them is to blame: let the others pass.
                for job in jobs:
                    self._commit([job])
                return
            if not isinstance(error, KodoError):
                logger.exception("a write failed")
            answers, commits = [error], []
        loop = self._loop
        assert loop is not None
        try:
            loop.call_soon_threadsafe(self._tell, jobs, answers, commits)
        except RuntimeError:
            logger.debug("the event loop was gone before a commit could be told")

    def _transact(self, jobs: list[_Job]) -> tuple[list[Any], list[Commit]]:
        """Do all jobs in one transaction; answers are results, or the refusals that concern one job only."""
        answers: list[Any] = []
        try:
            if self._writer is None:
                self._writer = open_writer(self.path, self._max_bytes)
            connection = self._writer
            transaction = Transaction(connection, self._heads, self._clock.now_ms())
            connection.execute("BEGIN IMMEDIATE")
            try:
                late = self._find_late(connection)
                for job in jobs:
                    try:
                        answers.append(job.work(transaction))
                    except KodoError as refusal:
                        answers.append(refusal)
                transaction.flush()
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                for commit in transaction.commits:
                    self._unsure.setdefault(commit.fid, commit.events[0].seq - 1)
                raise
        except sqlite3.Error as error:
            self._reopen()
            raise translate(error, self.path) from error
        transaction.keep()
        self._unsure.clear()
        return answers, late + transaction.commits

    def _find_late(self, connection: sqlite3.Connection) -> list[Commit]:
        """Find what is stored although its commit failed: what has been written counts, even if its fsync has not."""
        late: list[Commit] = []
        for fid, told in self._unsure.items():
            row, after = queries.run(connection, fid), told
            while row is not None:
                events, packed = queries.packed_events(connection, fid, after, 1000)
                if not events:
                    break
                after = events[-1].seq
                late.append(Commit(fid, events, packed, row.state))
        return late

    def _reopen(self) -> None:
        """Drop the connection: after a failed write a fresh one is the surest way to know what the file holds."""
        self._heads.clear()
        connection, self._writer = self._writer, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                logger.debug("closing a failed connection failed too")

    def _tell(self, jobs: list[_Job], answers: list[Any], commits: list[Commit]) -> None:
        for commit in commits:
            for subscriber in self._subscribers:
                try:
                    subscriber(commit)
                except Exception:
                    logger.exception("a follower of the event log failed")
        for job, answer in zip(jobs, answers, strict=True):
            if job.future.done():
                continue
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)


def _size_of(events: Sequence[NewEvent]) -> int:
    """Return the bytes that events may take of the disk, but for those that are stored in any case."""
    return _LOG_FACTOR * sum(len(each.packed) for each in events if each.event not in FROM_RESERVE)
