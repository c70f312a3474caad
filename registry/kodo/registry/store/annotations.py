"""An admin's annotations: kept beside the records, and put in place of a node's own words in what readers see."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from kodo.p2p.errors import CallError
from kodo.registry.records.annotation_fields import FlowWords, NodeWords, check_words
from kodo.registry.records.record import verify_record
from kodo.registry.store.changes import no_such_node, relist, show_words, signed_bytes
from kodo.registry.store.listing import notes_of, sort_out
from kodo.registry.store.mesh_changes import tell_again

__all__ = ["MAX_ALL_NOTES", "MAX_NOTES", "annotate"]

MAX_NOTES = 20_000
"""Annotations that one node and its flows may have."""

MAX_ALL_NOTES = 1_000_000
"""Annotations of all nodes, those that are gone included: they outlive their nodes."""


def annotate(
    connection: sqlite3.Connection, peer_id: str, path: str | None, words: Mapping[str, Any], *, replace: bool
) -> None:
    """Put an admin's words in place of a node's, also of one that is gone; see `Store.annotate`."""
    given = check_words(NodeWords if path is None else FlowWords, words)
    node = connection.execute("SELECT * FROM nodes WHERE peer_id = ?", (peer_id,)).fetchone()
    before = notes_of(connection, peer_id)
    if node is None and not before:
        raise no_such_node(peer_id)
    said = before.get(path or "", {})
    merged = {name: value for name, value in {**({} if replace else said), **given}.items() if value is not None}
    if merged:
        if (path or "") not in before:
            _check_room(connection, len(before))
        connection.execute(
            "INSERT OR REPLACE INTO notes (peer_id, path, data) VALUES (?, ?, ?)",
            (peer_id, path or "", json.dumps(merged, ensure_ascii=False)),
        )
    else:
        connection.execute("DELETE FROM notes WHERE peer_id = ? AND path = ?", (peer_id, path or ""))
    if node is None:
        return
    if path is None:
        hides = show_words(connection, node["id"], bool(node["hidden"]), said, merged)
        if node["hidden"] and not hides:
            # While it was hidden no other registry was told of it.
            tell_again(connection, peer_id)
    listed = {row[0] for row in connection.execute("SELECT path FROM flows WHERE node_id = ?", (node["id"],))}
    record = verify_record(signed_bytes(connection, node["id"]))
    flows = [flow for flow in sort_out(record)[0] if flow.path in listed]
    relist(connection, None, peer_id, node["id"], node["k_name"], node["k_name"], flows, 0)


def _check_room(connection: sqlite3.Connection, of_node: int) -> None:
    if of_node >= MAX_NOTES:
        raise CallError(507, "too-many-notes", f"a node has at most {MAX_NOTES} annotations")
    (all_,) = connection.execute("SELECT count(*) FROM notes").fetchone()
    if all_ >= MAX_ALL_NOTES:
        raise CallError(
            507,
            "too-many-notes",
            f"a registry keeps {MAX_ALL_NOTES} annotations; discard those of nodes that are gone",
        )
