"""What an operator does with a registry: `koco register`, `unregister`, `annotate`, `operator`, `mesh`, `stale` …"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.p2p.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from kodo.cli.runtime import Context
    from kodo.registry.client.operators import OperatorClient

__all__ = ["register"]

Name = Annotated[str, typer.Argument(metavar="NAME")]


async def register_name(
    context: Context,
    name: Name,
    peer: Annotated[
        str | None, typer.Option("--peer", metavar="PEER_ID", help="Only for the node with this peer id.")
    ] = None,
) -> None:
    """Register a node's name, so that a closed registry lists the node."""
    async with _registry(context) as at:
        answer = await at.register(name, peer)
    _tell(context, answer, f"{name} may announce itself" + (f", as {peer}" if peer else ""))


async def unregister_name(context: Context, name: Name) -> None:
    """Remove a name and its node from a registry, and from the registries that it told about the node."""
    async with _registry(context) as at:
        answer = await at.unregister(name)
    removed = len(answer.get("removed") or ())
    _tell(context, answer, f"{name} is off the list; {removed} node{'s' * (removed != 1)} removed")


async def annotate(
    context: Context,
    what: Annotated[
        str, typer.Argument(metavar="NODE[/PATH]", help="The node, by name or peer id, or one of its flows.")
    ],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD=VALUE…",
            help="What to show: tags=a,b hidden=true description=…; WORD= discards an annotation.",
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Discard earlier annotations first.")] = False,
) -> None:
    """Set what a registry shows of a node or flow, in place of the node's own words."""
    node, _, path = what.partition("/")
    async with _registry(context) as at:
        answer = await at.annotate(node, _words(words), path=path or None, replace=replace)
    shown = json.dumps(answer.get("words", {}), ensure_ascii=False)
    _tell(context, answer, f"{what}: {shown}")


async def operator(
    context: Context,
    code: Annotated[
        str | None,
        typer.Option("--enrol", metavar="CODE", help="Become an operator, with a code; - asks for it."),
    ] = None,
    invite: Annotated[
        bool, typer.Option("--invite", help="Make a code with which somebody can become an operator.")
    ] = False,
    dismiss: Annotated[
        str | None, typer.Option("--dismiss", metavar="PEER_ID", help="Dismiss this operator.")
    ] = None,
) -> None:
    """List the operators of a registry, or become, invite or dismiss one."""
    from kodo.cli.secret import read_secret

    if sum((code is not None, invite, dismiss is not None)) > 1:
        raise UsageError("use one of --enrol, --invite and --dismiss")
    async with _registry(context) as at:
        if code is not None:
            code = await read_secret(code, "the code")
            _tell(context, await at.enrol(code), "you are an operator of this registry now")
        elif invite:
            made = await at.code()
            if context.json:
                context.emit({"code": made})
            else:
                context.show(made)
                context.say("it works once, within a day: koco operator --enrol - --registry URL, and enter it there")
        elif dismiss is not None:
            _tell(context, await at.dismiss(dismiss), f"{dismiss} is no longer an operator")
        else:
            answer = await at.operators()
            rows = [{"peer_id": answer.get("owner"), "since": None}, *answer.get("result", ())]
            _list(context, rows, ("PEER ID", "peer_id"), ("SINCE", "since"))


async def mesh_add(
    context: Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the other registry.")],
    feed: Annotated[
        bool, typer.Option("--feed", help="Tell the other registry about nodes, instead of listing its nodes.")
    ] = False,
) -> None:
    """Make a registry list the nodes of another one, too; with --feed, tell the other one about its own nodes."""
    async with _registry(context) as at:
        answer = await at.add_to_mesh(url, feed=feed)
    _tell(context, answer, f"{url} is {'told of nodes' if feed else 'read'} from now on")


async def mesh_remove(
    context: Context, url: Annotated[str, typer.Argument(metavar="URL", help="URL of the other registry.")]
) -> None:
    """Make a registry ignore another one from now on. Records that came from it stay until they expire."""
    async with _registry(context) as at:
        answer = await at.remove_from_mesh(url)
    _tell(context, answer, f"{url} is left alone")


async def mesh_list(context: Context) -> None:
    """List the registries that a registry reads and feeds."""
    async with _registry(context) as at:
        answer = await at.mesh()
    _list(context, answer.get("result", []), ("REGISTRY", "url"), ("DOES", "does"))


async def stale(
    context: Context,
    clean: Annotated[bool, typer.Option("--clean", help="Remove these nodes.")] = False,
) -> None:
    """List the nodes that a registry has not heard from for 7 days; with --clean, remove them."""
    async with _registry(context) as at:
        rows = await (at.clean() if clean else at.stale())
    _list(context, rows, ("NODE", "name"), ("PEER ID", "peer_id"), ("SEEN", "seen_at"), ("FLOWS", "flows"))


async def audit(
    context: Context,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="How many changes to list.")
    ] = 500,
) -> None:
    """List what operators changed at a registry or node, latest first.

    Without --node it is the registry that is named by --registry, KODO_REGISTRY or in kodo.toml; where none is, the
    node of this home. The last 10,000 changes are kept.
    """
    rows: list[dict[str, Any]] = []
    async with aclosing(_audit_lines(context)) as lines:
        async for row in lines:
            rows.append(row)
            if len(rows) == limit:
                break
    for row in rows:
        row["data"] = json.dumps(row.get("data"), ensure_ascii=False) if not context.json else row.get("data")
    _list(context, rows, ("AT", "at"), ("WHAT", "what"), ("DATA", "data"), ("BY", "by"))


async def _audit_lines(context: Context) -> AsyncGenerator[dict[str, Any]]:
    node = _audited_node(context)
    if node is not None:
        async with context.client() as client:
            async for row in (await client.node(node)).pages("node.audit", {}):
                yield row
        return
    async with _registry(context) as at:
        page = pages = 1
        while page <= pages:
            told = await at.audit(page)
            page, pages = page + 1, int(told.get("total_pages", 0))
            for row in told.get("result", []):
                yield row


def _audited_node(context: Context) -> str | None:
    """Return the node that is meant; None: a registry is."""
    from kodo.client.finders import read_home_node

    if context.loaded.sources.get("node") == "flag":
        return context.node
    if context.loaded.settings.registry:
        return None
    here = read_home_node(context.loaded.home)
    return context.node or (None if here is None else str(here["peer_id"]))


@asynccontextmanager
async def _registry(context: Context) -> AsyncIterator[OperatorClient]:
    from kodo.client.login import LoginKeeper
    from kodo.client.logins import Logins
    from kodo.p2p.net.keystore import load_identity, make_home
    from kodo.registry.client.operators import OperatorClient

    urls = context.loaded.settings.registry
    if len(urls) != 1:
        raise UsageError(f"name one registry with --registry URL; there are {len(urls)}" if urls else _NONE)
    home, settings = make_home(context.loaded.home), context.loaded.settings
    logins = Logins(home / "logins.json", keyring=settings.keyring)
    keeper = LoginKeeper(logins, load_identity(home, "user"), bound=settings.login_bound)
    async with OperatorClient(urls[0], keeper.claimant(urls[0]), timeout=settings.timeout_s) as client:
        yield client


_NONE = "no registry is named; use --registry URL, or `registry` in kodo.toml"


def _words(given: Sequence[str]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for word in given:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise UsageError(f"{word!r} is not WORD=VALUE")
        words[name] = _value(name, text)
    return words


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    if name == "tags":
        return [tag.strip() for tag in text.split(",") if tag.strip()]
    if name == "hidden":
        if text.lower() not in ("true", "false"):
            raise UsageError(f"hidden is true or false, not {text!r}")
        return text.lower() == "true"
    if name in ("availability", "performance"):
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"{name} is a number, not {text!r}") from None
    return text


def _tell(context: Context, answer: dict[str, Any], sentence: str) -> None:
    if context.json:
        context.emit(answer)
    else:
        context.say(sentence)


def _list(context: Context, rows: Sequence[dict[str, Any]], *columns: tuple[str, str]) -> None:
    from kodo.cli.table import Table
    from kodo.cli.text import human_time

    if context.json:
        for row in rows:
            context.emit(row)
        return
    table = Table(*(title for title, _ in columns))
    for row in rows:
        table.add(
            *(human_time(row.get(key)) if key in ("at", "since", "seen_at") else row.get(key) for _, key in columns)
        )
    context.show_table(table, "none")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "register", bounded=True)(register_name)
    command(app, "unregister", bounded=True)(unregister_name)
    command(app, "annotate", bounded=True)(annotate)
    command(app, "operator")(operator)
    mesh = typer.Typer(
        help="Manage the other registries that a registry reads or feeds, as its operator.", no_args_is_help=True
    )
    command(mesh, "add", bounded=True)(mesh_add)
    command(mesh, "remove", bounded=True)(mesh_remove)
    command(mesh, "list", bounded=True)(mesh_list)
    app.add_typer(mesh, name="mesh")
    command(app, "stale", bounded=True)(stale)
    command(app, "audit", bounded=True)(audit)
