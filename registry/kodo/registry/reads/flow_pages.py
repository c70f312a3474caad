"""Pages of flows."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kodo.registry.query.sql import compile_query
from kodo.registry.query.tree import FLOW_FIELDS, NODE_FIELDS
from kodo.registry.reads.candidates import (
    GIVEN,
    INDEXED,
    contained,
    equal_keys,
    fits_sql,
    is_of_node,
    is_short,
    query_match,
    search_match,
)
from kodo.registry.reads.node_pages import NODE_COLUMNS, NODE_KEYS, node_sorting
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

__all__ = ["FLOW_KEYS", "read_flows"]

FLOW_KEYS: Mapping[str, tuple[str, str]] = {
    "name": ("f.k_name", "flows_name"),
    "path": ("f.path", "flows_path"),
    "author": ("f.k_author", "flows_author"),
    "organization": ("f.k_organization", "flows_organization"),
    "published": ("f.published", "flows_published"),
    "release": ("f.release", "flows_release"),
    "node": NODE_KEYS["name"],
    "online": NODE_KEYS["online"],
    "availability": NODE_KEYS["availability"],
    "performance": NODE_KEYS["performance"],
}
"""Sort keys: what stands for them, and its index."""

_COLUMNS: Mapping[str, str] = {
    **{name: f"f.{name}" for name in FLOW_FIELDS},
    **{name: NODE_COLUMNS[name] for name in FLOW_FIELDS if name in NODE_FIELDS and name not in ("name", "tags")},
    "node": "n.name",
}
_NODE = " CROSS JOIN nodes n ON n.id = f.node_id"
_NODES_FIRST = "nodes n CROSS JOIN flows f ON f.node_id = n.id"
# CROSS JOIN keeps the order in which tables are written.

_INDEXED_S = 0.1
"""Seconds of work for taking candidates from an index."""
_SCANNED_S = 0.015
"""The same where every row is looked at."""
_PICKED_S = 0.15
"""The same where each of many candidates is judged."""
_NODES_S = 0.06
"""The same where every node is, of which there are fewer."""
_SAMPLE = 1000
_MANY = 0.02
"""Share of a sample from which on a short text counts as frequent."""
_MAX_TERMS = 2000
_RARE = 1000
"""Nodes of one state up to which their flows are sorted."""
_JUDGED_SAMPLE = 400

# What a row costs, measured at a million flows, in µs; what counts is how they compare.
_LOOK = 10.0
"""Reading it out of the order of storage, and looking into its texts."""
_JUDGE = 4.0
"""The same in the order of storage."""
_PICK = 0.9
"""Taking it from the index of trigrams, and keeping it."""
_STEP = 0.6
"""Going past it along a sort key's index, and looking whether it was picked."""


@dataclass(slots=True)
class _Plan:
    """What is asked.

    Attributes:
        work: that of this read.
        request: the page.
        parameters: of all its SQL.
        shown: conditions that keep hidden rows back.
        fits: conditions that a row fits `search` and `query`.
        match: what the index of trigrams is asked for candidates.
        frequent: whether so many rows fit that a walk is fast.
    """

    work: Work
    request: PageRequest
    parameters: dict[str, Any]
    shown: list[str]
    fits: list[str]
    match: str | None = None
    frequent: bool = False

    def find(self, order: Order) -> Found:
        """Find the page's rows the way that is likely to be the fastest."""
        judges, keys = self._look_up()
        if self.match is None or keys:
            return few_or_many(
                self.work,
                self.request,
                partial(self._few, judges, keys),
                partial(self._sorted, judges=[], order=order),
                partial(self.walk, order, self.fits),
            )
        picked = f"SELECT rowid FROM flow_text WHERE flow_text MATCH :match LIMIT {COUNT_LIMIT + 1}"
        ids, whole = self.work.some_ids(picked, self.parameters, _INDEXED_S)
        if whole and len(ids) <= COUNT_LIMIT:
            return self._sorted(ids, judges, order)
        return self._of_many(ids, judges, order)

    def _of_many(self, ids: list[int], judges: list[str], order: Order) -> Found:
        """Find the page among more candidates than are counted; `ids` are the first of them.

        Their number, and how many of them fit, is judged by these first: ids are given in the order of arrival, which
        has little to do with words.
        """
        request = self.request
        (last,) = self.work.ids("SELECT max(id) FROM flows", {})
        candidates = len(ids) * last / max(ids[-1], 1) if ids else last
        sample = ids[:: max(len(ids) // _JUDGED_SAMPLE, 1)]
        hits = len(self._judged(sample, judges)) if judges else len(sample)
        fit = candidates * (hits + 0.5) / (len(sample) + 1)
        rows = min(last, (request.offset + request.pp) * last / fit)
        costs = {
            "look": rows * _LOOK,
            "pick": candidates * _PICK + rows * _STEP + (rows * candidates / last * _LOOK if judges else 0),
            "sort": candidates * (_PICK + _JUDGE) if fit < COUNT_LIMIT else math.inf,
        }
        way = min(costs, key=lambda each: costs[each])
        if way == "sort":
            sql = f"SELECT t.rowid FROM {INDEXED.joined(judges)}{where(['flow_text MATCH :match', *judges])}"
            found, whole = self.work.some_ids(f"{sql} LIMIT {COUNT_LIMIT + 1}", self.parameters, _PICKED_S)
            if whole and len(found) <= COUNT_LIMIT:
                return self._sorted(found, [], order)
        picked = "+f.id IN (SELECT rowid FROM flow_text WHERE flow_text MATCH :match)"
        page = self.walk(order, self.fits if way == "look" else [picked, *judges])
        reached = request.offset + len(page) + (len(page) == request.pp) if page else 0
        return Found(page, max(0 if judges else len(ids), reached), more=True)

    def _sorted(self, ids: Sequence[int], judges: list[str], order: Order) -> Found:
        """Find the page among few candidates: those that fit are counted and sorted."""
        sorting = _sorting(order)
        sql = f"SELECT f.id FROM {GIVEN.joined([*judges, sorting])}{where(judges)} ORDER BY {sorting}"
        found = self.work.ids(sql, {**self.parameters, "ids": json.dumps(ids)})
        return Found(found[self.request.offset : self.request.offset + self.request.pp], len(found))

    def _judged(self, ids: Sequence[int], judges: list[str]) -> list[int]:
        if not judges or not ids:
            return list(ids)
        sql = f"SELECT f.id FROM {GIVEN.joined(judges)}{where(judges)}"
        return self.work.ids(sql, {**self.parameters, "ids": json.dumps(ids)})

    def _look_up(self) -> tuple[list[str], list[str]]:
        """See what indexes know: set `match`, and give how its candidates are judged, and conditions on keys."""
        request = self.request
        matches: list[str] = []
        judges = [*self.shown, *self.fits]
        keys: list[str] = []
        if request.search is not None:
            glob = glob_of(request.search)
            match, sole = search_match(glob)
            literal = contained(glob) or ""
            if match is not None:
                matches.append(match)
            elif is_short(literal) and request.condition is None:
                match = self._short(literal)
                self.frequent = match is None
                matches += [] if match is None else [match]
            if sole and request.condition is None:
                judges = self.shown
        if request.condition is not None:
            match = query_match(request.condition)
            matches += [] if match is None else [match]
            keys = equal_keys(request.condition, self.parameters)
        if matches and not keys:
            self.match = self.parameters["match"] = " AND ".join(matches)
        return judges, keys

    def _few(self, judges: list[str], keys: list[str]) -> tuple[list[int], bool] | None:
        """Take rows by keys where there are some, else from a scan in the order of storage."""
        request, limit = self.request, f" LIMIT {COUNT_LIMIT + 1}"
        if self.frequent:
            return None
        if request.search is None and request.condition is not None and is_of_node(request.condition) and not keys:
            sql = f"SELECT f.id FROM {_NODES_FIRST}{where(judges)}{limit}"
            return self.work.some_ids(sql, self.parameters, _NODES_S)
        source = _NODES_FIRST if any("n." in key for key in keys) else f"flows f{_NODE}"
        sql = f"SELECT f.id FROM {source}{where([*judges, *filter(None, keys)])}{limit}"
        return self.work.some_ids(sql, self.parameters, _INDEXED_S if keys else _SCANNED_S)

    def _short(self, literal: str) -> str | None:
        """Return what finds a text too short for the index; None when so many rows have it that a walk is fast.

        Every place of it begins a trigram, for texts are indexed with two characters more than they have.
        """
        (last,) = self.work.ids("SELECT coalesce(max(id), 0) FROM flows", {})
        if last > _SAMPLE:
            sample = marks(random.sample(range(1, last + 1), _SAMPLE))
            sql = f"SELECT count(*) FROM flows f{_NODE} WHERE f.id IN ({sample}) AND {self.fits[0]}"
            (hits,) = self.work.ids(sql, self.parameters)
            if hits > _MANY * _SAMPLE:
                return None
        begins = "term >= :literal AND term < :literal || char(1114111)"
        sql = f"SELECT term FROM flow_terms WHERE {begins} LIMIT {_MAX_TERMS}"
        terms = [row[0] for row in self.work.rows(sql, self.parameters)]
        quoted = ['"{}"'.format(term.replace('"', '""')) for term in terms]
        return f"({' OR '.join(quoted)})" if quoted else '"\x02\x02\x02"'

    def walk(self, order: Order, fits: list[str]) -> list[int]:
        """Return the page by going along the first key's index, of the rows for which `fits` holds."""
        fits = [*fits, *(each for each in self.shown if each not in fits)]
        if order[0][0] != "online" or len(order) == 1:
            return self._along(order, fits, self.request.offset, self.request.pp)
        # A run for each state along the second key's index, instead of sorting all that is online.
        found: list[int] = []
        offset = self.request.offset
        for state in ("NULL", "0", "1") if order[0][1] == "ASC" else ("1", "0", "NULL"):
            only = f"n.online IS {state}"
            limit = self.request.pp - len(found)
            nodes = f"SELECT n.id FROM nodes n INDEXED BY nodes_online WHERE {only} LIMIT {_RARE + 1}"
            count = len(self.work.ids(nodes, {}))
            if count > _RARE:
                found += self._along(order[1:], [*fits, only], offset, limit)
            elif count:
                source = "nodes n INDEXED BY nodes_online CROSS JOIN flows f ON f.node_id = n.id"
                conditions = where([only, *fits])
                sql = f"SELECT f.id FROM {source}{conditions} ORDER BY {_sorting(order[1:])}"
                page = {**self.parameters, "limit": limit, "offset": offset}
                found += self.work.ids(f"{sql} LIMIT :limit OFFSET :offset", page)
            if len(found) == self.request.pp:
                break
            if found:
                offset = 0
            elif offset and count:
                conditions = where([only, *fits])
                (there,) = self.work.ids(f"SELECT count(*) FROM {_NODES_FIRST}{conditions}", self.parameters)
                offset -= there
        return found

    def _along(self, order: Order, fits: Sequence[str], offset: int, limit: int) -> list[int]:
        expression, index = FLOW_KEYS[order[0][0]]
        conditions = where(fits)
        sorting = _sorting(order)
        if expression.startswith("n."):
            flows = "flows f INDEXED BY sqlite_autoindex_flows_1 ON f.node_id = n.id"
            source = f"nodes n INDEXED BY {index} CROSS JOIN {flows}"
        else:
            node = _NODE if any("n." in text for text in (sorting, *fits)) else ""
            source = f"flows f INDEXED BY {index}{node}"
        sql = f"SELECT f.id FROM {source}{conditions} ORDER BY {sorting} LIMIT :limit OFFSET :offset"
        return self.work.ids(sql, {**self.parameters, "limit": limit, "offset": offset})


def read_flows(work: Work, request: PageRequest) -> dict[str, Any]:
    """Return a page of flow rows, each with what is known of its node.

    Raises:
        CallError: 400, an unknown sort key.
        sqlite3.OperationalError: interrupted; the time is up.
    """
    order = order_of(request.by, FLOW_KEYS)
    (totals,) = work.rows("SELECT flows, hidden_flows FROM totals", {})
    total = totals["flows"] - (0 if request.hidden else totals["hidden_flows"])
    parameters: dict[str, Any] = {"limit": request.pp, "offset": request.offset}
    shown = [] if request.hidden or not totals["hidden_flows"] else ["f.hidden = 0"]
    fits: list[str] = []
    if request.search is not None:
        fits.append(fits_sql(glob_of(request.search), parameters))
    if request.condition is not None:
        fits.append(compile_query(request.condition, _COLUMNS, parameters))
    plan = _Plan(work, request, parameters, shown, fits)
    found = plan.find(order) if request.narrowed else Found(plan.walk(order, []), total)
    rows = {
        row["id"]: row
        for row in work.rows(
            "SELECT f.*, n.name AS node, n.peer_id, n.addrs, n.ping, n.online, n.availability, n.performance "
            f"FROM flows f{_NODE} WHERE f.id IN ({marks(found.ids)})",
            {},
        )
    }
    return answer(request, total, found, [_row(rows[number], request) for number in found.ids])


def _sorting(order: Order) -> str:
    """Spell `ORDER BY`; equal rows stand in the order of an index, so that pages join and nothing is sorted."""
    last, way = order[-1]
    if FLOW_KEYS[last][0].startswith("n."):
        nodes = node_sorting([("name" if last == "node" else last, way)])
        end = f"{nodes}, f.path {nodes.rpartition(' ')[2]}"
        return ", ".join([*(f"{FLOW_KEYS[key][0]} {each}" for key, each in order[:-1]), end])
    return ", ".join([*(f"{FLOW_KEYS[key][0]} {each}" for key, each in order), f"f.id {way}"])


def _row(row: sqlite3.Row, request: PageRequest) -> dict[str, Any]:
    names = ("path", "name", "source", "description", "author", "organization", "published", "release")
    rates = ("requests_per_hour", "completions_per_hour")
    return (
        {name: row[name] for name in names}
        | {"tags": json.loads(row["tags"]), "inputs_schema_sha256": row["inputs_schema_sha256"]}
        | {name: row[name] for name in rates if row[name] is not None}
        | {"node": row["node"], **life(row)}
        | ({"hidden": bool(row["hidden"])} if request.hidden else {})
    )
