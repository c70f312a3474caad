"""Arguments of the ops on flows."""

from __future__ import annotations

from pydantic import Field

from kodo.protocol.args.base import Args, Name, PageArgs

__all__ = ["FlowListArgs", "FlowSchemaArgs"]


class FlowListArgs(PageArgs):
    """`flow.list`: `search` is a glob; `by` is `field asc|desc`, comma separated."""

    search: str | None = Field(None, max_length=512)
    query: str | None = Field(None, max_length=4096)
    by: str | None = Field(None, max_length=512)


class FlowSchemaArgs(Args):
    """`flow.schema`."""

    path: Name
