"""Pages of nodes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from kodo.registry.candidates import contained, fits_sql, search_match
from kodo.registry.pages import (
    COUNT_LIMIT,
    Found,
    Order,
    PageRequest,
    answer,
    few_or_many,
    glob_of,
    life,
    marks,
    order_of,
    where,
)
from kodo.registry.query_sql import compile_query
from kodo.registry.query_tree import NODE_FIELDS
from kodo.registry.work import Work

__all__ = ["NODE_COLUMNS", "NODE_KEYS", "node_sorting", "read_nodes"]

NODE_KEYS: Mapping[str, tuple[str, str]] = {
    "name": ("n.k_name", "nodes_name"),
    "peer_id": ("n.peer_id", "sqlite_autoindex_nodes_1"),
    "online": ("n.online", "nodes_online"),
    "availability": ("n.availability", "nodes_availability"),
    "performance": ("n.performance", "nodes_performance"),
    "seen_at": ("n.seen_at", "nodes_seen"),
    "flows": ("n.flows", "nodes_flows"),
}
"""Sort keys: what stands for them, and its index."""

NODE_COLUMNS: Mapping[str, str] = {
    **{name: f"n.{name}" for name in NODE_FIELDS},
    **{name: f"json_extract(n.ping, '$.{name[5:]}')" for name in NODE_FIELDS if name.startswith("ping.")},
    "state": "CASE n.online WHEN 1 THEN 'online' WHEN 0 THEN 'unknown' ELSE 'offline' END",
}
"""What stands for the fields of a node row in queries."""

_SECONDS = 0.04
"""Of work for counting."""


def read_nodes(work: Work, request: PageRequest) -> dict[str, Any]:
    """Give a page of node rows. A node is found by its name and by its flows.

    Raises:
        CallError: 400, an unknown sort key.
        sqlite3.OperationalError: interrupted; the time is up.
    """
    order = order_of(request.by, NODE_KEYS)
    sorting = node_sorting(order)
    (totals,) = work.rows("SELECT nodes, hidden_nodes FROM totals", {})
    total = totals["nodes"] - (0 if request.hidden else totals["hidden_nodes"])
    parameters: dict[str, Any] = {"limit": request.pp, "offset": request.offset}
    conditions = [] if request.hidden or not totals["hidden_nodes"] else ["n.hidden = 0"]
    if request.condition is not None:
        conditions.append(compile_query(request.condition, NODE_COLUMNS, parameters))
    candidates = "nodes n"
    judged = list(conditions)
    if request.search is not None:
        candidates, judge = _searched(request, parameters)
        judged.append(judge)

    def few() -> tuple[list[int], bool]:
        sql = f"SELECT n.id FROM {candidates}{where(conditions)} LIMIT {COUNT_LIMIT + 1}"
        return work.some_ids(sql, parameters, _SECONDS)

    def sort(ids: list[int]) -> Found:
        sql = f"SELECT n.id FROM json_each(:ids) j CROSS JOIN nodes n ON n.id = j.value ORDER BY {sorting}"
        page = work.ids(f"{sql} LIMIT :limit OFFSET :offset", {**parameters, "ids": json.dumps(ids)})
        return Found(page, len(ids))

    def walk() -> list[int]:
        sql = f"SELECT n.id FROM nodes n INDEXED BY {NODE_KEYS[order[0][0]][1]}{where(judged)} ORDER BY {sorting}"
        return work.ids(f"{sql} LIMIT :limit OFFSET :offset", parameters)

    found = few_or_many(work, request, few, sort, walk) if request.narrowed else Found(walk(), total)
    rows = {row["id"]: row for row in work.rows(f"SELECT * FROM nodes WHERE id IN ({marks(found.ids)})", {})}
    return answer(request, total, found, [_row(rows[number], request) for number in found.ids])


def node_sorting(order: Order) -> str:
    """Spell `ORDER BY` over nodes; equal rows stand in the order of the last key's index."""
    last, way = order[-1]
    end = f"n.id {way}"
    if last == "online":
        # Its index has names the other way round: those that are online come first, and these from A to Z.
        way = "ASC" if way == "DESC" else "DESC"
        end = f"n.k_name {way}, n.id {way}"
    return ", ".join([*(f"{NODE_KEYS[key][0]} {way}" for key, way in order), end])


def _searched(request: PageRequest, parameters: dict[str, Any]) -> tuple[str, str]:
    """Give the table `n` of candidates, and the condition that a node fits; fill in their parameters."""
    assert request.search is not None
    glob = glob_of(request.search)
    fits = fits_sql(glob, parameters)
    match, _ = search_match(glob)
    name = "n.k_name GLOB :glob" if contained(glob) is None else "instr(n.k_name, :literal) > 0"
    shown = "" if request.hidden else " AND f.hidden = 0"
    flows, matches = "flows f", ""
    if match is not None:
        parameters["match"] = match
        flows, matches = "flow_text t CROSS JOIN flows f ON f.id = t.rowid", "flow_text MATCH :match AND "
    by_flow = f"SELECT f.node_id FROM {flows} CROSS JOIN nodes n ON n.id = f.node_id WHERE {matches}{fits}{shown}"
    by_name = f"SELECT n.id FROM nodes n WHERE {name}"
    own = f"SELECT 1 FROM flows f WHERE f.node_id = n.id AND {fits}{shown}"
    return (
        f"(SELECT id FROM ({by_name} UNION {by_flow})) c CROSS JOIN nodes n ON n.id = c.id",
        f"({name} OR EXISTS ({own}))",
    )


def _row(row: sqlite3.Row, request: PageRequest) -> dict[str, Any]:
    names = ("flows", "seq", "issued_at", "expires_at", "seen_at")
    said = {} if row["description"] is None else {"description": row["description"]}
    return (
        {"name": row["name"], **life(row), "tags": json.loads(row["tags"]), **said}
        | {name: row[name] for name in names}
        | ({"hidden": bool(row["hidden"])} if request.hidden else {})
    )
