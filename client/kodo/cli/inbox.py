"""`koco inbox`, `koco notify`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client
    from kodo.client.inbox import Inbox

__all__ = ["News", "notifier", "register"]

EVERY_SECONDS = 5.0


class News:
    """What of an inbox was not told yet."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    def of(self, inbox: Inbox) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what is new, each once: `locked`, `done` or `error`, and its row."""
        rows: list[tuple[str, Mapping[str, Any]]] = [("locked", row) for row in inbox.waiting]
        rows += [(str(row.get("state")), row) for row in reversed(inbox.ended)]
        new = []
        for what, row in rows:
            key = f"{row.get('peer_id')}/{row.get('lid') or row.get('fid')}"
            if key not in self._told:
                self._told[key] = None
                new.append((what, row))
        while len(self._told) > 100_000:
            self._told.pop(next(iter(self._told)))
        return new


def notifier() -> list[str] | None:
    """Return the command that shows a notification on this desktop, to which title and text are added."""
    program = shutil.which("notify-send")
    return None if program is None else [program, "--app-name=kodo", "--"]


async def inbox(
    context: Context,
    watch: Annotated[bool, typer.Option("--watch", help="Keep running and show what is new, until Ctrl-C.")] = False,
    peek: Annotated[
        bool, typer.Option("--peek", help="Do not mark anything as seen: what has ended is shown again next time.")
    ] = False,
) -> None:
    """Show which questions wait for you, and which of your runs have ended since you last looked."""
    from kodo.client.inbox import LookedAt

    looked = LookedAt(context.loaded.home)
    async with context.client() as client:
        found = await client.inbox(looked.get())
        _show(context, found)
        if not peek:
            looked.put(found.seen)
        if watch:
            context.say("waiting for news; Ctrl-C ends it")
            await _watch(context, client, found, peek=peek)


async def notify(
    context: Context,
    bell: Annotated[bool, typer.Option("--bell", help="Ring the terminal's bell, too.")] = False,
) -> None:
    """Show on this desktop when a question waits for you or a run of yours has ended, until Ctrl-C."""
    from kodo.client.inbox import LookedAt

    shows = notifier()
    if shows is None and not context.json:
        context.say("no program for notifications was found (notify-send); they are shown here")
    async with context.client() as client:
        found = await client.inbox(LookedAt(context.loaded.home).get())
        context.say("waiting for news; Ctrl-C ends it")
        await _watch(context, client, found, shows=shows, bell=bell, peek=True)


async def _watch(
    context: Context,
    client: Client,
    found: Inbox,
    *,
    peek: bool,
    shows: list[str] | None = None,
    bell: bool = False,
) -> None:
    """Show what is new from now on."""
    from kodo.cli.text import human_time
    from kodo.client.inbox import LookedAt

    news, looked = News(), LookedAt(context.loaded.home)
    news.of(found)
    away, since = set(found.away), dict(found.seen)
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        found = await client.inbox(since)
        for name in sorted(set(found.away) - away):
            context.say(f"not asked: {name}: {found.away[name]}")
        away = set(found.away)
        for what, row in news.of(found):
            if context.json:
                context.emit({"event": what, **row})
            else:
                at = human_time(row.get("modified")) if what != "locked" else ""
                context.show(f"{_said(what, row)}  {_where(row)}  {at}".rstrip())
            if bell:
                print("\a", end="", file=sys.stderr, flush=True)
            if shows is not None:
                await _pop_up(shows, f"{row.get('node')}", _said(what, row))
        since |= found.seen
        if not peek:
            looked.put(found.seen)


async def _pop_up(shows: list[str], title: str, text: str) -> None:
    """Show a notification; that it could not be shown is no error, for it is also on the terminal."""
    from kodo.cli.text import line

    with contextlib.suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            *shows,
            line(title, 100),
            line(text, 300),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(5):
            await process.wait()


def _said(what: str, row: Mapping[str, Any]) -> str:
    """Return what is to be known of it, on one line."""
    from kodo.cli.text import line

    if what == "locked":
        return line(f"? {_flow_of(row)}: {row.get('title')}", 300)
    failed = f": {row.get('error')}" if what == "error" and row.get("error") else ""
    return line(f"{'✗' if what == 'error' else '✓'} {row.get('name')} {what}{failed}", 300)


def _flow_of(row: Mapping[str, Any]) -> object:
    """Return the name of a question's flow; a node that is older tells its path alone."""
    return row.get("name") or row.get("flow")


def _where(row: Mapping[str, Any]) -> str:
    from kodo.cli.text import shell_word

    return shell_word(f"{row.get('node')}/{row.get('fid')}")


def _show(context: Context, found: Inbox) -> None:
    from kodo.cli.run_filters import say_away
    from kodo.cli.table import Table
    from kodo.cli.text import human_time

    if context.json:
        context.emit({"waiting": found.waiting, "ended": found.ended, "away": found.away})
        return
    say_away(context, found.away)
    if found.waiting:
        context.show(f"{len(found.waiting)} waiting for your answer (koco answer RUN)")
        table = Table("RUN", "FLOW", "QUESTION", "UNTIL", ids=["RUN"], title="QUESTION", spared=["FLOW", "UNTIL"])
        for row in found.waiting:
            table.add(_where(row), _flow_of(row), row.get("title"), human_time(row.get("expires_at")))
        context.show_table(table)
    if found.ended:
        context.show(f"{len(found.ended)} ended since you last looked (koco follow RUN)")
        table = Table("RUN", "FLOW", "STATE", "ENDED", "ERROR", ids=["RUN"], title="FLOW", spared=["ERROR"])
        for row in found.ended:
            error = row.get("error") if row.get("state") == "error" else ""
            table.add(_where(row), row.get("name"), row.get("state"), human_time(row.get("modified")), error)
        context.show_table(table)
    if not found.waiting and not found.ended:
        context.show("nothing waits for you, and nothing has ended since you last looked")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "inbox", bounded=True)(inbox)
    command(app, "notify", bounded=True)(notify)
