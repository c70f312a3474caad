"""A flow on a node: found there by what a person typed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Protocol

from kodo.client.matching import named, nearest
from kodo.client.peer import RemoteNode
from kodo.client.resolve import safe_text
from kodo.p2p.errors import CallError, NotFoundError, UsageError

__all__ = ["FlowFinder", "FlowOnNode", "flow_on"]


class FlowOnNode:
    """A flow that was found: `path` on `remote`; `schema` is the answer of `flow.schema`.

    Attributes:
        claimed: the node was not named: it is the one that claims to offer what is meant.
    """

    def __init__(self, remote: RemoteNode, schema: Mapping[str, Any]):
        self.remote = remote
        self.schema = dict(schema)
        self.path = str(schema.get("path", ""))
        self.claimed = False

    @property
    def name(self) -> str:
        """The display name."""
        return str(self.schema.get("name") or self.path)

    @property
    def inputs_schema(self) -> dict[str, Any]:
        """The JSON Schema of the inputs; an empty object's when the node gave none."""
        schema = self.schema.get("schema")
        return dict(schema) if isinstance(schema, Mapping) else {"type": "object"}

    @property
    def returns(self) -> dict[str, Any]:
        """The JSON Schema of what it says that it returns; empty when the node tells none."""
        schema = self.schema.get("returns")
        return dict(schema) if isinstance(schema, Mapping) else {}


class FlowFinder(Protocol):
    """What finds a flow, and proves its node before inputs go there: a `Client`."""

    async def find_flow(self, flow: str, *, node: str | None = None) -> FlowOnNode:
        """Return the flow that is meant by `NODE/PATH`, a path or a name."""
        ...

    async def prove(self, found: FlowOnNode, inputs: Mapping[str, Any]) -> None:
        """Refuse to give these inputs to a node that merely claims to be the one that is meant."""
        ...


async def flow_on(remote: RemoteNode, text: str) -> FlowOnNode:
    """Find a flow on a node by its path, else by its name.

    Raises:
        NotFoundError: it has none; the nearest name is said.
        UsageError: it has several; the message lists them.
    """
    path = text
    try:
        return FlowOnNode(remote, await remote.request("flow.schema", {"path": path}))
    except CallError as error:
        if error.code != 404:
            raise
    rows = [row async for row in remote.pages("flow.list")]
    fitting = named(rows, text)
    if not fitting:
        raise NotFoundError(f"{remote} has no flow {safe_text(text)!r}{nearest(text, rows)}")
    if len(fitting) > 1:
        paths = ", ".join(shlex.quote(safe_text(row.get("path"))) for row in fitting[:8])
        raise UsageError(f"{remote} has several flows named {safe_text(text)!r}; take a path: {paths}")
    path = str(fitting[0].get("path"))
    return FlowOnNode(remote, await remote.request("flow.schema", {"path": path}))
