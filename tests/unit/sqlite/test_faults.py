"""What SQLite refused, in our words."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.sqlite.faults import Fault, StoreError, fault_of, translate


def error_of(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "fault", "kind"),
    [
        (sqlite3.SQLITE_FULL, Fault.FULL, CapacityError),
        (sqlite3.SQLITE_IOERR_FSYNC, Fault.IO, CapacityError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, Fault.IO, CapacityError),
        (sqlite3.SQLITE_CANTOPEN, Fault.IO, CapacityError),
        (sqlite3.SQLITE_NOTADB, Fault.DAMAGED, UsageError),
        (sqlite3.SQLITE_CORRUPT_INDEX, Fault.DAMAGED, UsageError),
        (sqlite3.SQLITE_INTERRUPT, Fault.INTERRUPTED, StoreError),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, Fault.OTHER, StoreError),
    ],
)
def test_each_of_sqlites_codes_has_a_reason_and_an_error_of_ours(code: int, fault: Fault, kind: type) -> None:
    error = error_of(code)
    assert fault_of(error) is fault
    ours = translate(error, Path("a.db"), remedy="put it away")
    assert type(ours) is kind
    assert "as SQLite says it" in str(ours)
    assert ("put it away" in str(ours)) == (fault is Fault.DAMAGED)


def test_what_python_itself_refuses_is_no_fault_of_the_disk() -> None:
    assert fault_of(sqlite3.ProgrammingError("closed")) is Fault.OTHER
    assert isinstance(translate(sqlite3.ProgrammingError("closed"), Path("a.db")), KodoError)
