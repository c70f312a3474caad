"""The `seq` of nodes that are gone: what was said before must not bring one back as it once was.

A record that is no longer kept is still good for those who have it, until it expires. So the last `seq` outlives its
node for as long as the longest record that could have been signed before.
"""

from __future__ import annotations

import sqlite3

from kodo.registry.records.record import MAX_TTL_S

__all__ = ["LAST_SEQS_DDL", "forget_seq", "keep_seq", "keep_unknown_seq", "newest_past_seq"]

MAX_KEPT = 200_000
"""Of nodes that are gone, twice as many as are kept; the ones that have been gone for longest make room."""

LAST_SEQS_DDL = """
CREATE TABLE last_seqs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    peer_id TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,           -- no record up to this one is taken
    until INTEGER NOT NULL          -- ms UTC, when the last of those has expired
) STRICT;
CREATE INDEX last_seqs_until ON last_seqs (until);
"""


def keep_seq(connection: sqlite3.Connection, peer_id: str, seq: int, issued_at: int) -> None:
    """Note that no record of `peer_id` up to `seq` is taken again; the newest was issued at `issued_at`, ms UTC."""
    if seq < 1:
        return
    connection.execute(
        "INSERT OR REPLACE INTO last_seqs (peer_id, seq, until) VALUES (?, ?, ?)",
        (peer_id, seq, issued_at + MAX_TTL_S * 1000),
    )
    connection.execute("DELETE FROM last_seqs WHERE id <= (SELECT max(id) FROM last_seqs) - ?", (MAX_KEPT,))


def keep_unknown_seq(connection: sqlite3.Connection, peer_id: str, seq: int, now: int) -> None:
    """Note that a node which was never here has left with `seq`; nothing where there are many, or a newer one is.

    Whoever tells of it may have made it up, so these drive none of those out that were here.
    """
    span = connection.execute("SELECT max(id) - min(id) FROM last_seqs").fetchone()[0] or 0
    if span < MAX_KEPT // 2 and seq > newest_past_seq(connection, peer_id, now):
        keep_seq(connection, peer_id, seq, now)


def newest_past_seq(connection: sqlite3.Connection, peer_id: str, now: int) -> int:
    """Return the `seq` up to which no record of a node that is gone is taken; 0 when any is."""
    row = connection.execute("SELECT seq FROM last_seqs WHERE peer_id = ? AND until > ?", (peer_id, now)).fetchone()
    return 0 if row is None else int(row[0])


def forget_seq(connection: sqlite3.Connection, peer_id: str, now: int) -> None:
    """Forget the `seq` of a node that is back, and those that no record outlives."""
    connection.execute("DELETE FROM last_seqs WHERE peer_id = ? OR until <= ?", (peer_id, now))
