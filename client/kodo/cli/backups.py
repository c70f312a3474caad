"""`koco backup`, `koco restore`: a node's home as one file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.node.backup import BackedUp

__all__ = ["register"]


async def backup(
    context: Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File to write, a tar archive; compressed if it ends with .gz.")
    ],
    keys: Annotated[
        bool,
        typer.Option("--keys", help="With keys, secrets and logins: whoever has the file can then be this node."),
    ] = False,
    outputs: Annotated[
        bool, typer.Option("--outputs/--no-outputs", help="With the files of runs and uploads.", show_default=False)
    ] = True,
) -> None:
    """Write the node of this home to a file. Works while the node runs."""
    from kodo.node.backup import back_up

    told = await asyncio.to_thread(back_up, context.loaded.home, file, keys=keys, outputs=outputs)
    _tell(context, file, told, "")
    if not context.json:
        if told.gone:
            context.say(f"{told.gone} files were deleted meanwhile and are not in it")
        context.say(
            "keep it as safe as the node: it has all its keys"
            if keys
            else "without keys: restored elsewhere it is a node with another peer id (--keys has them, too)"
        )


async def restore(
    context: Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="What `koco backup` wrote.")]
) -> None:
    """Put a backup into this home, which has no node yet, or into another one with --home."""
    from kodo.node.backup import restore as put_back

    told = await asyncio.to_thread(put_back, file, context.loaded.home)
    _tell(context, context.loaded.home, told, "restored into ")
    if not context.json:
        context.say("start it with koco up; never run two nodes from copies of one home")


def _tell(context: Context, place: Path, told: BackedUp, what: str) -> None:
    if context.json:
        context.emit(
            {
                "backup" if not what else "home": str(place),
                "files": told.files,
                "bytes": told.bytes,
                "gone": told.gone,
                "keys": told.keys,
                "peer_id": told.peer_id,
            }
        )
    else:
        context.show(f"{what}{place}: {told.files:,} files, {told.bytes:,} bytes")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "backup")(backup)
    command(app, "restore")(restore)
