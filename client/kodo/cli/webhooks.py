"""`koco webhooks`: where a node tells what happens to its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.node.webhooks.targets import Target

__all__ = ["register"]


async def webhooks(
    context: Context,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Show the secret by which each webhook checks signatures.")
    ] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test to each target. Exit code 1: one did not take it.")
    ] = False,
) -> int:
    """Show where the node of this home sends notices about runs, and whether they arrive."""
    from kodo.cli.exits import Exit
    from kodo.cli.table import Table
    from kodo.node.webhooks.targets import Webhook, targets_of
    from kodo.p2p.net.keystore import make_home

    home, settings = make_home(context.loaded.home), context.loaded.settings
    targets = await asyncio.to_thread(
        lambda: targets_of(home, settings.webhooks, settings.apprise, private=settings.webhooks_private)
    )
    node = await _node_state(context)
    known = {} if node is None else {str(each.get("key")): each for each in node}
    said = await asyncio.gather(*(_tried(home, target) if test else _nothing() for target in targets))
    rows: list[dict[str, Any]] = []
    for target, failure in zip(targets, said, strict=True):
        row: dict[str, Any] = {"key": target.key, "target": target.shown, **known.pop(target.key, {})}
        row["told"] = "queued" in row  # the node may have been started with other settings
        if secrets and isinstance(target, Webhook):
            row["secret"] = target.shown_secret
        if test:
            row["test"] = failure or "taken"
        rows.append(row)
    rows += [{**each, "told": True} for each in known.values()]
    if context.json:
        context.emit({"running": node is not None, "targets": rows})
    elif not rows:
        context.say("no webhooks; set webhooks or apprise in kodo.toml")
    else:
        extra = [*(["TEST"] if test else []), *(["SECRET"] if secrets else [])]
        table = Table("TARGET", "STATE", "QUEUED", *extra)
        for row in rows:
            more = [row.get(name.lower(), "") for name in extra]
            table.add(row["target"], _state(row, running=node is not None), row.get("queued", ""), *more)
        context.show_table(table)
    return Exit.RUN_FAILED if any(said) else Exit.OK


async def _nothing() -> str:
    return ""


async def _tried(home: Any, target: Target) -> str:
    """Send a test; return why it was not taken, or nothing."""
    import secrets
    import time

    from kodo.client.finders import read_home_node
    from kodo.node.webhooks.notices import Source, make_test
    from kodo.node.webhooks.targets import NotTakenError
    from kodo.p2p.net.keystore import load_identity

    here = read_home_node(home) or {}
    peer_id = str(load_identity(home, "node").peer_id)
    now, ident = time.time_ns() // 1_000_000, f"test-{secrets.token_hex(8)}"
    notice = make_test(Source(peer_id, str(here.get("name") or peer_id), frozenset()), ident, now)
    try:
        await target.send(notice, ident, now)
    except NotTakenError as error:
        return str(error)
    return ""


async def _node_state(context: Context) -> list[Mapping[str, Any]] | None:
    """Return what the node of this home says of its targets; None when it does not run."""
    from kodo.client.finders import read_home_node

    here = read_home_node(context.loaded.home)
    if here is None:
        return None
    async with context.client() as client:
        state = await (await client.node(str(here["peer_id"]))).request("node.state", {})
    return [each for each in state.get("webhooks") or () if isinstance(each, Mapping)]


def _state(row: Mapping[str, Any], *, running: bool) -> str:
    from kodo.cli.text import human_time

    if not running:
        return "the node is not running"
    if not row["told"]:
        return "the node was started without it"
    if row.get("failing_since"):
        return f"failing since {human_time(row['failing_since'])}: {row.get('why')}"
    return f"tried again: {row['why']}" if row.get("why") else "ok"


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "webhooks", bounded=True)(webhooks)
