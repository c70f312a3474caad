"""`koco memory list`, `koco memory put`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]

OfFlow = Annotated[str | None, typer.Option("--flow", metavar="PATH", help="The long-term memory of this flow.")]
Shared = Annotated[str | None, typer.Option("--shared", metavar="NAME", help="This shared memory.")]


async def list_memory(
    context: Context,
    flow: OfFlow = None,
    shared: Shared = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Only keys that begin with TEXT.")] = "",
) -> None:
    """List the memories of the node of this home (or --node), or the keys and sizes in one of them."""
    from kodo.cli.table import Table
    from kodo.cli.text import human_bytes, human_time
    from kodo.client.memory import memories

    scope, of = _which(flow, shared)
    async with context.client() as client:
        rows = await memories(await client.node(_node(context)), scope, of, prefix=prefix)
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    if of is None:
        table = Table("SCOPE", "OF", "KEYS", "FILES", "SIZE", "CHANGED")
        for row in rows:
            size, time = human_bytes(row.get("bytes")), human_time(row.get("modified"))
            table.add(row.get("scope"), row.get("of"), row.get("keys"), row.get("files"), size, time)
    else:
        table = Table("KIND", "KEY", "SIZE", "CHANGED")
        for row in rows:
            size, time = human_bytes(row.get("bytes")), human_time(row.get("modified"))
            table.add(row.get("kind"), row.get("key"), size, time)
    context.show_table(table, "no memories")


async def put_memory(
    context: Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE|KEY=@FILE", help="A value, as JSON or text. KEY=@FILE stores a file."),
    ],
    flow: OfFlow = None,
    shared: Shared = None,
    remove: Annotated[bool, typer.Option("--remove", help="Delete these keys instead.")] = False,
) -> None:
    """Store values or files in the long-term memory of a flow, or in a shared memory."""
    from kodo.client.memory import put_memory
    from kodo.p2p.errors import UsageError

    scope, of = _which(flow, shared)
    if scope is None or of is None:
        raise UsageError("choose a memory with --flow PATH or --shared NAME")
    pairs = [(word, None) if remove else _pair(word) for word in words]
    async with context.client() as client:
        remote = await client.node(_node(context))
        for key, value in pairs:
            done = await put_memory(remote, scope, of, key, value, remove=remove)
            if context.json:
                context.emit(done)
    if not context.json:
        context.say(f"{len(pairs)} {'removed' if remove else 'stored'}")


def _node(context: Context) -> str:
    """Return the node that is meant: `--node`, or the one that runs from this home."""
    from kodo.client.finders import read_home_node
    from kodo.p2p.errors import NotFoundError

    here = read_home_node(context.loaded.home) if context.node is None else None
    wanted = context.node or (str(here["peer_id"]) if here is not None else None)
    if wanted is None:
        raise NotFoundError(f"no node runs from {context.loaded.home}; name one with --node")
    return wanted


def _which(flow: str | None, shared: str | None) -> tuple[str | None, str | None]:
    from kodo.p2p.errors import UsageError

    if flow is not None and shared is not None:
        raise UsageError("--flow and --shared name two memories; use one")
    if flow is not None:
        return "long", flow
    return (None, None) if shared is None else ("shared", shared)


def _pair(word: str) -> tuple[str, Any]:
    import json
    from pathlib import Path

    from kodo.p2p.errors import UsageError

    key, equals, text = word.partition("=")
    if not key or not equals:
        raise UsageError(f"{word[:80]!r} is not KEY=VALUE; to delete keys, use --remove")
    if text.startswith("@"):
        return key, Path(text[1:]).expanduser()
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="Read and change what flows remember, as their developer.", no_args_is_help=True)
    command(group, "list", bounded=True)(list_memory)
    command(group, "put")(put_memory)
    app.add_typer(group, name="memory")
