"""What the store keeps of probes: each node's tally, and when it was probed last."""

from __future__ import annotations

import json
import sqlite3

from kodo.registry.health import Due, Tally

__all__ = ["PROBES_DDL", "due", "measured"]

PROBES_DDL = """
CREATE TABLE probes (
    peer_id TEXT PRIMARY KEY,
    results BLOB NOT NULL,
    probed_at INTEGER NOT NULL      -- ms UTC
) STRICT, WITHOUT ROWID;
CREATE TRIGGER node_gone AFTER DELETE ON nodes BEGIN DELETE FROM probes WHERE peer_id = old.peer_id; END;
"""


def due(connection: sqlite3.Connection, before: int, most: int) -> list[Due]:
    """Return at most `most` nodes that did not say goodbye and were not probed since `before`, ms UTC."""
    rows = connection.execute(
        "SELECT n.peer_id, n.addrs FROM nodes n LEFT JOIN probes p USING (peer_id) "
        "WHERE n.online IS NOT NULL AND coalesce(p.probed_at, 0) < ? ORDER BY coalesce(p.probed_at, 0) LIMIT ?",
        (before, most),
    )
    return [Due(row["peer_id"], tuple(json.loads(row["addrs"]))) for row in rows]


def measured(connection: sqlite3.Connection, peer_id: str, took_s: float | None, now: int) -> None:
    """Count a probe of a node; one that is not known any more is passed over."""
    if connection.execute("SELECT 1 FROM nodes WHERE peer_id = ?", (peer_id,)).fetchone() is None:
        return
    row = connection.execute("SELECT results FROM probes WHERE peer_id = ?", (peer_id,)).fetchone()
    tally = (Tally() if row is None else Tally.from_bytes(row["results"])).add(took_s)
    connection.execute(
        "INSERT OR REPLACE INTO probes (peer_id, results, probed_at) VALUES (?, ?, ?)",
        (peer_id, tally.to_bytes(), now),
    )
    connection.execute(
        "UPDATE nodes SET availability = ?, performance = ? WHERE peer_id = ?",
        (tally.availability, tally.performance, peer_id),
    )
