"""`koco nodes`, `koco flows`, `koco show`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_flow, keep

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.cli.table import Table

__all__ = ["register"]


Query = Annotated[
    str | None,
    typer.Option(
        "--query", metavar="EXPR", help="Filter in the syntax of pandas, e.g. 'online and \"market\" in tags'."
    ),
]


async def nodes(context: Context, query: Query = None) -> None:
    """List the nodes on the local network and in registries."""
    from kodo.cli.table import Table

    async with context.client() as client:
        rows = await client.nodes(query=query)
    if context.json:
        for row in rows:
            context.emit(row)
        return
    # Only where there has been a session.
    routes = ["ROUTE"] if any(row.get("route") for row in rows) else []
    table = Table("NAME", "PEER ID", "FLOWS", "ONLINE", "SOURCE", *routes, ids=["PEER ID"], title="NAME")
    for row in rows:
        said = row.get("online")
        online = {True: "yes", False: "unknown", None: "no"}[said] if said is None or isinstance(said, bool) else "?"
        table.add(
            row["name"],
            row["peer_id"],
            row.get("flows", ""),
            online,
            row["source"],
            *(row.get("route") or "" for _ in routes),
        )
    context.show_table(table, "no nodes found; start one with `koco up`, or name a registry with --registry")


async def flows(
    context: Context,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="GLOB",
            help="Pattern that name, description, author or tags must match, e.g. '*market*'.",
        ),
    ] = None,
    query: Query = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="FIELDS", help="Sort by these fields, e.g. 'name asc,published desc'."),
    ] = None,
) -> None:
    """List the flows on the local network and in registries."""
    from kodo.cli.text import shell_word

    table, count, listed = _flow_table(), 0, []
    async with context.client() as client, aclosing(client.flows(search, query=query, by=by)) as rows:
        async for row in rows:
            count += 1
            listed.append(f"{row.get('node')}/{row.get('path')}")
            if context.json:
                context.emit(row)
                continue
            broken = f"broken: {row['broken']}" if row.get("broken") else _first_line(row.get("description"))
            flow = shell_word(f"{row.get('node')}/{row.get('path')}")
            table.add(flow, row.get("name"), row.get("release"), row.get("author"), broken)
    keep(context.loaded.home, "flows", listed)
    if not context.json:
        context.show_table(table, "no flows found; `koco nodes` lists the nodes")


def _flow_table() -> Table:
    from kodo.cli.table import Table

    spared = ["DESCRIPTION", "AUTHOR", "RELEASE"]
    return Table("FLOW", "NAME", "RELEASE", "AUTHOR", "DESCRIPTION", ids=["FLOW"], title="NAME", spared=spared)


async def show(
    context: Context,
    flow: Annotated[
        str,
        typer.Argument(
            metavar="FLOW",
            help="NODE/PATH, NODE/NAME, a name that only one flow has, or a local file: ./x.py[:flow], ./x.yaml, "
            "./langgraph.json[:graph].",
            autocompletion=complete_flow,
        ),
    ],
) -> None:
    """Show what a flow does, which inputs it takes, and an example."""

    from kodo.cli.text import compact
    from kodo.client.resolve import is_local_flow

    if is_local_flow(flow) and context.node is None:
        from kodo.cli.local import describe_local

        info, address = (await describe_local(flow)).info, flow
        shown = ("path", "name", "description", "schema", "example", "returns")
        answer = {key: info[key] for key in shown if key in info}
    else:
        async with context.client() as client:
            answer = await client.show(flow)
        address = f"{answer.get('node')}/{answer.get('path')}"
    if context.json:
        context.emit(answer)
        return
    context.show(f"{answer.get('name')}  ({address})")
    if answer.get("description"):
        context.show(f"\n{answer['description']}")
    schema = answer.get("schema")
    rows = _input_rows(schema) if isinstance(schema, Mapping) else []
    context.show("\nInputs:" if rows else f"\n{_without_rows(schema)}")
    for row in rows:
        context.show(f"  {row}")
    if answer.get("contents_for"):
        context.show(f"\nWhat runs contain can be read by: {compact(answer['contents_for'])}")
    context.show(f"\n{_command(address, answer.get('example'))}")


def _without_rows(schema: Any) -> str:
    """Return what is said of a flow whose schema names no inputs."""
    takes_any = isinstance(schema, Mapping) and schema.get("additionalProperties") not in (None, False)
    return "Its inputs are not known here: it takes any." if takes_any else "It takes no inputs."


def _command(address: str, example: Any) -> str:
    """Return the command of an example: quoted, as people copy it and all that is in it is somebody else's."""
    from kodo.cli.text import compact, shell_command

    words = [f"{key}={compact(value)}" for key, value in example.items()] if isinstance(example, Mapping) else []
    return shell_command("koco run", address, *words)


def _input_rows(schema: Mapping[str, Any]) -> list[str]:
    from kodo.cli.text import compact, line
    from kodo.client.schemas import branches, group_of, help_texts, properties, resolve

    required = schema.get("required")
    rows = []
    heading = ""
    for name, inner in properties(schema).items():
        if (group := group_of(inner)) and group != heading:
            rows.append(line(f"— {group} —"))
        heading = group
        field = resolve(inner, schema)
        kinds = " or ".join(map(_kind, branches(field, schema)))
        needed = "needed" if isinstance(required, list) and name in required else "optional"
        if "default" in field:
            needed = f"default {compact(field['default'], 80)}"
        rows.append(line("  ".join([f"{name}  {kinds}, {needed}", *help_texts(field)])))
    return rows


def _kind(option: Mapping[str, Any]) -> str:
    from kodo.cli.text import compact
    from kodo.client.schemas import choices, labels

    if values := choices(option):
        names = labels(option)
        return ", ".join(
            f"{compact(each)} ({names[at]})" if names else compact(each) for at, each in enumerate(values)
        )
    kind = str(option.get("type", "anything"))
    return f"{kind} ({compact(option['format'], 40)})" if "format" in option else kind


def _first_line(text: object) -> str:
    return str(text or "").strip().split("\n", 1)[0]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "nodes", bounded=True)(nodes)
    command(app, "flows", bounded=True)(flows)
    command(app, "show", bounded=True)(show)
