"""Pages: what is asked for, and the way to the rows that answer it.

Rows that fit are found in one of two ways. Few: all of them are taken from an index, counted and sorted. Many: the
sort key's index is walked, and each row judged, until the page is full. Which of the two is not guessed: the first is
tried, for up to `COUNT_LIMIT` rows and a share of the time.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.query.glob import Glob, parse_glob
from kodo.registry.query.query import QueryError, parse_query
from kodo.registry.query.tree import Condition, Kind
from kodo.registry.reads.work import Work
from kodo.registry.records.status import Status

__all__ = [
    "COUNT_LIMIT",
    "MAX_PAGE",
    "MAX_PAGE_NUMBER",
    "Found",
    "Order",
    "PageRequest",
    "answer",
    "few_or_many",
    "glob_of",
    "life",
    "marks",
    "order_of",
    "parse_page",
    "where",
]

MAX_PAGE = 500
COUNT_LIMIT = 10_000
"""Totals are exact up to here."""

MAX_PAGE_NUMBER = 1_000_000
_MAX_SORT_KEYS = 4


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page.

    Attributes:
        search: a glob, see `kodo.registry.query.glob`.
        query: a filter, see `kodo.registry.query.query`, as it was written.
        condition: what it means.
        by: `key [asc|desc]`, comma separated.
        p: page, from 1.
        pp: rows a page.
        hidden: whether rows that an admin hid are shown too, and marked.
    """

    search: str | None = None
    query: str | None = None
    condition: Condition | None = None
    by: str = "name asc"
    p: int = 1
    pp: int = 100
    hidden: bool = False

    @property
    def offset(self) -> int:
        """Rows before the page."""
        return (self.p - 1) * self.pp

    @property
    def narrowed(self) -> bool:
        """Whether not every row fits."""
        return self.search is not None or self.condition is not None


@dataclass(frozen=True, slots=True)
class Found:
    """The ids of a page's rows in order; how many rows fit, and whether there may be more than that."""

    ids: list[int]
    fit: int
    more: bool = False


Order = Sequence[tuple[str, str]]
"""Sort keys with their direction, `ASC` or `DESC`."""


def parse_page(parameters: Mapping[str, str], fields: Mapping[str, Kind]) -> PageRequest:
    """Read a URL's parameters; `fields` are those that a query may name.

    Raises:
        CallError: 400 naming the parameter that is wrong.
    """
    for name in parameters:
        if name not in ("search", "query", "by", "p", "pp"):
            raise _bad(name[:64], "is unknown; known are search, query, by, p and pp")
    search = parameters.get("search") or None
    if search is not None:
        glob_of(search)
    query = parameters.get("query") or None
    return PageRequest(
        search,
        query,
        None if query is None else _condition(query, fields),
        parameters.get("by") or "name asc",
        _number(parameters, "p", 1, MAX_PAGE_NUMBER),
        _number(parameters, "pp", 100, MAX_PAGE),
    )


def glob_of(search: str) -> Glob:
    """Parse `search`.

    Raises:
        CallError: 400.
    """
    try:
        return parse_glob(search)
    except UsageError as error:
        raise _bad("search", f"cannot be used: {error}") from None


def order_of(by: str, keys: Mapping[str, Any]) -> Order:
    """Parse `by`; `keys` are those that are known.

    Raises:
        CallError: 400.
    """
    order: list[tuple[str, str]] = []
    parts = by.split(",")
    if len(parts) > _MAX_SORT_KEYS:
        raise _bad("by", f"names at most {_MAX_SORT_KEYS} keys")
    for part in parts:
        words = part.split()
        if not words or words[0] not in keys or len(words) > 2 or words[-1].lower() not in (words[0], "asc", "desc"):
            raise _bad("by", f"is `key asc|desc`, comma separated; keys: {', '.join(keys)}")
        order.append((words[0], words[1].upper() if len(words) == 2 else "ASC"))
    return order


def few_or_many(
    work: Work,
    request: PageRequest,
    few: Callable[[], tuple[list[int], bool] | None],
    sort: Callable[[list[int]], Found],
    walk: Callable[[], list[int]],
) -> Found:
    """Find the page's rows the way that is faster.

    Args:
        work: that of this read.
        request: the page.
        few: takes the ids of rows that fit, unsorted, one more than `COUNT_LIMIT` at most; says whether it got to
            the end of them. None when that is not worth trying.
        sort: finds the page among ids of rows that all fit.
        walk: gives the page's ids, of all rows.

    Raises:
        sqlite3.OperationalError: interrupted; the time is up.
    """
    taken = few()
    ids, whole = taken if taken is not None else ([], False)
    if whole and len(ids) <= COUNT_LIMIT:
        return sort(ids)
    page = walk()
    # Whoever goes from page to page goes on as long as pages are full.
    reached = request.offset + len(page) + (len(page) == request.pp) if page else 0
    return Found(page, max(len(ids), reached), more=True)


def answer(request: PageRequest, total: int, found: Found, result: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer; `total` is the count of all rows."""
    fit = min(found.fit, COUNT_LIMIT)
    page: dict[str, Any] = {
        "total_records": min(total, COUNT_LIMIT),
        "filtered_records": fit,
        "total_pages": -(-fit // request.pp),
        "search": request.search,
        "query": request.query,
        "by": request.by,
        "p": request.p,
        "pp": request.pp,
        "result": result,
    }
    if found.more or max(total, found.fit) > COUNT_LIMIT:
        page["total_is_lower_bound"] = True
    return page


def life(row: sqlite3.Row) -> dict[str, Any]:
    """Return what rows of nodes and of flows say of the node."""
    online = row["online"]
    state = Status.OFFLINE if online is None else Status.ONLINE if online else Status.UNKNOWN
    return {
        "peer_id": row["peer_id"],
        "addrs": json.loads(row["addrs"]),
        "online": None if online is None else bool(online),
        "state": state.value,
        "ping": None if row["ping"] is None else json.loads(row["ping"]),
        "availability": row["availability"],
        "performance": row["performance"],
    }


def where(conditions: Sequence[str]) -> str:
    """Join conditions."""
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def marks(ids: Sequence[int]) -> str:
    """Spell ids that came from the database itself for `IN (…)`."""
    return ", ".join(map(str, ids))


def _bad(arg: str, what: str) -> CallError:
    return CallError(400, "bad-args", f"the parameter {arg!r} {what}", {"arg": arg})


def _number(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise _bad(name, f"is a whole number from 1 to {most}")
    return int(text)


def _condition(query: str, fields: Mapping[str, Kind]) -> Condition:
    try:
        return parse_query(query, fields)
    except QueryError as error:
        raise CallError(
            400, "bad-args", f"the parameter 'query' cannot be used: {error}", {"arg": "query", "at": error.at}
        ) from None
