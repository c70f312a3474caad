"""Arguments of the ops on shares and invitations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from kodo.protocol.args.base import Args, Fid, Name, PageArgs
from kodo.protocol.args.runs import FidArgs
from kodo.protocol.bounds import MAX_SHARE_SECONDS
from kodo.protocol.link import SECRET_BYTES

__all__ = ["InviteArgs", "ShareArgs", "ShareListArgs", "ShareOpenArgs", "ShareTo", "SidArgs"]


class ShareTo(Args):
    """For whom a share is: user ids (a peer id, where nobody logs in) and roles."""

    users: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default_factory=list, max_length=64)
    roles: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default_factory=list, max_length=64)


class ShareArgs(FidArgs):
    """`run.share`: `to` named users and roles, or by `link` to whoever holds it, which is for reading only.

    `level` is 1 by default, or the caller's own where that is lower. `downloads` bounds complete downloads.
    """

    to: ShareTo | None = None
    link: bool = False
    level: int | None = Field(None, ge=0, le=2)
    mode: Annotated[str, Field(pattern=r"^[rx]$")] = "r"
    expires_s: float = Field(7 * 86400.0, ge=1, le=MAX_SHARE_SECONDS)
    downloads: int | None = Field(None, ge=1, le=1_000_000)


class ShareListArgs(PageArgs):
    """`share.list`: the shares of one run, or without `fid` of all runs of the caller's."""

    fid: Fid | None = None


class SidArgs(Args):
    """An op on one share."""

    sid: Fid


class ShareOpenArgs(Args):
    """`share.open`: what a link's token holds."""

    secret: Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]


class InviteArgs(Args):
    """`invitation.add`: to a flow by `path` or by `name`, whose form begins with `inputs`.

    `level`: what its holder sees of its runs; `see`: whether the caller sees them, which the holder is told.
    """

    path: Name | None = None
    name: Name | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    note: str = Field("", max_length=500)
    level: int | None = Field(None, ge=0, le=2)
    launches: int = Field(5, ge=1, le=10_000)
    see: bool = False
    expires_s: float = Field(7 * 86400.0, ge=1, le=MAX_SHARE_SECONDS)
