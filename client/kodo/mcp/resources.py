"""Outputs of runs as resources of MCP: their URIs, their texts, and files on the user's machine."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote, unquote

from kodo.client.run import Run
from kodo.mcp.files import Folders
from kodo.mcp.runs import Runs, run_ref
from kodo.mcp.texts import one_line
from kodo.p2p.errors import CapacityError, NotFoundError, UsageError
from kodo.protocol.ids import is_id
from kodo.protocol.manifest import check_output_name
from kodo.protocol.room import ClosedAtEnd, Promise

__all__ = ["MAX_LINKS", "MAX_READ_BYTES", "TEMPLATE", "link", "parse_uri", "read_text", "save", "uri_of"]

MAX_READ_BYTES = 100_000
"""A larger output is not read into a model's context; it is saved as a file."""

MAX_LINKS = 50
"""Outputs of one run that are linked; the others are counted."""

TEMPLATE = "kodo://{peer}/{fid}/{+name}"

_URI = re.compile(r"kodo://([^/]{1,200})/([^/]{1,64})/(.{1,4000})\Z", re.DOTALL)
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml", "image/svg")


def uri_of(run: Run, name: str) -> str:
    """Return the URI of an output: `kodo://PEER/FID/NAME`."""
    return f"kodo://{run_ref(run)}/{quote(name, safe='/')}"


def parse_uri(uri: str) -> tuple[str, str]:
    """Return the run (`PEER/FID`) and the name of the output that a URI means.

    Raises:
        UsageError: the URI does not name a run or an output.
    """
    found = _URI.match(uri)
    if found is None or not is_id(found[2]):
        raise UsageError(f"{one_line(uri)} is not the address of an output: kodo://PEER/FID/NAME")
    return f"{found[1]}/{found[2]}", unquote(found[3])


def link(run: Run, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an output as a `resource_link`; None where its name is none that a file may bear."""
    name = row.get("name")
    try:
        name = check_output_name(str(name))
    except ValueError:
        return None
    made: dict[str, Any] = {"type": "resource_link", "name": name, "uri": uri_of(run, name)}
    size, kind = row.get("size"), row.get("media_type")
    if isinstance(size, int) and 0 <= size < 1 << 62:
        made["size"] = size
    if isinstance(kind, str) and kind:
        made["mimeType"] = one_line(kind, 100)
    return made


async def read_text(runs: Runs, ref: str, name: str) -> tuple[str, str]:
    """Return the text and media type of an output, verified.

    Raises:
        NotFoundError: there is none.
        CapacityError: it is larger than `MAX_READ_BYTES`.
        UsageError: it is no UTF-8 text.
    """
    run = (await runs.open(ref)).run
    row = await _row(run, name)
    size = row.get("size")
    if not isinstance(size, int) or size > MAX_READ_BYTES:
        raise CapacityError(
            f"{one_line(name)} has {size} bytes, and only text of up to {MAX_READ_BYTES} is read; save_output makes a"
            " file of it"
        )
    with tempfile.TemporaryDirectory(prefix="koco-mcp-") as folder:
        [file] = await run.download(folder, names=[name], keep=True, room=_ReadRoom())
        data = file.to.read_bytes()[: MAX_READ_BYTES + 1]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{one_line(name)} is not text; save_output makes a file of it")
    kind = row.get("media_type")
    is_text = isinstance(kind, str) and kind.startswith(_TEXT_TYPES)
    return text, one_line(kind, 100) if is_text else "text/plain"


class _ReadRoom(ClosedAtEnd):
    """Room for what is read: a node may announce one size and bring another."""

    def promise(self, size: int) -> Promise:
        if size > MAX_READ_BYTES:
            raise CapacityError(f"the node brings {size} bytes, more than it announced")
        return self

    def writing(self, size: int) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing was kept."""


async def _row(run: Run, name: str) -> dict[str, Any]:
    rows = await run.outputs()
    for row in rows:
        if row.get("name") == name:
            return row
    known = ", ".join(one_line(row.get("name"), 80) for row in rows[:10]) or "none"
    raise NotFoundError(f"this run has no output {one_line(name)!r}; it has: {known}")


async def save(runs: Runs, folders: Folders, ref: str, name: str, folder: str | None) -> dict[str, Any]:
    """Download an output, verified, into one of the user's folders; what is there is not replaced.

    Raises:
        UsageError: the folder is not one that the user named, or a file is in the way.
        NotFoundError: there is no such output.
        KodoError: as `Run.download`.
    """
    target = folders.target(folder)
    run = (await runs.open(ref)).run
    await _row(run, name)
    [file] = await run.download(target, names=[name], keep=True)
    return {"path": str(file.to), "size": file.size, "sha256": file.sha256}
