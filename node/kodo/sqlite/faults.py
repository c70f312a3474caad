"""What SQLite refused, and why: the disk, the file, the time, or the statement."""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path

from kodo.p2p.errors import CapacityError, KodoError, UsageError

__all__ = ["Fault", "StoreError", "fault_of", "translate"]


class StoreError(KodoError):
    """The database refused in a way that more disk does not mend."""


class Fault(Enum):
    """Why SQLite refused."""

    FULL = "full"
    """The disk, or the bound of the file, has no room."""
    IO = "io"
    """The disk cannot be read or written, or the file not opened."""
    DAMAGED = "damaged"
    """The file is damaged, or no database."""
    INTERRUPTED = "interrupted"
    """The time for it was up."""
    OTHER = "other"


_FAULTS = {
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_IOERR: Fault.IO,
    sqlite3.SQLITE_READONLY: Fault.IO,
    sqlite3.SQLITE_CANTOPEN: Fault.IO,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_INTERRUPT: Fault.INTERRUPTED,
}


def fault_of(error: sqlite3.Error) -> Fault:
    """Return why SQLite raised `error`."""
    code = getattr(error, "sqlite_errorcode", None)  # what Python itself refuses has none
    return Fault.OTHER if code is None else _FAULTS.get(code & 0xFF, Fault.OTHER)


def translate(error: sqlite3.Error, path: Path, *, remedy: str = "move it away") -> KodoError:
    """Return our error for one of SQLite's: `CapacityError` when the disk is at fault.

    Args:
        path: the file.
        remedy: what helps when it is damaged.
    """
    match fault_of(error):
        case Fault.FULL | Fault.IO:
            return CapacityError(
                f"{path} cannot be written ({error}); nothing was stored: free disk space and try again"
            )
        case Fault.DAMAGED:
            return UsageError(f"{path} is damaged or not a database ({error}); {remedy}")
    return StoreError(f"{path}: {error}")
