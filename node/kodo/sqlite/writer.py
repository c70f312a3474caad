"""One thread that writes: all that waits for it goes into one transaction (group commit).

The price of making a commit durable is shared by everybody who waits for it. Nobody is answered before the commit.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kodo.p2p.errors import KodoError
from kodo.sqlite.faults import Fault, fault_of

__all__ = ["Alone", "GroupWriter", "Unit"]

logger = logging.getLogger(__name__)

MAX_GROUP = 512
"""Works that share a transaction at most."""

Lent = TypeVar("Lent")
T = TypeVar("T")


class Unit(Generic[Lent]):
    """One transaction, as those see it whose works share it: what they are lent, and what is done around them.

    All but `tell` is called in the writer's thread.

    Attributes:
        lent: what each work is called with.
    """

    def __init__(self, lent: Lent):
        self.lent = lent

    def do(self, work: Callable[[Lent], Any]) -> Any:
        """Do one work; return its result, or the error that concerns it alone and after which it left nothing.

        Raises:
            Exception: any other error undoes the whole transaction; the other works are done again without this one.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Write what the works have gathered, before the commit."""

    def committed(self) -> None:
        """Note that all of it is stored."""

    def rolled_back(self) -> None:
        """Note that the commit failed, or was not tried; after a failing disk it may be stored nevertheless."""

    def tell(self) -> None:
        """Report the commit, on the event loop, before the works are answered."""


class Alone(Unit[sqlite3.Connection]):
    """Lends the connection. What a work raises undoes this work alone; it may be in the midst of its writes."""

    def do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do one work between savepoints."""
        self.lent.execute("SAVEPOINT work")
        try:
            result = work(self.lent)
        except sqlite3.Error:
            raise
        except Exception as error:
            self.lent.execute("ROLLBACK TO work")
            result = error
        self.lent.execute("RELEASE work")
        return result


@dataclass(frozen=True, slots=True)
class _Job(Generic[Lent]):
    work: Callable[[Lent], Any]
    future: asyncio.Future[Any]


class GroupWriter(Generic[Lent]):
    """Owns the connection that writes, and the thread that uses it.

    When SQLite refused, the connection is opened anew: a fresh one is the surest way to know what the file holds.

    Args:
        connect: opens the connection; called in the thread when it has to be opened anew.
        unit: begins to share a transaction, which is open on the connection.
        name: of the thread.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        unit: Callable[[sqlite3.Connection], Unit[Lent]],
        *,
        name: str,
    ):
        self._connect = connect
        self._unit = unit
        self._name = name
        self._jobs: queue.SimpleQueue[_Job[Lent] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Works that nobody has begun."""
        return self._jobs.qsize()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, for use before the first work and by tests."""
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Open the connection and start the thread; blocks.

        Raises:
            Exception: as `connect`.
        """
        self._connection = self._connect()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Do what waits and end the thread; blocks until then. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def close(self) -> None:
        """Stop, and close the connection; the last one to close folds the write-ahead log into the file."""
        self.stop()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def do(self, work: Callable[[Lent], T]) -> T:
        """Do `work` in the next transaction; return its result once that is committed.

        It may be done again when the first try failed. Cancelling is safe: it is done whole, or not at all.

        Raises:
            sqlite3.Error: it could not be committed.
            Exception: what `work` raised, or opening the file.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, future))
        return await future

    def _run(self) -> None:
        closing = False
        while not closing:
            job = self._jobs.get()
            if job is None:
                return
            jobs = [job]
            while len(jobs) < MAX_GROUP:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    closing = True
                    break
                jobs.append(job)
            self._commit(jobs)

    def _commit(self, jobs: Sequence[_Job[Lent]]) -> None:
        unit: Unit[Lent] | None = None
        try:
            unit, answers = self._transact(jobs)
        except Exception as error:
            if len(jobs) > 1 and not _may_be_stored(error):
                # One of them is to blame, or needs more room than there is: let the others pass.
                for job in jobs:
                    self._commit([job])
                return
            if not isinstance(error, (KodoError, sqlite3.Error)):
                logger.exception("a write failed")
            answers = [error] * len(jobs)

        def tell() -> None:
            if unit is not None:
                unit.tell()
            for job, answer in zip(jobs, answers, strict=True):
                if job.future.done():
                    continue
                if isinstance(answer, BaseException):
                    job.future.set_exception(answer)
                else:
                    job.future.set_result(answer)

        try:
            jobs[0].future.get_loop().call_soon_threadsafe(tell)
        except RuntimeError:
            logger.debug("the event loop ended before %d writes were answered", len(jobs))

    def _transact(self, jobs: Sequence[_Job[Lent]]) -> tuple[Unit[Lent], list[Any]]:
        """Do all jobs in one transaction; answers are results, or the errors that concern one job alone."""
        unit: Unit[Lent] | None = None
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                unit = self._unit(connection)
                answers = [unit.do(job.work) for job in jobs]
                unit.flush()
                connection.execute("COMMIT")
            except BaseException:
                try:
                    # SQLite has rolled back by itself after some errors.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                finally:
                    if unit is not None:
                        unit.rolled_back()
                raise
        except sqlite3.Error:
            self._drop()
            raise
        unit.committed()
        return unit, answers

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                logger.debug("closing a failed connection failed too")


def _may_be_stored(error: Exception) -> bool:
    """Return whether a commit that failed so may be in the file nevertheless: then nothing is done again."""
    return isinstance(error, sqlite3.Error) and fault_of(error) is Fault.IO
