"""`koco outputs`, `koco download`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_run

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Run, RunSelection

__all__ = ["Keep", "Out", "fetch", "register"]

RunId = Annotated[str, typer.Argument(metavar="FID", help="The run: NODE/FID or FID.", autocompletion=complete_run)]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write to. Default: the current folder.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Do not acknowledge the run: keep it on its node.")]


async def outputs(
    context: Context,
    fid: RunId,
    show: Annotated[
        str | None,
        typer.Option(
            "--show",
            metavar="NAME",
            help="Show the content of this file instead; Markdown, JSON and CSV are formatted.",
        ),
    ] = None,
) -> None:
    """List the files that a run made."""
    from kodo.cli.table import Table
    from kodo.cli.text import human_bytes

    async with context.client() as client:
        found = await client.run(fid)
        if show is not None:
            from kodo.cli.reading import show_output

            return await show_output(context, found, show)
        rows = await found.outputs()
    if context.json:
        context.emit({"fid": found.fid, "result": rows})
        return None
    table = Table("NAME", "SIZE", "TYPE", "SHA-256", ids=["SHA-256"], title="NAME", spared=["TYPE"])
    for row in rows:
        table.add(row.get("name"), human_bytes(row.get("size")), row.get("media_type"), row.get("sha256"))
    context.show_table(table, "this run has no outputs")
    return None


async def download(
    context: Context,
    wanted: RunSelection,
    fid: Annotated[
        str | None,
        typer.Argument(
            metavar="[FID]",
            help="The run: NODE/FID or FID. Without it, the options below say which.",
            autocompletion=complete_run,
        ),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Files to download. Default: all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write to. Default: the current folder. - writes one file to stdout.",
        ),
    ] = None,
    zip_: Annotated[
        str | None,
        typer.Option(
            "--zip", metavar="FILE", help="Pack the files into this archive, - for stdout; the run stays on its node."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    keep: Keep = False,
    all_: Annotated[bool, typer.Option("--all", help="All your runs that are over.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask first when the options select several runs.")
    ] = False,
) -> int | None:
    """Download and verify the files of a run; or of all runs that the options select, each into its own folder."""
    import shlex

    from kodo.cli.bulk import Verb, change_runs, is_bulk, is_over
    from kodo.p2p.errors import UsageError

    several = is_bulk(fid, wanted, every=all_)
    poured = zip_ is not None or out == Path("-")
    if poured and (several or context.json or (zip_ is not None and out is not None)):
        raise UsageError(
            "--zip FILE and --out - take one run; they cannot be combined with each other or with --json"
        )

    async def fetch_one(run: Run) -> dict[str, Any]:
        return await fetch(context, run, (out or Path()) / run.fid, None, overwrite, keep=keep)

    async with context.client() as client:
        if several:
            context.farewell = "what came so far is kept; the same command goes on"
            verb = Verb("download the files of", "downloaded", is_over, fetch_one, at_once=1)
            return await change_runs(context, client, wanted, verb, yes=yes)
        assert fid is not None
        found = await client.run(fid)
        if poured:
            from kodo.cli.reading import pack, pour

            if zip_ is None:
                await pour(context, found, names)
            else:
                await pack(context, found, names, None if zip_ == "-" else Path(zip_), overwrite=overwrite)
            return None
        again = f"koco download {shlex.quote(found.address)} --out {shlex.quote(str(out or '.'))}"
        context.farewell = f"what came so far is kept; go on with: {again}"
        answer = await fetch(context, found, out, names, overwrite, keep=keep)
    if context.json:
        context.emit(answer)
    return None


async def fetch(
    context: Context,
    run: Run,
    directory: Path | None,
    names: Sequence[str] | None,
    overwrite: bool,
    *,
    keep: bool = False,
) -> dict[str, Any]:
    """Download with a progress bar, without a `directory` into this one; give the JSON answer of `download`."""
    from kodo.cli.text import human_bytes, human_seconds
    from kodo.cli.transfer_bars import bars

    # What was not named is held against the very list that is downloaded: a node may give another one each time.
    check = _check_plain if directory is None and not names else None
    directory = directory or Path()
    begun = time.monotonic()
    with bars(context) as on_progress:
        files = await run.download(
            directory, names=names, overwrite=overwrite, on_progress=on_progress, keep=keep, check=check
        )
    seconds = time.monotonic() - begun
    received = sum(file.received for file in files)
    if not context.json:
        for file in files:
            kept = " (was there)" if not file.received and file.size else ""
            context.say(f"verified: {file.to} ({human_bytes(file.size)}){kept}")
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        context.say(f"{count}, {human_bytes(received)} in {human_seconds(seconds)}")
    rows = [{"name": file.name, "size": file.size, "sha256": file.sha256, "to": str(file.to)} for file in files]
    return {"fid": run.fid, "files": rows, "bytes": received, "seconds": round(seconds, 3)}


def _check_plain(names: Sequence[str]) -> None:
    """Refuse files that nobody asked for and nobody would see: in a home they are read as settings, or as keys.

    Raises:
        UsageError: one of the names is hidden.
    """
    from kodo.p2p.errors import UsageError

    for name in names:
        if any(part.startswith(".") for part in name.split("/")):
            raise UsageError(f"this run made the hidden file {name!r}; name a folder for its files with --out DIR")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "outputs", bounded=True)(outputs)
    command(app, "download", filters=True)(download)
