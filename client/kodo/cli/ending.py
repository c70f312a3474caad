"""`koco kill`, `ack`, `delete`: one run, or all that the options select."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_run

if TYPE_CHECKING:
    from kodo.cli.bulk import Verb
    from kodo.cli.runtime import Context
    from kodo.client import RunSelection

__all__ = ["EVERY", "YES", "register"]

RunId = Annotated[
    str | None,
    typer.Argument(
        metavar="[FID]",
        help="The run: NODE/FID or FID. Without it, the options below say which.",
        autocompletion=complete_run,
    ),
]
EVERY = Annotated[bool, typer.Option("--all", help="Select all your runs.")]
YES = Annotated[bool, typer.Option("--yes", help="Do not ask first when the options select several runs.")]


async def kill(
    context: Context, wanted: RunSelection, fid: RunId = None, all_: EVERY = False, yes: YES = False
) -> int:
    """End a run, or all runs that the options select. Operators can end any run."""
    from kodo.cli.bulk import Verb, is_over

    verb = Verb("kill", "killed", lambda row: not is_over(row), lambda found: found.kill())
    return await _change(context, fid, wanted, verb, every=all_, yes=yes)


async def ack(
    context: Context, wanted: RunSelection, fid: RunId = None, all_: EVERY = False, yes: YES = False
) -> int:
    """Acknowledge a finished run, or all that the options select: their nodes may delete them later."""
    from kodo.cli.bulk import Verb, is_over

    def fits(row: Mapping[str, Any]) -> bool:
        return is_over(row) and not row.get("acknowledged") and row.get("own") is not False

    return await _change(
        context,
        fid,
        wanted,
        Verb("acknowledge", "acknowledged", fits, lambda found: found.ack()),
        every=all_,
        yes=yes,
    )


async def delete(
    context: Context, wanted: RunSelection, fid: RunId = None, all_: EVERY = False, yes: YES = False
) -> int:
    """Delete a finished run with its files, or all that the options select. Operators can delete any run."""
    from kodo.cli.bulk import Verb, is_over

    verb = Verb("delete", "deleted", is_over, lambda found: found.delete())
    return await _change(context, fid, wanted, verb, every=all_, yes=yes)


async def _change(
    context: Context, fid: str | None, wanted: RunSelection, verb: Verb, *, every: bool, yes: bool
) -> int:
    from kodo.cli.bulk import change_runs, is_bulk

    several = is_bulk(fid, wanted, every=every)
    async with context.client() as client:
        if several:
            return await change_runs(context, client, wanted, verb, yes=yes)
        assert fid is not None
        found = await client.run(fid)
        answer = await verb.change(found)
    if context.json:
        context.emit({"fid": found.fid, **answer})
    else:
        context.say(f"{verb.done} {found.address}")
    return 0


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for function in (kill, ack, delete):
        command(app, function.__name__, filters=True)(function)
