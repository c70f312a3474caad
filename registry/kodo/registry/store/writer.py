"""One thread that writes: all that is waiting goes into one transaction, so that a commit is shared by many."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kodo.p2p.errors import CallError

__all__ = ["Writer"]

_BATCH = 512
_WAITING = 8192
"""Writes that may wait; more are told to come again."""

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class Writer:
    """Owns the connection that writes, from its first job to `close`."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="registry-write", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do `work` and give its result once it is committed. What it raises undoes it alone.

        Cancelling is safe: it is done whole, or not at all.

        Raises:
            CallError: 503, too many writes wait.
            sqlite3.Error: it could not be committed.
        """
        if self._jobs.qsize() >= _WAITING:
            raise CallError(503, "busy", "the registry is overloaded; try later", {"retry_after_s": 5})
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, future))
        return await future

    def close(self) -> None:
        """Finish what waits, then end the thread; blocks until then."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) == _BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._settle(batch, self._commit(batch))
            if job is None:
                return

    def _commit(self, batch: list[_Job]) -> list[Any]:
        """Return the result of each job, or what it raised."""
        connection, results = self._connection, list[Any]()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                connection.execute("SAVEPOINT job")
                try:
                    results.append(job.work(connection))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    connection.execute("ROLLBACK TO job")
                    results.append(error)
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Whose fault it was cannot be told from here: nothing of the batch is kept, each hears of it.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [error] * len(batch)
        return results

    def _settle(self, batch: list[_Job], results: list[Any]) -> None:
        def settle() -> None:
            for job, result in zip(batch, results, strict=True):
                if job.future.done():
                    continue
                if isinstance(result, BaseException):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)

        try:
            batch[0].future.get_loop().call_soon_threadsafe(settle)
        except RuntimeError:
            logger.debug("the loop ended before %d writes were answered", len(batch))
