"""`koco down`, `koco cleanup`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]

STOP_SECONDS = 60.0
"""How long a node may take to stop once the runs that it waits for are over."""


async def down(
    context: Context,
    drain: Annotated[
        str,
        typer.Option(
            "--drain",
            metavar="SECONDS",
            help="Wait this long for unfinished runs, e.g. 60s or 5m. New launches are refused meanwhile.",
        ),
    ] = "0",
) -> None:
    """Stop the node of this home (or --node, as its operator) and wait until it has stopped."""
    from kodo.client.finders import read_home_node
    from kodo.p2p.errors import DeadlineError, NotFoundError, UsageError
    from kodo.settings.units import parse_seconds

    seconds = parse_seconds(drain)
    if not isinstance(seconds, float):
        raise UsageError(f"--drain takes seconds or a duration such as 60s or 5m, not {drain[:40]!r}")
    home = context.loaded.home
    here = read_home_node(home) if context.node is None else None
    wanted = context.node or (str(here["peer_id"]) if here is not None else None)
    if wanted is None:
        raise NotFoundError(f"no node runs from {home}; name one with --node, or another home with --home")
    context.farewell = "the node goes on stopping"
    async with context.client() as client:
        remote = await client.node(wanted)
        session = await remote.session()
        answer = await remote.request("node.shutdown", {"drain_s": seconds}, repeat=False)
        told: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {}
        if not context.json and seconds and told.get("unfinished"):
            context.say(f"waiting up to {seconds:g} s for {told['unfinished']} runs")
        try:
            async with asyncio.timeout(seconds + STOP_SECONDS):
                await session.wait_closed()
                if here is not None:
                    await _let_go(home)
        except TimeoutError:
            raise DeadlineError(f"{remote} has not stopped within {seconds + STOP_SECONDS:g} s") from None
    if context.json:
        context.emit({"stopped": True, "peer_id": str(remote.peer_id), "unfinished": told.get("unfinished")})
    else:
        context.say(f"{remote} has stopped")


async def cleanup(
    context: Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete what the node of this home (or --node) no longer needs. It also does this by itself."""
    from kodo.cli.table import Table
    from kodo.cli.text import human_bytes
    from kodo.client.finders import read_home_node
    from kodo.p2p.errors import NotFoundError, PeerError

    home = context.loaded.home
    here = read_home_node(home) if context.node is None else None
    wanted = context.node or (str(here["peer_id"]) if here is not None else None)
    if wanted is None:
        raise NotFoundError(f"no node runs from {home}; name one with --node, or another home with --home")
    async with context.client() as client:
        remote = await client.node(wanted)
        answer = await remote.request("cleanup.list" if dry_run else "cleanup.run", {})
    if not isinstance(answer, Mapping):
        raise PeerError(f"{wanted} did not report what it removed")
    if context.json:
        context.emit({"dry_run": dry_run, **answer})
        return
    table = Table("KIND", "ID", "SIZE")
    for row in answer.get("result") or ():
        table.add(row.get("kind"), row.get("id"), human_bytes(row.get("bytes")))
    if answer.get("total_records"):
        context.show_table(table)
    verb = "would go" if dry_run else "are gone"
    context.say(f"{answer.get('total_records')} things {verb}: {human_bytes(answer.get('bytes'))}")
    if dry_run:
        _show_room(context, answer)


def _show_room(context: Context, answer: Mapping[str, Any]) -> None:
    """Show what takes room, and which runs would make some; an earlier node does not tell."""
    from kodo.cli.table import Table
    from kodo.cli.text import human_bytes, human_time, line

    room = answer.get("room")
    if isinstance(room, Mapping):
        kept = {line(part, 40): size for part, size in (room.get("kept") or {}).items()}
        quota = f" of {human_bytes(room['quota'])}" if room.get("quota") else ""
        parts = ", ".join(f"{part} {human_bytes(size)}" for part, size in kept.items() if size)
        context.show(f"\nthe node keeps {human_bytes(sum(kept.values()))}{quota}: {parts}")
        if room.get("full"):
            context.show(line(room["full"], 300))
    gone = {row.get("id") for row in answer.get("result") or () if row.get("kind") in ("run", "unread")}
    if rows := [row for row in answer.get("largest") or () if row.get("fid") not in gone]:
        context.show("finished runs that take most, and stay until they are deleted (koco delete RUN):")
        table = Table("RUN", "FLOW", "SIZE", "ENDED", "WHOSE", "KEPT BECAUSE", ids=["RUN", "WHOSE"], title="FLOW")
        for row in rows:
            why = "it is shared" if row.get("shared") else "its time is not over"
            why = why if row.get("acknowledged") or row.get("shared") else "nobody has acknowledged it"
            size, ended = human_bytes(row.get("bytes")), human_time(row.get("ended"))
            table.add(row.get("fid"), row.get("name"), size, ended, row.get("launcher"), why)
        context.show_table(table)


async def _let_go(home: Path) -> None:
    """Wait until the node has let its home go: the last thing it does."""
    from kodo.node.home import hold_home
    from kodo.p2p.errors import UsageError

    while True:
        try:
            with hold_home(home):
                return
        except UsageError:
            await asyncio.sleep(0.1)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "down")(down)
    command(app, "cleanup", bounded=True)(cleanup)
