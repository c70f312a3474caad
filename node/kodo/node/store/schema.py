"""The node's database: its tables, and how connections to it are opened.

One SQLite file. `synchronous=FULL` in WAL mode makes a commit survive the loss of power; `secure_delete` overwrites
what is deleted. `rid` stands for a run inside the file: 4 bytes where a fid takes 26, and rising with time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kodo.access import tables
from kodo.p2p.errors import CapacityError, KodoError, UsageError

__all__ = ["SCHEMA_VERSION", "StoreError", "open_reader", "open_writer", "translate", "truncate_wal"]

SCHEMA_VERSION = 6
APPLICATION_ID = 0x6B6F646F
"""`kodo` in ASCII: tells our file from any other SQLite file."""

_SHARES = """CREATE TABLE shares (
    sid TEXT PRIMARY KEY,
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    digest BLOB UNIQUE,
    level INTEGER NOT NULL,
    mode TEXT NOT NULL,
    downloads INTEGER,
    counted INTEGER NOT NULL DEFAULT 0,
    spilled INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER
) STRICT;
CREATE INDEX shares_of ON shares (rid);
CREATE INDEX shares_expire ON shares (expires);

CREATE TABLE share_to (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    PRIMARY KEY (kind, name, sid)
) STRICT, WITHOUT ROWID;
CREATE INDEX share_to_of ON share_to (sid);

CREATE TABLE downloads (
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    peer TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    covered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sid, peer)
) STRICT, WITHOUT ROWID;

CREATE TABLE downloaded (
    sid TEXT NOT NULL,
    peer TEXT NOT NULL,
    name TEXT NOT NULL,
    spans BLOB NOT NULL,
    PRIMARY KEY (sid, peer, name),
    FOREIGN KEY (sid, peer) REFERENCES downloads (sid, peer) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_links (
    digest BLOB PRIMARY KEY,
    reason TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_DEBTS = """CREATE TABLE debts (
    fid TEXT NOT NULL,
    peer_id TEXT NOT NULL,
    reach TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (fid, peer_id)
) STRICT, WITHOUT ROWID;
"""

_SCHEMA = (
    """
CREATE TABLE runs (
    rid INTEGER PRIMARY KEY AUTOINCREMENT,
    fid TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    entry TEXT NOT NULL,
    resources BLOB NOT NULL,
    tags BLOB NOT NULL,
    state TEXT NOT NULL,
    locks BLOB NOT NULL,
    progress BLOB,
    runtime_s REAL,
    handed INTEGER NOT NULL DEFAULT 0,
    killed INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_rseq INTEGER NOT NULL,
    acknowledged INTEGER,
    payer TEXT NOT NULL DEFAULT '',
    max_events INTEGER,
    max_event_bytes INTEGER
) STRICT;
CREATE INDEX runs_of ON runs (principal, rid);
CREATE INDEX runs_of_state ON runs (principal, state, rid);
CREATE INDEX runs_of_path ON runs (principal, path, rid);
CREATE INDEX runs_unfinished ON runs (rid) WHERE state IN ('pending', 'locked');
CREATE INDEX runs_acknowledged ON runs (acknowledged) WHERE acknowledged IS NOT NULL;

CREATE TABLE events (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    rseq INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (rid, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX events_rseq ON events (rid, rseq) WHERE rseq IS NOT NULL;

CREATE TABLE outputs (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    media_type TEXT NOT NULL,
    chunks BLOB NOT NULL,
    PRIMARY KEY (rid, name)
) STRICT;

CREATE TABLE keys (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_at ON keys (at);

CREATE TABLE published (
    path TEXT NOT NULL,
    release TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (path, release)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
    + tables.SCHEMA
    + _SHARES
    + _DEBTS
)


_UPGRADES = {
    1: """
ALTER TABLE runs ADD COLUMN acknowledged INTEGER;
CREATE INDEX runs_acknowledged ON runs (acknowledged) WHERE acknowledged IS NOT NULL;
""",
    2: tables.SCHEMA,
    3: _SHARES,
    4: _DEBTS,
    5: """
ALTER TABLE runs ADD COLUMN payer TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN max_events INTEGER;
ALTER TABLE runs ADD COLUMN max_event_bytes INTEGER;
""",
}
"""From each earlier schema version to the next."""


class StoreError(KodoError):
    """The database refused in a way that more disk does not mend."""


def open_writer(path: Path, max_bytes: int | None = None) -> sqlite3.Connection:
    """Open the database for writing; make it (mode 0600) when it is not there.

    Args:
        path: the file.
        max_bytes: bound of the file's size; None: the disk's.

    Raises:
        UsageError: when the file is not a node's database, or a newer kodo's.
        CapacityError: when the disk takes nothing.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with _opening(path) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and owner != APPLICATION_ID:
            raise UsageError(f"{path} is not a database of kodo; move it away, or use another KODO_HOME")
        if version > SCHEMA_VERSION:
            raise UsageError(f"{path} was written by a newer kodo (schema {version}); update kodo")
        if not tables:
            # Space that deleted runs leave can then be given back to the disk piece by piece.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA foreign_keys=ON")
        if max_bytes is not None:
            page = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={max(max_bytes // page, 1)}")
        if not version:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
                f" PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        while version and version < SCHEMA_VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_UPGRADES[version]} PRAGMA user_version={version + 1}; COMMIT;"
            )
            version += 1
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that can only read."""
    with _opening(path) as connection:
        connection.execute("PRAGMA query_only=ON")
    return connection


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[sqlite3.Connection]:
    """Connect; when anything fails before the block ends, close the connection and translate SQLite's errors."""
    connection = None
    try:
        connection = _connect(path)
        yield connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise translate(error, path) from error
        raise


def truncate_wal(path: Path) -> bool:
    """Fold the write-ahead log into the file and cut it to nothing; say whether that was possible just now.

    What was deleted is overwritten in the file by then, and nowhere else. Waits 0.2 s for readers at most: a writer
    waits that long too.
    """
    try:
        connection = _connect(path)
        try:
            connection.execute("PRAGMA busy_timeout=200")
            return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    # Each connection stays with one thread; only closing happens elsewhere, after that thread has ended.
    return sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)


_DISK = frozenset([sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN])


def translate(error: sqlite3.Error, path: Path) -> KodoError:
    """Return our error for one of SQLite's: `CapacityError` when the disk is at fault."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _DISK:
        return CapacityError(f"{path} cannot be written ({error}); nothing was stored: free disk space and try again")
    if code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return UsageError(f"{path} is damaged or not a database ({error}); move it away, or use another KODO_HOME")
    return StoreError(f"{path}: {error}")
