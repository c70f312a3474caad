"""The registry's one SQLite file: its tables, how it is opened, and who owns it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from kodo.p2p.errors import UsageError
from kodo.registry.mesh_store import MESH_DDL
from kodo.registry.query_sql import register_functions

__all__ = ["SCHEMA_VERSION", "connect", "create", "lock_file"]

SCHEMA_VERSION = 2

_DDL = """
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    peer_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    k_name TEXT NOT NULL,           -- folded, to search and sort by
    addrs TEXT NOT NULL,            -- JSON array
    seq INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,     -- ms UTC, the node's clock
    expires_at INTEGER NOT NULL,
    signed BLOB NOT NULL,           -- the record as it came
    flows INTEGER NOT NULL,         -- how many are listed
    seen_at INTEGER NOT NULL,       -- ms UTC, this clock: its last heartbeat or new record
    beat_at INTEGER,                -- `at` of the last heartbeat under this seq, the node's clock
    beat_seen_at INTEGER,           -- when that came, this clock
    ping TEXT,                      -- JSON object
    left_at INTEGER,                -- when it said goodbye
    left_seq INTEGER NOT NULL DEFAULT 0,
    goodbye BLOB                    -- as it came
) STRICT;
CREATE INDEX nodes_name ON nodes (k_name);

CREATE TABLE names (
    k_name TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX names_peer ON names (peer_id);

CREATE TABLE flows (
    id INTEGER PRIMARY KEY,
    node_id INTEGER NOT NULL REFERENCES nodes (id),
    path TEXT NOT NULL,
    published INTEGER NOT NULL,
    release TEXT NOT NULL,
    data TEXT NOT NULL,             -- JSON object, the fields of the record
    k_node TEXT NOT NULL,
    k_name TEXT NOT NULL,
    k_description TEXT NOT NULL,
    k_author TEXT NOT NULL,
    k_organization TEXT NOT NULL,
    k_tags TEXT NOT NULL,           -- JSON array
    UNIQUE (node_id, path)
) STRICT;
CREATE INDEX flows_path ON flows (path);
CREATE INDEX flows_published ON flows (published);
CREATE INDEX flows_node ON flows (k_node);
CREATE INDEX flows_name ON flows (k_name);
CREATE INDEX flows_author ON flows (k_author);
CREATE INDEX flows_organization ON flows (k_organization);

CREATE VIRTUAL TABLE flow_text USING fts5(
    k_node, k_name, k_description, k_author, k_organization, k_tags,
    content='flows', content_rowid='id', tokenize='trigram'
);
CREATE TRIGGER flows_inserted AFTER INSERT ON flows BEGIN
    INSERT INTO flow_text (rowid, k_node, k_name, k_description, k_author, k_organization, k_tags)
    VALUES (new.id, new.k_node, new.k_name, new.k_description, new.k_author, new.k_organization, new.k_tags);
END;
CREATE TRIGGER flows_deleted AFTER DELETE ON flows BEGIN
    INSERT INTO flow_text (flow_text, rowid, k_node, k_name, k_description, k_author, k_organization, k_tags)
    VALUES ('delete', old.id, old.k_node, old.k_name, old.k_description, old.k_author, old.k_organization,
            old.k_tags);
END;
"""


_STEPS = (_DDL, MESH_DDL)
"""What makes a file of version n + 1 of one of version n."""

assert len(_STEPS) == SCHEMA_VERSION


def lock_file(database: Path) -> int:
    """Make this process the one owner of `database`, until the descriptor given back is closed.

    Raises:
        UsageError: another process owns it, or its folder cannot be used.
    """
    path = database.with_name(database.name + ".lock")
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # Made here for its mode, which SQLite gives to the files that it keeps beside it too.
        os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
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


def connect(database: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open a connection that may go from thread to thread, one at a time.

    Raises:
        sqlite3.Error: the file is no database, or cannot be opened.
    """
    connection = sqlite3.connect(database, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        if not readonly:
            # NORMAL: after a power cut the last heartbeats are gone, which their nodes send again.
            connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
        register_functions(connection)
        connection.executescript(f"PRAGMA cache_size=-32768; PRAGMA query_only={int(readonly)};")
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file, and those that an earlier release did not have.

    Raises:
        UsageError: the file was written by a later release.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if not 0 <= version < SCHEMA_VERSION:
        raise UsageError(
            f"the registry's file has version {version}, this release reads {SCHEMA_VERSION}; upgrade kodo"
        )
    steps = "".join(_STEPS[version:])
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
