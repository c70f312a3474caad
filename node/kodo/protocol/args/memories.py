"""Arguments of the ops on what flows remember."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kodo.protocol.args.base import Args, Name, PageArgs

__all__ = ["MemoryListArgs", "MemoryPutArgs"]


class MemoryListArgs(PageArgs):
    """`memory.list`: what the memory of a flow (`long`, by its path) or a `shared` one (by its name) holds.

    Without `of` the memories themselves are listed.
    """

    scope: Literal["long", "shared"] | None = None
    of: Name | None = None
    prefix: str = Field("", max_length=512)


class MemoryPutArgs(Args):
    """`memory.put`: sets the `value` of `key`; with `size` and `sha256` (hex) stores a file, whose bytes follow.

    With `remove` what has this key goes, a value and a file.
    """

    scope: Literal["long", "shared"]
    of: Name
    key: Name
    value: Any = None
    size: int | None = Field(None, ge=0, le=1 << 50)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    remove: bool = False
