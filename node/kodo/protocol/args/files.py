"""Arguments of the ops on outputs, and on files for inputs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kodo.protocol.args.base import Args, Fid, Name
from kodo.protocol.args.runs import FidArgs
from kodo.protocol.bounds import MAX_PAGE
from kodo.protocol.uploads import UPLOAD_PATTERN

__all__ = ["InputWriteArgs", "ManifestArgs", "OutputListArgs", "ReadArgs"]


class OutputListArgs(FidArgs):
    """`output.list`: a page of what a run made, by name."""

    p: int = Field(1, ge=1, le=1_000_000)
    pp: int = Field(MAX_PAGE, ge=1, le=MAX_PAGE)


class ManifestArgs(FidArgs):
    """`output.manifest`: the hashes of `count` chunks beginning with chunk `from`."""

    name: Name
    from_: int = Field(0, ge=0, alias="from")
    count: int = Field(1024, ge=1, le=16384)


class ReadArgs(FidArgs):
    """`output.read`: `length` bytes beginning at byte `offset`; all that follows when `length` is not given."""

    name: Name
    offset: int = Field(0, ge=0)
    length: int | None = Field(None, ge=0)


class InputWriteArgs(Args):
    """`input.write`: bytes of a file follow, those from `offset` on; without `upload` a new one, or the one begun."""

    upload: str | None = Field(None, pattern=UPLOAD_PATTERN)
    offset: int | None = Field(None, ge=0)
    name: Annotated[
        str, Field(min_length=1, max_length=512, description="of a file of a folder with that: `photos/2024/a.jpg`")
    ]
    size: int = Field(ge=0, le=1 << 53)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the whole, hex")
    chunks: list[Annotated[bytes, Field(min_length=32, max_length=32)]] | None = Field(None, max_length=16384)
    invitation: Fid | None = None
