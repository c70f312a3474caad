"""The options that say which runs are meant, for every command on many runs: `command(app, name, filters=True)`.

Such a command takes a keyword `wanted`, a `RunSelection`, instead of these options.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.complete import complete_state

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client.run_selection import RunSelection

__all__ = ["FILTERS", "say_away", "selection"]

_PANEL = "Which runs"

FILTERS: dict[str, tuple[Any, Any]] = {
    "state": (
        Annotated[
            str | None,
            typer.Option(
                "--state",
                metavar="STATE",
                help="In this state: queued, running, locked, done or error.",
                autocompletion=complete_state,
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "flow": (
        Annotated[
            str | None,
            typer.Option(
                "--flow",
                metavar="GLOB",
                help="Of flows with this path or name, e.g. '*report*'.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "tag": (
        Annotated[str | None, typer.Option("--tag", metavar="TAG", help="With this tag.", rich_help_panel=_PANEL)],
        None,
    ),
    "since": (
        Annotated[
            str | None,
            typer.Option(
                "--since",
                metavar="WHEN",
                help="Launched within this time, e.g. 2d or 12h, or since 2026-11-24 or 2026-11-24T18:00.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "until": (
        Annotated[
            str | None,
            typer.Option(
                "--until",
                metavar="WHEN",
                help="Launched before this, in the same form; a day without a time is included.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "search": (
        Annotated[
            str | None,
            typer.Option(
                "--search",
                metavar="TEXT",
                help="With this text in the flow's name or the run's id; of your own runs also in tags and inputs.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "others": (
        Annotated[
            bool,
            typer.Option(
                "--others",
                help="Also runs of others, where you are an operator or the flow's developer.",
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    "limit": (
        Annotated[
            int | None,
            typer.Option("--limit", metavar="N", min=1, help="The latest N only.", rich_help_panel=_PANEL),
        ],
        None,
    ),
}
"""The options: annotation and default."""


def say_away(context: Context, away: Mapping[str, str]) -> None:
    """Report which of the nodes that this user knows gave no answer, and what to do about those that are gone."""
    for name, why in away.items():
        context.say(f"not asked: {name}: {why}")
    if away:
        context.say("a node that is gone for good is left out after: koco forget NODE")


def selection(values: Mapping[str, Any]) -> RunSelection:
    """Return which runs the values of these options mean.

    Raises:
        UsageError: one of them cannot be.
    """
    from kodo.client.run_selection import RunSelection, parse_since, parse_until

    given = dict(values)
    now = datetime.datetime.now().astimezone()
    for name, parse in (("since", parse_since), ("until", parse_until)):
        if given[name] is not None:
            given[name] = parse(given[name], now)
    return RunSelection(**given)
