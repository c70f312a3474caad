"""`flow.*`: what the node offers to this caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kodo.node.answers.caller import Caller, Handlers, granted
from kodo.node.catalog.catalog import Catalog
from kodo.p2p.errors import CallError
from kodo.protocol.args.flows import FlowListArgs, FlowSchemaArgs
from kodo.protocol.pages import paged

__all__ = ["FlowAnswers"]


class FlowAnswers:
    """Answers what is about flows.

    Args:
        node: its `name` and `peer_id`.
        contents_for: the roles that see what others' runs are about.
    """

    def __init__(self, catalog: Catalog, node: Mapping[str, str], contents_for: Iterable[str] = ()):
        self._catalog = catalog
        self._node = node
        self._contents_for = sorted(contents_for)

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {"flow.list": self._list, "flow.schema": self._schema}

    async def _list(self, caller: Caller, args: FlowListArgs) -> dict[str, Any]:
        about = {"node": self._node["name"], "peer_id": self._node["peer_id"], "online": True, "state": "online"}
        total, found = self._catalog.search(
            args.search, args.by, granted(caller.principal), query=args.query, about=about
        )
        rows = [flow.row() for flow in found[(args.p - 1) * args.pp : args.p * args.pp]]
        answer = paged(rows, total, len(found), args.p, args.pp)
        return {**answer, "search": args.search, "query": args.query, "by": args.by}

    async def _schema(self, caller: Caller, args: FlowSchemaArgs) -> dict[str, Any]:
        flow = self._catalog.find(path=args.path, granted=granted(caller.principal))
        if flow.error is not None:
            raise CallError(409, "flow-broken", f"{flow.path} cannot be run: {flow.error[:500]}")
        answer = {
            "path": flow.path,
            "name": flow.name,
            "description": flow.description,
            "schema": flow.schema,
            "example": flow.example,
            "contents_for": self._contents_for,
        }
        return {**answer, "returns": flow.returns} if flow.returns else answer
