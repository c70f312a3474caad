"""Threads that read, each on a connection of its own; neither the writer nor the event loop waits for them."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kodo.p2p.errors import UsageError

__all__ = ["Readers"]

T = TypeVar("T")


class Readers:
    """Reads from one file.

    Args:
        connect: opens a connection that only reads.
        threads: how many read at once, each on a connection of its own.
        name: begins the names of the threads.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], threads: int, *, name: str):
        self._connect = connect
        self._threads = threads
        self._connections: list[sqlite3.Connection] = []
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Open the connections.

        Raises:
            sqlite3.Error: SQLite refused; none is left open.
        """
        try:
            for _ in range(self._threads):
                self._connections.append(self._connect())
        except BaseException:
            self.close()
            raise
        for connection in self._connections:
            self._idle.put(connection)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)

    def close(self) -> None:
        """Finish the reads that wait, and close the connections; blocks. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        while self._connections:
            self._connections.pop().close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` gives; all that it reads is of one moment.

        Cancelling is safe; the read ends nevertheless.

        Raises:
            sqlite3.Error: SQLite refused.
            Exception: what `work` raised.
        """
        if self._pool is None:
            raise UsageError("the database is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.rollback()
        finally:
            self._idle.put(connection)
