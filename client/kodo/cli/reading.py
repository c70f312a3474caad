"""Outputs read where one is: shown in the terminal, packed into one archive, or written to stdout.

A file is downloaded and verified whole first, into a folder that goes again: nothing that was not verified is shown
or passed on.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kodo.cli.text import line, lines, pretty_json
from kodo.p2p.errors import CapacityError, UsageError
from kodo.p2p.net.files import clear_parts, whole_file

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Download, Run

__all__ = ["as_text", "pack", "pour", "show_output"]

MAX_SHOWN_BYTES = 4 << 20
"""What is shown in a terminal at most."""

MAX_ROWS = 2000
"""Rows of a table that are shown."""


async def show_output(context: Context, run: Run, name: str) -> None:
    """Show one output: Markdown, JSON and CSV as they are meant on a terminal, other text as it is.

    Raises:
        NotFoundError: the run has no such output.
        CapacityError: it is too large to be shown.
        UsageError: it is no text.
    """
    rows = [row for row in await run.outputs() if row.get("name") == name]
    size = rows[0].get("size") if rows else None
    if isinstance(size, int) and size > MAX_SHOWN_BYTES:
        raise CapacityError(f"{name!r} has {size} bytes, and {MAX_SHOWN_BYTES} can be shown; download it")
    async with _fetched(context, run, [name]) as [file]:
        if file.size > MAX_SHOWN_BYTES:
            raise CapacityError(f"{name!r} has {file.size} bytes, and {MAX_SHOWN_BYTES} can be shown; download it")
        data = await asyncio.to_thread(file.to.read_bytes)
    if context.json:
        context.emit({"fid": run.fid, "name": name, "size": file.size, "text": _decoded(name, data)})
        return
    media = str(rows[0].get("media_type") or "") if rows else ""
    text = _decoded(name, data)
    if not sys.stdout.isatty():
        context.show(lines(text, MAX_SHOWN_BYTES))
    elif name.lower().endswith((".md", ".markdown")) or media.startswith("text/markdown"):
        from kodo.cli.live import console_of, show_result

        show_result(console_of(), text)
    else:
        context.show(as_text(name, media, text))


def as_text(name: str, media: str, text: str) -> str:
    """Return a text for people: JSON indented, CSV as a table, anything else as it is. Harmless to a terminal."""
    kind = name.lower()
    if kind.endswith(".json") or media.startswith("application/json"):
        try:
            return pretty_json(json.loads(text))
        except (ValueError, RecursionError):
            return lines(text, MAX_SHOWN_BYTES)
    if kind.endswith((".csv", ".tsv")) or media.startswith(("text/csv", "text/tab-separated-values")):
        return _table(text, "\t" if kind.endswith(".tsv") or "tab" in media else ",")
    return lines(text, MAX_SHOWN_BYTES)


def _table(text: str, delimiter: str) -> str:
    from kodo.cli.table import Table

    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return lines(text, MAX_SHOWN_BYTES)
    rows = [row for row in rows if row]
    if not rows:
        return ""
    width = min(max(map(len, rows[: MAX_ROWS + 1])), 64)
    # Names may be there twice, and a table tells its columns apart by their names.
    names = [(line(rows[0][place], 60) if place < len(rows[0]) else "") + "\u200d" * place for place in range(width)]
    table = Table(*names, title=names[0])
    for row in rows[1 : MAX_ROWS + 1]:
        table.add(*(row[place] if place < len(row) else "" for place in range(width)))
    more = len(rows) - 1 - MAX_ROWS
    return table.render() + (f"\nand {more} rows more" if more > 0 else "")


def _decoded(name: str, data: bytes) -> str:
    try:
        if b"\0" in data:
            raise ValueError
        return data.decode("utf-8")
    except ValueError:
        raise UsageError(f"{name!r} is no text, so it cannot be shown; download it") from None


async def pack(context: Context, run: Run, names: Sequence[str] | None, to: Path | None, *, overwrite: bool) -> None:
    """Pack outputs into a ZIP archive: a file, or stdout when there is none.

    Raises:
        UsageError: the file exists already, or its folder does not; or a terminal would show it.
    """
    if to is not None and not await asyncio.to_thread(to.parent.is_dir):
        raise UsageError(f"{to.parent} is not a folder")
    if to is not None and not overwrite and await asyncio.to_thread(os.path.lexists, to):
        raise UsageError(f"{to} exists; --overwrite replaces it")
    if to is None:
        _check_piped("--zip -")
    async with _fetched(context, run, names, None if to is None else to.parent) as files:
        if to is None:
            await asyncio.to_thread(_zip, files, sys.stdout.buffer)
        else:
            await asyncio.to_thread(_zip_file, files, to)


async def pour(context: Context, run: Run, names: Sequence[str] | None) -> None:
    """Write one output to stdout.

    Raises:
        UsageError: not one is named, and the run has not exactly one; or a terminal would show it.
    """
    _check_piped("--out -")
    if not names:
        names = [str(row.get("name")) for row in await run.outputs()]
    if len(names) != 1:
        raise UsageError(f"name the one file that is meant for stdout; the run has {len(names)} (or use --zip -)")
    async with _fetched(context, run, names) as [file]:
        with file.to.open("rb") as source:
            await asyncio.to_thread(shutil.copyfileobj, source, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()


def _check_piped(option: str) -> None:
    """Refuse to write an output to a terminal as it is: it may say what terminals obey."""
    if sys.stdout.isatty():
        raise UsageError(
            f"{option} is for a pipe or a file, such as … {option} > FILE; --show NAME shows a text here"
        )


def _zip_file(files: Sequence[Download], to: Path) -> None:
    """Make the archive beside `to`, and give it its name once it is whole."""
    clear_parts(to.absolute().parent)
    with whole_file(to, mode=0o666) as part:
        _zip(files, part)


def _zip(files: Sequence[Download], to: IO[bytes]) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file.to, file.name)
    to.flush()


@asynccontextmanager
async def _fetched(
    context: Context, run: Run, names: Sequence[str] | None, near: Path | None = None
) -> AsyncIterator[list[Download]]:
    """Download outputs into a folder that goes again, on the disk of `near`."""
    from kodo.cli.transfer_bars import bars

    with tempfile.TemporaryDirectory(dir=near, prefix=".kodo-") as folder, bars(context) as on_progress:
        yield await run.download(Path(folder), names=names, on_progress=on_progress, keep=True)
