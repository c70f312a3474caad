"""How long a read may work: SQLite is interrupted when its time is up, and what it found by then can be kept."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Work"]

_STEPS = 2_000
"""SQLite instructions between two looks at the clock."""
_PATIENCE = 20
"""Times the bound that may pass, waiting included."""


class Work:
    """The bounded work of one read on `connection`; `close` it in the thread that made it.

    Work is counted (the thread's CPU time), not waiting: a busy machine is no fault of the query.

    Args:
        connection: nobody else reads on it meanwhile.
        seconds: of work, for all that is done under it.
    """

    def __init__(self, connection: sqlite3.Connection, seconds: float):
        self.connection = connection
        self._until = self._ends = time.thread_time() + seconds
        self._gives_up = time.monotonic() + _PATIENCE * max(seconds, 0.1)
        connection.set_progress_handler(self._over, _STEPS)

    def close(self) -> None:
        """Remove the bound on how long the connection works."""
        self.connection.set_progress_handler(None, 0)

    def _over(self) -> bool:
        return time.thread_time() > self._until or time.monotonic() > self._gives_up

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[sqlite3.Row]:
        """Return all rows.

        Raises:
            sqlite3.OperationalError: interrupted; the time is up.
        """
        return self.connection.execute(sql, parameters).fetchall()

    def ids(self, sql: str, parameters: Mapping[str, Any]) -> list[int]:
        """Return the first column of all rows; raises as `rows`."""
        return [row[0] for row in self.connection.execute(sql, parameters)]

    def some_ids(self, sql: str, parameters: Mapping[str, Any], seconds: float) -> tuple[list[int], bool]:
        """Return the first column of the rows that are found within `seconds`, and whether those are all.

        Raises:
            sqlite3.OperationalError: interrupted, for the time of the whole read is up.
        """
        self._until = min(self._ends, time.thread_time() + seconds)
        found: list[int] = []
        try:
            for row in self.connection.execute(sql, parameters):
                found.append(row[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT or self._until == self._ends:
                raise
            return found, False
        finally:
            self._until = self._ends
        return found, True
