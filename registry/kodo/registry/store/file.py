"""The registry's one SQLite file: what it is, how its connections are set up, and who owns it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from kodo.p2p.errors import UsageError
from kodo.registry.query.sql import register_functions
from kodo.registry.store.migrations import STEPS
from kodo.registry.store.schema import WHOLE
from kodo.sqlite.file import DatabaseFile

__all__ = ["REGISTRY_FILE", "SCHEMA_VERSION", "lock_file"]

SCHEMA_VERSION = 7

_CACHE_KIB = 96 * 1024
"""Of each of the three connections; the file itself is cached by the system."""


def _set_up(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    register_functions(connection)
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute("PRAGMA temp_store=MEMORY")


REGISTRY_FILE = DatabaseFile(
    name="a database of a kodo registry",
    version=SCHEMA_VERSION,
    schema=WHOLE,
    steps=STEPS,
    durable=False,  # after a power cut the last heartbeats are gone, which their nodes send again
    set_up=_set_up,
)


def lock_file(database: Path) -> int:
    """Make this process the one owner of `database`, until the descriptor given back is closed.

    Raises:
        UsageError: another process owns it, or its folder cannot be used.
    """
    path = database.with_name(database.name + ".lock")
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"the registry cannot keep its data in {database.parent}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"another registry runs on {database}; stop it, or give this one a home of its own"
        ) from error
    return descriptor
