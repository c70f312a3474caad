"""Arguments of the ops on a node itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kodo.protocol.args.base import Args

__all__ = ["CleanupArgs", "ScaleArgs", "ShutdownArgs"]


class ShutdownArgs(Args):
    """`node.shutdown`: seconds that runs are waited for before the node ends."""

    drain_s: float = Field(0.0, ge=0, le=7 * 86400)


class CleanupArgs(Args):
    """`cleanup.list`, `cleanup.run`: `what` narrows the kinds."""

    what: list[Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]] | None = Field(None, max_length=20)


class ScaleArgs(Args):
    """`node.scale`: how many warm runners to keep."""

    runners: int = Field(ge=0, le=256)
