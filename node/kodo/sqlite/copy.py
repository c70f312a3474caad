"""A copy of a file that is in use: one consistent state, checked."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from kodo.p2p.errors import UsageError

__all__ = ["copy_database"]


def copy_database(source: Path, place: str, change: Callable[[sqlite3.Connection], None]) -> None:
    """Copy a database to the file `place`, check the copy and `change` it; blocks.

    Whoever has the source open goes on reading and writing meanwhile.

    Raises:
        UsageError: the source is damaged.
        sqlite3.Error: it cannot be read, or the copy not be written.
    """
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
        contextlib.closing(sqlite3.connect(place)) as copy,
    ):
        # All pages in one step, and so of one moment: writers go on in the write-ahead log.
        original.backup(copy)
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise UsageError(f"{source} is damaged ({verdict}); the copy was deleted")
        change(copy)
        copy.commit()
