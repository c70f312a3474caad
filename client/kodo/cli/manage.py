"""`koco id`, `koco config`, `koco forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_node

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]


async def show_id(context: Context) -> None:
    """Show your peer id, and the node that runs from this home."""
    from kodo.client.finders import read_home_node
    from kodo.p2p.net.keystore import load_identity, make_home

    home = make_home(context.loaded.home)
    user = str(load_identity(home, "user").peer_id)
    node = read_home_node(home)
    if context.json:
        # The node's key is made here too when there is none yet, so that its peer id can be told before it starts.
        peer_id = node["peer_id"] if node else str(load_identity(home, "node").peer_id)
        named = {"name": node.get("name")} if node else {}
        addrs = node.get("addrs", []) if node else []
        here = {"peer_id": peer_id, **named, "addrs": addrs, "running": node is not None}
        # The rest repeats these two for programs that were written before they were told.
        before = {"peer_id": peer_id, **named, "addrs": addrs, "user_peer_id": user}
        context.emit({"user": {"peer_id": user}, "node": here, **before})
        return
    context.show(f"user  {user}")
    if node is None:
        context.show("node  none runs from this home")
        return
    context.show(f"node  {node.get('peer_id')}  {node.get('name')}")
    for address in node.get("addrs") or ():
        context.show(f"      {address}")


async def config(context: Context) -> None:
    """Show every setting, its value and where the value comes from."""
    from kodo.access.outgoing import shown_proxy
    from kodo.cli.table import Table
    from kodo.settings.fields import SECRETS
    from kodo.settings.home import ENVIRONMENT, NAMES, Settings

    said = context.loaded.settings.model_dump(mode="json")
    values = {"home": str(context.loaded.home), **{name: said[field] for name, field in NAMES.items()}}
    for name in SECRETS:
        given = values[name]
        mask = shown_proxy if name == "proxy" else _masked
        values[name] = [mask(each) for each in given] if isinstance(given, list) else given and mask(given)
    sources = context.loaded.sources
    if context.json:
        context.emit({name: {"value": value, "source": sources[name]} for name, value in values.items()})
        return
    table = Table("SETTING", "VALUE", "FROM", "ENVIRONMENT", "MEANING")
    fields = Settings.model_fields
    for name, value in values.items():
        shown = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value
        meaning = fields[NAMES[name]].description if name in NAMES else "Folder of keys and state."
        table.add(name, shown, sources[name], ENVIRONMENT.get(name, "KODO_HOME"), meaning)
    context.show_table(table)


def _masked(given: str) -> str:
    scheme, colon, _ = given.partition("://")
    return f"{scheme}:…" if colon else "…"


async def forget(
    context: Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="The node's name.", autocompletion=complete_node)],
) -> None:
    """Forget the name of a node, because the node is gone or got a new key. It is pinned again when it is used."""
    from kodo.client.known_nodes import KnownNodes
    from kodo.p2p.errors import NotFoundError

    known = KnownNodes(context.loaded.home / "known_nodes")
    peer_id = known.get(name)
    if peer_id is None or not known.forget(name):
        raise NotFoundError(f"no node is known as {name!r}; known names are in {known.path}")
    if context.json:
        context.emit({"node": name, "peer_id": str(peer_id)})
    else:
        context.say(f"{name} is forgotten; it was {peer_id}")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "forget", bounded=True)(forget)
    command(app, "id", bounded=True)(show_id)
    command(app, "config", bounded=True)(config)
