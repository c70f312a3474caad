"""Pages of nodes and flows: what is asked for, and the SQL that answers it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.glob import Glob, parse_glob
from kodo.registry.query import QueryError, parse_query
from kodo.registry.query_sql import compile_query
from kodo.registry.query_tree import FLOW_FIELDS, NODE_FIELDS, Condition, Kind
from kodo.registry.status import STATE_SQL, STATUS_SQL, Status

__all__ = ["COUNT_LIMIT", "MAX_PAGE", "PageRequest", "parse_page", "read_flows", "read_nodes"]

MAX_PAGE = 500
COUNT_LIMIT = 10_000
"""Totals are exact up to here."""

_MAX_PAGE_NUMBER = 1_000_000
_MAX_SORT_KEYS = 4
_INDEXED_CHARACTERS = 3
"""Shortest text that FTS5's trigram index finds (https://sqlite.org/fts5.html#the_trigram_tokenizer)."""

_NODE_KEYS: Mapping[str, str] = {
    "name": "n.k_name",
    "peer_id": "n.peer_id",
    "online": STATUS_SQL,
    "seen_at": "n.seen_at",
    "flows": "n.flows",
}
_FLOW_KEYS: Mapping[str, str] = {
    "name": "f.k_name",
    "node": "f.k_node",
    "path": "f.path",
    "author": "f.k_author",
    "organization": "f.k_organization",
    "published": "f.published",
    "release": "f.release",
    "online": STATUS_SQL,
}


_NODE_COLUMNS: Mapping[str, str] = {
    **{name: f"n.{name}" for name in NODE_FIELDS},
    **{name: f"json_extract(n.ping, '$.{name[5:]}')" for name in NODE_FIELDS if name.startswith("ping.")},
    "online": STATUS_SQL,
    "state": STATE_SQL,
    "tags": "'[]'",
    "availability": "NULL",
    "performance": "NULL",
}
_FLOW_COLUMNS: Mapping[str, str] = {
    **{name: f"json_extract(f.data, '$.{name}')" for name in FLOW_FIELDS},
    **{name: _NODE_COLUMNS[name] for name in FLOW_FIELDS if name in NODE_FIELDS and name not in ("name", "tags")},
    "path": "f.path",
    "published": "f.published",
    "release": "f.release",
    "node": "n.name",
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page.

    Attributes:
        search: a glob, see `kodo.registry.glob`.
        query: a filter, see `kodo.registry.query`, as it was written.
        condition: what it means.
        by: `key [asc|desc]`, comma separated.
        p: page, from 1.
        pp: rows a page.
    """

    search: str | None = None
    query: str | None = None
    condition: Condition | None = None
    by: str = "name asc"
    p: int = 1
    pp: int = 100


def parse_page(parameters: Mapping[str, str], fields: Mapping[str, Kind]) -> PageRequest:
    """Read a URL's parameters; `fields` are those that a query may name.

    Raises:
        CallError: 400 naming the parameter that is wrong.
    """
    for name in parameters:
        if name not in ("search", "query", "by", "p", "pp"):
            raise _bad(name[:64], "is not known: search, query, by, p and pp are")
    search = parameters.get("search") or None
    if search is not None:
        _glob(search)
    query = parameters.get("query") or None
    return PageRequest(
        search,
        query,
        None if query is None else _condition(query, fields),
        parameters.get("by") or "name asc",
        _number(parameters, "p", 1, _MAX_PAGE_NUMBER),
        _number(parameters, "pp", 100, MAX_PAGE),
    )


def read_nodes(connection: sqlite3.Connection, request: PageRequest, now: int) -> dict[str, Any]:
    """Give a page of node rows; `now` in ms UTC. A node is found by its name and by its flows.

    Raises:
        CallError: 400, an unknown sort key.
    """
    order, parameters = _order(request.by, _NODE_KEYS, "n.id"), _parameters(request, now)
    conditions = []
    if request.search is not None:
        glob = _glob(request.search)
        flows, fits = _flow_source(glob, parameters)
        conditions.append(f"(n.k_name GLOB :glob OR n.id IN (SELECT f.node_id FROM {flows} WHERE {fits}))")
    if request.condition is not None:
        conditions.append(compile_query(request.condition, _NODE_COLUMNS, parameters))
    source = "nodes n" + _where(conditions)
    ids = _ids(connection, f"SELECT n.id FROM {source} ORDER BY {order}", parameters)
    rows = _fetch(connection, f"SELECT n.*, {STATUS_SQL} AS online FROM nodes n WHERE n.id", ids, now)
    result = [
        {"name": row["name"], **_life(row), "flows": row["flows"], "seq": row["seq"], "issued_at": row["issued_at"]}
        | {"expires_at": row["expires_at"], "seen_at": row["seen_at"]}
        for row in rows
    ]
    return _page(connection, request, "nodes", source, parameters, result)


def read_flows(connection: sqlite3.Connection, request: PageRequest, now: int) -> dict[str, Any]:
    """Give a page of flow rows, each with what is known of its node; `now` in ms UTC.

    Raises:
        CallError: 400, an unknown sort key.
    """
    order, parameters = _order(request.by, _FLOW_KEYS, "f.id"), _parameters(request, now)
    source, conditions = "flows f", []
    # CROSS JOIN keeps the order written here: from an index into flows, then to their nodes.
    nodes = " CROSS JOIN nodes n ON n.id = f.node_id"
    if request.search is not None:
        source, fits = _flow_source(_glob(request.search), parameters)
        conditions.append(fits)
    if request.condition is not None:
        conditions.append(compile_query(request.condition, _FLOW_COLUMNS, parameters))
        source += nodes
        nodes = ""
    nodes = nodes if STATUS_SQL in order else ""
    where = _where(conditions)
    ids = _ids(connection, f"SELECT f.id FROM {source}{nodes}{where} ORDER BY {order}", parameters)
    rows = _fetch(
        connection,
        f"SELECT f.id, f.data, n.name, n.peer_id, n.addrs, n.ping, {STATUS_SQL} AS online "
        "FROM flows f CROSS JOIN nodes n ON n.id = f.node_id WHERE f.id",
        ids,
        now,
    )
    result = [{**json.loads(row["data"]), "node": row["name"], **_life(row)} for row in rows]
    return _page(connection, request, "flows", source + where, parameters, result)


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _bad(arg: str, what: str) -> CallError:
    return CallError(400, "bad-args", f"the parameter {arg!r} {what}", {"arg": arg})


def _number(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise _bad(name, f"is a whole number from 1 to {most}")
    return int(text)


def _glob(search: str) -> Glob:
    try:
        return parse_glob(search)
    except UsageError as error:
        raise _bad("search", f"cannot be used: {error}") from None


def _condition(query: str, fields: Mapping[str, Kind]) -> Condition:
    try:
        return parse_query(query, fields)
    except QueryError as error:
        raise CallError(
            400, "bad-args", f"the parameter 'query' cannot be used: {error}", {"arg": "query", "at": error.at}
        ) from None


def _order(by: str, keys: Mapping[str, str], row_id: str) -> str:
    terms: list[str] = []
    direction = "ASC"
    parts = by.split(",")
    if len(parts) > _MAX_SORT_KEYS:
        raise _bad("by", f"names at most {_MAX_SORT_KEYS} keys")
    for part in parts:
        words = part.split()
        key = keys.get(words[0]) if words else None
        if key is None or len(words) > 2 or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
            raise _bad("by", f"is `key asc|desc`, comma separated; keys: {', '.join(keys)}")
        direction = words[1].upper() if len(words) == 2 else "ASC"
        terms.append(f"{key} {direction}")
    # The row's id makes pages stable; in the last key's direction, so that one index gives both.
    return ", ".join([*terms, f"{row_id} {direction}"])


def _parameters(request: PageRequest, now: int) -> dict[str, Any]:
    return {"now": now, "limit": request.pp, "offset": (request.p - 1) * request.pp}


def _flow_source(glob: Glob, parameters: dict[str, Any]) -> tuple[str, str]:
    """Give the tables and the condition of the flows `f` that fit; fill in their parameters."""
    parameters["glob"] = glob.sqlite
    texts = " OR ".join(
        f"f.k_{name} GLOB :glob" for name in ("node", "name", "description", "author", "organization")
    )
    fits = f"({texts} OR EXISTS (SELECT 1 FROM json_each(f.k_tags) WHERE value GLOB :glob))"
    # Tags are indexed as JSON, which spells these two otherwise; what is left still has to be there.
    pieces = [piece for literal in glob.literals for piece in re.split(r'["\\]', literal)]
    indexed = [piece for piece in pieces if len(piece) >= _INDEXED_CHARACTERS]
    if not indexed:
        return "flows f", fits
    parameters["match"] = " AND ".join(f'"{piece}"' for piece in indexed)
    return "flow_text CROSS JOIN flows f ON f.id = flow_text.rowid", f"flow_text MATCH :match AND {fits}"


def _ids(connection: sqlite3.Connection, sql: str, parameters: dict[str, Any]) -> list[int]:
    return [row[0] for row in connection.execute(f"{sql} LIMIT :limit OFFSET :offset", parameters)]


def _fetch(connection: sqlite3.Connection, sql: str, ids: list[int], now: int) -> list[sqlite3.Row]:
    marks = ", ".join(str(id_) for id_ in ids)
    rows = {row["id"]: row for row in connection.execute(f"{sql} IN ({marks})", {"now": now})}
    return [rows[id_] for id_ in ids]


def _life(row: sqlite3.Row) -> dict[str, Any]:
    online = row["online"]
    state = Status.OFFLINE if online is None else Status.ONLINE if online else Status.UNKNOWN
    return {
        "peer_id": row["peer_id"],
        "addrs": json.loads(row["addrs"]),
        "online": None if online is None else bool(online),
        "state": state.value,
        "ping": None if row["ping"] is None else json.loads(row["ping"]),
        # Shares that a registry measures by dialling; null says that this one has not.
        "availability": None,
        "performance": None,
    }


def _page(
    connection: sqlite3.Connection,
    request: PageRequest,
    table: str,
    source: str,
    parameters: dict[str, Any],
    result: list[dict[str, Any]],
) -> dict[str, Any]:
    total = _count(connection, table, parameters)
    filtered = (
        total if request.search is None and request.condition is None else _count(connection, source, parameters)
    )
    page: dict[str, Any] = {
        "total_records": min(total, COUNT_LIMIT),
        "filtered_records": min(filtered, COUNT_LIMIT),
        "total_pages": -(-min(filtered, COUNT_LIMIT) // request.pp),
        "search": request.search,
        "query": request.query,
        "by": request.by,
        "p": request.p,
        "pp": request.pp,
        "result": result,
    }
    if max(total, filtered) > COUNT_LIMIT:
        page["total_is_lower_bound"] = True
    return page


def _count(connection: sqlite3.Connection, source: str, parameters: dict[str, Any]) -> int:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {COUNT_LIMIT + 1})"
    count: int = connection.execute(sql, parameters).fetchone()[0]
    return count
