"""Queries of callers, judged before anybody is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kodo.p2p.errors import UsageError

if TYPE_CHECKING:
    from kodo.registry.query.tree import Condition, Kind

# The language of queries takes long to import, and most callers have none.

__all__ = ["NodeFilter", "check_flow_query"]


class NodeFilter:
    """A query for nodes, for rows that no registry filters.

    Raises:
        UsageError: `query` is none; says what is wrong, and where.
    """

    def __init__(self, query: str):
        from kodo.registry.query.tree import NODE_FIELDS

        self._condition = _read(query, NODE_FIELDS)

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Return whether the query holds for a row; a field that the row lacks is null."""
        from kodo.registry.query.rows import fits

        return fits(self._condition, row)


def check_flow_query(query: str) -> None:
    """Check a query for flows.

    Raises:
        UsageError: saying what is wrong with it, and where.
    """
    from kodo.registry.query.tree import FLOW_FIELDS

    _read(query, FLOW_FIELDS)


def _read(query: str, fields: Mapping[str, Kind]) -> Condition:
    from kodo.registry.query.query import QueryError, parse_query

    # A mistake in it is the caller's, not that of some place that refused it.
    try:
        return parse_query(query, fields)
    except QueryError as error:
        raise UsageError(f"query: {error}") from None
