"""What a record's flows are to readers: rows with an admin's words in place of the node's, and the index of them."""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from kodo.registry.query.glob import fold
from kodo.registry.records.record import FlowRecord, NodeRecord

__all__ = ["INDEX_END", "add_flows", "drop_flows", "flow_row", "known_flows", "notes_of", "sort_out"]

_COLUMNS = (
    "node_id",
    "path",
    "name",
    "source",
    "description",
    "author",
    "organization",
    "published",
    "release",
    "tags",
    "inputs_schema_sha256",
    "requests_per_hour",
    "completions_per_hour",
    "hidden",
    "k_name",
    "k_author",
    "k_organization",
    "k_description",
    "k_tags",
)
_INSERT = f"INSERT INTO flows ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"
_TEXT = "k_node, k_name, k_description, k_author, k_organization, k_tags"
_INDEX = f"INSERT INTO flow_text (rowid, {_TEXT}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_UNINDEX = f"INSERT INTO flow_text (flow_text, rowid, {_TEXT}) VALUES ('delete', ?, ?, ?, ?, ?, ?, ?)"


INDEX_END = "\1\1"
"""Ends every indexed text, so that its last two characters begin trigrams as well."""


def sort_out(record: NodeRecord) -> tuple[list[FlowRecord], list[dict[str, Any]]]:
    """Part the flows into those that can be listed and those that cannot: maps of `path`, `reason` and more."""
    listed: dict[str, FlowRecord] = {}
    refused: list[dict[str, Any]] = []
    for flow in record.flows:
        missing = flow.missing()
        if missing:
            refused.append({"path": flow.path, "reason": "missing-fields", "missing": missing})
        elif flow.path in listed:
            refused.append({"path": flow.path, "reason": "duplicate-path"})
        elif _has_control_characters(flow):
            refused.append({"path": flow.path, "reason": "control-characters"})
        else:
            listed[flow.path] = flow
    return list(listed.values()), refused


def _has_control_characters(flow: FlowRecord) -> bool:
    # They would reach people's terminals. A description has lines; nothing else has.
    lines = (flow.path, flow.name, flow.source, flow.author, flow.organization, flow.release, *flow.tags)
    text = "".join((*lines, flow.description.translate({9: None, 10: None, 13: None})))
    return not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def flow_row(node_id: int, flow: FlowRecord, note: Mapping[str, Any], *, hidden: bool) -> dict[str, Any]:
    """Return the row of `flow`: what it says, and in its place what an admin says in `note`.

    Args:
        node_id: of its node.
        flow: the node's words.
        note: the fields that an admin has set.
        hidden: whether the node itself is.
    """
    said: dict[str, Any] = {**flow.model_dump(), **note}
    tags = [str(tag) for tag in said["tags"]]
    row = {
        name: said[name]
        for name in ("path", "name", "source", "description", "author", "organization", "published", "release")
    }
    row |= {
        "node_id": node_id,
        "tags": _json(tags),
        "inputs_schema_sha256": flow.inputs_schema_sha256.hex(),
        "requests_per_hour": flow.requests_per_hour,
        "completions_per_hour": flow.completions_per_hour,
        "hidden": int(hidden or bool(said.get("hidden", False))),
        "k_name": fold(row["name"]),
        "k_author": fold(row["author"]),
        "k_organization": fold(row["organization"]),
        "k_description": None if row["description"].isascii() else fold(row["description"]),
    }
    row["k_tags"] = None if row["tags"].isascii() else _json([fold(tag) for tag in tags])
    return row


def known_flows(connection: sqlite3.Connection, node_id: int) -> dict[str, dict[str, Any]]:
    """Return the rows of the node's flows by path, as `flow_row` makes them, and their `id`."""
    found = connection.execute(f"SELECT id, {', '.join(_COLUMNS)} FROM flows WHERE node_id = ?", (node_id,))
    return {row["path"]: dict(row) for row in found}


def add_flows(connection: sqlite3.Connection, node_key: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store rows and index their texts; `node_key` is the folded name of their node."""
    for row in rows:
        number = connection.execute(_INSERT, row).lastrowid
        connection.execute(_INDEX, (number, node_key + INDEX_END, *_texts(row)))


def drop_flows(connection: sqlite3.Connection, node_key: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Take rows out again; `node_key` is the folded name that they were indexed under."""
    for row in rows:
        connection.execute(_UNINDEX, (row["id"], node_key + INDEX_END, *_texts(row)))
        connection.execute("DELETE FROM flows WHERE id = ?", (row["id"],))


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    description, tags = row["k_description"], row["k_tags"]
    texts = (
        row["k_name"],
        row["description"].lower() if description is None else description,
        row["k_author"],
        row["k_organization"],
        row["tags"].lower() if tags is None else tags,
    )
    return tuple(text + INDEX_END for text in texts)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def notes_of(connection: sqlite3.Connection, peer_id: str) -> dict[str, dict[str, Any]]:
    """Return an admin's words on a node's flows by path; on the node itself by an empty one."""
    found = connection.execute("SELECT path, data FROM notes WHERE peer_id = ?", (peer_id,))
    return {row["path"]: json.loads(row["data"]) for row in found}
