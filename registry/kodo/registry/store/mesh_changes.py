"""Each node's latest change, which is what other registries are told of it, and the way on which it came here.

One row a node: its record, goodbye or tombstone is the latest thing to tell of it. Origin and member are '' where the
node told this registry itself.
"""

from __future__ import annotations

import sqlite3

__all__ = ["BEAT_EVERY_S", "HEARD_DDL", "MESH_DDL", "heard_lately", "note", "note_beat", "tell_again"]

BEAT_EVERY_S = 120
"""Seconds between two heartbeats of a node that are passed on: well under those after which it is `unknown`."""

MESH_DDL = """
CREATE TABLE changes (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    peer_id TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,           -- peer id of the registry that took it from the node; '' for this one
    member TEXT NOT NULL,           -- peer id of the registry that brought it; '' for the node itself
    hops INTEGER NOT NULL,          -- registries that it went through before this one
    beat BLOB,                      -- the heartbeat that is passed on, as it came
    beat_passed_at INTEGER,         -- when it was noted, ms UTC
    tombstone BLOB,                 -- as it came; then there is no node of this peer id
    tombstone_seq INTEGER,
    tombstone_at INTEGER
) STRICT;
CREATE INDEX changes_member ON changes (member);
CREATE TABLE mesh_cursors (
    url TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL,          -- whom this URL was when it first answered
    epoch BLOB NOT NULL,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE mesh_self (epoch BLOB NOT NULL) STRICT;
INSERT INTO mesh_self (epoch) VALUES (randomblob(16));
INSERT INTO changes (peer_id, origin, member, hops) SELECT peer_id, '', '', 0 FROM nodes ORDER BY id;
"""

HEARD_DDL = """
-- When the node last spoke to this registry itself, ms UTC.
ALTER TABLE changes ADD COLUMN heard_at INTEGER;
-- The origin that was named with its record: whose tombstone removes it. A heartbeat may have come by another since.
ALTER TABLE changes ADD COLUMN record_origin TEXT NOT NULL DEFAULT '';
UPDATE changes SET record_origin = origin;
UPDATE changes SET heard_at = (SELECT seen_at FROM nodes WHERE nodes.peer_id = changes.peer_id) WHERE origin = '';
"""


_COLUMNS = "peer_id, origin, member, hops, beat, beat_passed_at, heard_at, record_origin"


def note(
    connection: sqlite3.Connection,
    peer_id: str,
    *,
    origin: str = "",
    member: str = "",
    hops: int = 0,
    beat: bytes | None = None,
    beat_at: int | None = None,
    heard_at: int | None = None,
    record_origin: str = "",
) -> None:
    """Make this node the latest change; its record or goodbye stands in `nodes`.

    Args:
        connection: of the writer.
        peer_id: of the node.
        origin: the registry that took it from the node; '' for this one.
        member: the registry that brought it; '' for the node itself.
        hops: registries that it went through before this one.
        beat: the heartbeat that is passed on.
        beat_at: when that was noted, ms UTC.
        heard_at: when the node last spoke to this registry, ms UTC; None when it does so no more.
        record_origin: the origin that was named with its record.
    """
    connection.execute(
        f"INSERT OR REPLACE INTO changes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (peer_id, origin, member, hops, beat, beat_at, heard_at, record_origin),
    )


def tell_again(connection: sqlite3.Connection, peer_id: str) -> None:
    """Make this node the latest change, as it is."""
    connection.execute(
        f"INSERT OR REPLACE INTO changes ({_COLUMNS}) SELECT {_COLUMNS} FROM changes WHERE peer_id = ?", (peer_id,)
    )


def heard_lately(connection: sqlite3.Connection, peer_id: str, now: int) -> bool:
    """Return whether it is noted already that this node speaks to this registry, `BEAT_EVERY_S` ago at most."""
    row = connection.execute(
        "SELECT heard_at FROM changes WHERE peer_id = ? AND origin = '' AND tombstone IS NULL", (peer_id,)
    ).fetchone()
    return row is not None and row[0] is not None and 0 <= now - row[0] < BEAT_EVERY_S * 1000


def note_beat(connection: sqlite3.Connection, peer_id: str, signed: bytes, now: int) -> bool:
    """Pass on a heartbeat that came from the node itself, unless one was within `BEAT_EVERY_S`."""
    row = connection.execute("SELECT beat_passed_at FROM changes WHERE peer_id = ?", (peer_id,)).fetchone()
    passed = row is not None and row[0] is not None and 0 <= now - row[0] < BEAT_EVERY_S * 1000
    if passed and heard_lately(connection, peer_id, now):
        return False
    # The node speaks to this registry now, whoever told of it first.
    note(connection, peer_id, beat=signed, beat_at=now, heard_at=now)
    return True
