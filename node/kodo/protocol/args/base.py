"""What all arguments of ops are made of: their root, pages, and the bounds of texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kodo.protocol.bounds import MAX_PAGE
from kodo.protocol.ids import ID_PATTERN

__all__ = ["Args", "Count", "Fid", "Name", "NoArgs", "PageArgs", "RoleText", "Secret", "Tags", "UserName"]


Fid = Annotated[str, Field(pattern=ID_PATTERN, description="26 characters of Crockford base32")]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="as large as the database takes")]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Tags = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)]
UserName = Annotated[str, Field(min_length=1, max_length=64)]
RoleText = Annotated[str, Field(min_length=1, max_length=512)]
Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class Args(BaseModel):
    """The root of all argument models: strict types, no unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoArgs(Args):
    """An op that takes nothing."""


class PageArgs(Args):
    """`p` counts from 1; `pp` rows a page."""

    p: int = Field(1, ge=1, le=1_000_000)
    pp: int = Field(100, ge=1, le=MAX_PAGE)
