"""Pages of nodes."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kodo.registry.query.sql import compile_query
from kodo.registry.query.tree import NODE_FIELDS
from kodo.registry.reads.candidates import GIVEN, INDEXED, Candidates, contained, fits_sql, search_match
from kodo.registry.reads.pages import (
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
from kodo.registry.reads.work import Work

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

_SECONDS = 0.03
"""Of work for counting where every node is looked at."""
_INDEXED_S = 0.1
"""The same where an index gives candidates."""
_SAMPLE = 400

# What a row costs, measured at a million flows, in µs; what counts is how they compare.
_LOOK = 60.0
"""Reading a node, and all of its flows."""
_PICK = 6.0
"""Taking a flow from the index, reading and judging it."""
_STEP = 0.6
"""Going past a node along a sort key's index."""


def read_nodes(work: Work, request: PageRequest) -> dict[str, Any]:
    """Return a page of node rows. A node is found by its name and by its flows.

    Raises:
        CallError: 400, an unknown sort key.
        sqlite3.OperationalError: interrupted; the time is up.
    """
    order = order_of(request.by, NODE_KEYS)
    (totals,) = work.rows("SELECT nodes, hidden_nodes, hidden_flows FROM totals", {})
    total = totals["nodes"] - (0 if request.hidden else totals["hidden_nodes"])
    parameters: dict[str, Any] = {"limit": request.pp, "offset": request.offset}
    conditions = [] if request.hidden or not totals["hidden_nodes"] else ["n.hidden = 0"]
    if request.condition is not None:
        conditions.append(compile_query(request.condition, NODE_COLUMNS, parameters))
    if request.search is None:
        found = _by_condition(work, request, order, conditions, parameters) if request.narrowed else None
    else:
        named = bool(request.hidden or not totals["hidden_flows"])
        found = _Search(work, request, order, conditions, parameters, totals["nodes"], named).find()
    if found is None:
        found = Found(_along(work, order, conditions, parameters), total)
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


def _along(work: Work, order: Order, conditions: Sequence[str], parameters: Mapping[str, Any]) -> list[int]:
    """Return the page by going along the first key's index."""
    index = NODE_KEYS[order[0][0]][1]
    sql = f"SELECT n.id FROM nodes n INDEXED BY {index}{where(conditions)} ORDER BY {node_sorting(order)}"
    return work.ids(f"{sql} LIMIT :limit OFFSET :offset", parameters)


def _sorted(work: Work, order: Order, parameters: Mapping[str, Any], ids: list[int]) -> Found:
    sorting = node_sorting(order)
    sql = f"SELECT n.id FROM json_each(:ids) j CROSS JOIN nodes n ON n.id = j.value ORDER BY {sorting}"
    page = work.ids(f"{sql} LIMIT :limit OFFSET :offset", {**parameters, "ids": json.dumps(ids)})
    return Found(page, len(ids))


def _by_condition(
    work: Work, request: PageRequest, order: Order, conditions: Sequence[str], parameters: Mapping[str, Any]
) -> Found:
    few = f"SELECT n.id FROM nodes n{where(conditions)} LIMIT {COUNT_LIMIT + 1}"
    return few_or_many(
        work,
        request,
        partial(work.some_ids, few, parameters, _SECONDS),
        partial(_sorted, work, order, parameters),
        partial(_along, work, order, conditions, parameters),
    )


@dataclass(slots=True)
class _Search:
    """A search for nodes, by their names and by their flows.

    Attributes:
        work: that of this read.
        request: the page.
        order: of its rows.
        conditions: that a node fulfils besides.
        parameters: of all SQL.
        nodes: how many there are.
        named: whether each node that has flows is found by its name among them, where the index has it.
    """

    work: Work
    request: PageRequest
    order: Order
    conditions: list[str]
    parameters: dict[str, Any]
    nodes: int
    named: bool

    def find(self) -> Found:
        """Find the page's rows the way that is likely to be the fastest."""
        assert self.request.search is not None
        glob = glob_of(self.request.search)
        fits = fits_sql(glob, self.parameters)
        match, sole = search_match(glob)
        shown = [] if self.request.hidden else ["f.hidden = 0"]
        name = "n.k_name GLOB :glob" if contained(glob) is None else "instr(n.k_name, :literal) > 0"
        own = f"SELECT 1 FROM flows f WHERE f.node_id = n.id AND {' AND '.join([fits, *shown])}"
        look = [*self.conditions, f"({name} OR EXISTS ({own}))"]
        if match is None:
            flows = f"flows f CROSS JOIN nodes n ON n.id = f.node_id{where([fits, *shown])}"
            few = partial(self._some, f"SELECT f.node_id FROM {flows}", name, _SECONDS)
            walk = partial(_along, self.work, self.order, look, self.parameters)
            return few_or_many(
                self.work, self.request, few, partial(_sorted, self.work, self.order, self.parameters), walk
            )
        self.parameters["match"] = match
        ids, whole = self.work.some_ids(
            f"SELECT rowid FROM flow_text WHERE flow_text MATCH :match LIMIT {COUNT_LIMIT + 1}",
            self.parameters,
            _INDEXED_S,
        )
        judges = shown if sole else [fits, *shown]
        if whole and len(ids) <= COUNT_LIMIT:
            self.parameters["ids"] = json.dumps(ids)
            alone = f"n.flows = 0 AND {name}" if self.named else name
            found, whole = self._some(_nodes_of(GIVEN, judges), alone, _INDEXED_S)
            if whole and len(found) <= COUNT_LIMIT:
                return _sorted(self.work, self.order, self.parameters, found)
        picked = _nodes_of(INDEXED, ["flow_text MATCH :match", *judges])
        pick = [*self.conditions, f"({name} OR n.id IN ({picked}))"]
        page = _along(self.work, self.order, pick if self._picks(ids, judges) else look, self.parameters)
        reached = self.request.offset + len(page) + (len(page) == self.request.pp) if page else 0
        return Found(page, reached, more=True)

    def _some(self, by_flow: str, name: str, seconds: float) -> tuple[list[int], bool]:
        """Take nodes that have the flows of `by_flow`, or a name that fits."""
        source = f"(SELECT n.id FROM nodes n WHERE {name} UNION {by_flow}) c CROSS JOIN nodes n ON n.id = c.id"
        sql = f"SELECT n.id FROM {source}{where(self.conditions)} LIMIT {COUNT_LIMIT + 1}"
        return self.work.some_ids(sql, self.parameters, seconds)

    def _picks(self, ids: list[int], judges: list[str]) -> bool:
        """Return whether taking all flows that fit first is likely to be faster than looking into each node's."""
        (last,) = self.work.ids("SELECT coalesce(max(id), 1) FROM flows", {})
        candidates = len(ids) * last / max(ids[-1], 1) if ids else last
        self.parameters["ids"] = json.dumps(ids[:: max(len(ids) // _SAMPLE, 1)])
        (hits, sampled) = self.work.rows(
            f"SELECT (SELECT count(*) FROM ({_nodes_of(GIVEN, judges)})), json_array_length(:ids)",
            self.parameters,
        )[0]
        flows = candidates * (hits + 0.5) / (sampled + 1)
        fit = self.nodes * (1 - math.exp(-flows / max(self.nodes, 1)))
        rows = min(self.nodes, (self.request.offset + self.request.pp) * self.nodes / max(fit, 0.1))
        return candidates * _PICK + rows * _STEP < rows * _LOOK


def _nodes_of(candidates: Candidates, judges: Sequence[str]) -> str:
    """Spell the nodes of those flows among `candidates` for which `judges` hold."""
    return f"SELECT f.node_id FROM {candidates.joined(['f.node_id', *judges])}{where(judges)}"


def _row(row: sqlite3.Row, request: PageRequest) -> dict[str, Any]:
    names = ("flows", "seq", "issued_at", "expires_at", "seen_at")
    said = {} if row["description"] is None else {"description": row["description"]}
    return (
        {"name": row["name"], **life(row), "tags": json.loads(row["tags"]), **said}
        | {name: row[name] for name in names}
        | ({"hidden": bool(row["hidden"])} if request.hidden else {})
    )
