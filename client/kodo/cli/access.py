"""`koco login`, `logout`, `whoami`, and what an operator does with `koco user`, `role` and `grant`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client
    from kodo.client.device_flow import Prompt
    from kodo.client.login import Approval

__all__ = ["register"]

PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="Read the password from this file; - reads stdin."),
]
Name = Annotated[str, typer.Argument(metavar="NAME")]
What = Annotated[list[str], typer.Argument(metavar="WHAT…")]


# --- oneself ---


async def login(
    context: Context,
    code: Annotated[
        str | None,
        typer.Option(
            "--code", metavar="CODE", help="Log in with a code that an operator made for this device; - asks for it."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="USER", help="Log in as this user, with a password.")
    ] = None,
    password_file: PasswordFile = None,
    issuer: Annotated[
        str | None,
        typer.Option(
            "--issuer",
            metavar="URL",
            help="Approve in advance that the node or registry receives tokens of this issuer.",
        ),
    ] = None,
) -> None:
    """Log in to a node, or to a registry with --registry. The login is valid there only."""
    from kodo.cli.secret import read_secret
    from kodo.cli.text import shell_word
    from kodo.client.registry_account import is_registry

    async with context.client() as client:
        node = _node(context)
        remote = await client.desk(node)
        info = await remote.request("auth.info")
        way = _way(info, code, name, issuer, "registry" if is_registry(node) else "node")
        if way == "oidc":
            answer = await client.login(
                node,
                issuer=_named_issuer(context, issuer, info),
                show=lambda prompt: _show_prompt(context, prompt),
                approve=partial(_approved, context, client, str(remote)) if context.interactive else None,
            )
        elif way == "password" and name is not None:
            answer = await client.login(
                node, name=name, password=await _password(context, password_file, twice=False)
            )
        else:
            if code is None:
                peer = (await remote.request("auth.whoami")).get("peer_id")
                context.say(
                    f"an operator of {remote} makes a code for this device: koco user enrol NAME {shell_word(peer)}"
                )
                code = await _ask(context, "the code", "--code -, or --name USER for a password")
            answer = await client.login(node, code=await read_secret(code, "the code"))
    if context.json:
        context.emit(answer)
    else:
        context.say(f"logged in to {remote} as {answer.get('user')}")


async def logout(context: Context) -> None:
    """Log out of a node, or of a registry with --registry."""
    async with context.client() as client:
        node = _node(context)
        ended = await client.logout(node)
    if context.json:
        context.emit({"node": node, "logged_out": ended})
    else:
        context.say("logged out" if ended else "there was no login")


async def whoami(context: Context) -> None:
    """Show how a node, or a registry with --registry, knows you, and what you may do there."""
    async with context.client() as client:
        answer = await client.whoami(_node(context))
    if context.json:
        context.emit(answer)
        return
    context.show(f"registry {answer['registry']}" if "registry" in answer else f"node     {answer['node']}")
    context.show(f"user     {answer.get('user') or 'not logged in'}")
    context.show(f"peer id  {answer.get('peer_id')}")
    context.show(f"roles    {', '.join(map(str, answer.get('roles') or ())) or 'none'}")
    for glob in answer.get("develops") or ():
        context.show(f"develops {glob}")
    for grant in answer.get("grants") or ():
        context.show(f"grant    {grant}")
    if not answer.get("user") and not answer.get("roles"):
        context.say(f"log in to do anything here: koco login {_meant(context)}")


# --- users ---


async def user_add(
    context: Context,
    name: Name,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="Role of the user; may be repeated. Default: user."),
    ] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for the user's password.")] = False,
    password_file: PasswordFile = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Allow the name of a removed user. The new user gets the runs and shares that are left."
        ),
    ] = False,
) -> None:
    """Add a user. Without a password, the user logs in from enrolled devices (koco user enrol)."""
    args: dict[str, Any] = {"name": name}
    if again:
        args["again"] = True
    if role:
        args["roles"] = role
    if password or password_file is not None:
        args["password"] = await _password(context, password_file, twice=True)
    await _do(context, "user.add", args, f"added the user {name}")


async def user_list(context: Context) -> None:
    """List users with their roles, grants and devices."""
    rows = await _rows(context, "user.list", {})
    if rows is None:
        return
    from kodo.cli.table import Table

    table = Table("USER", "PASSWORD", "DEVICES", "ROLES", "GRANTS")
    for row in rows:
        password, devices = "yes" if row.get("password") else "no", len(row.get("devices") or ())
        table.add(row.get("name"), password, devices, _words(row, "roles"), _words(row, "grants"))
    context.show_table(table, "there are no users; add one: koco user add NAME")


async def user_remove(context: Context, name: Name) -> None:
    """Remove a user. Open sessions end within a minute."""
    await _do(context, "user.remove", {"name": name}, f"removed the user {name}")


async def user_password(
    context: Context,
    name: Name,
    none: Annotated[bool, typer.Option("--none", help="Remove the password.")] = False,
    own: Annotated[bool, typer.Option("--own", help="Change your own password; asks for the old one.")] = False,
    password_file: PasswordFile = None,
) -> None:
    """Set a user's password. All logins of the user end."""
    args: dict[str, Any] = {"name": name, "password": None}
    if own:
        args["old"] = await _ask(context, "the old password", secret=True)
    if not none:
        args["password"] = await _password(context, password_file, twice=True)
    await _do(context, "user.password", args, f"{name} now has {'no password' if none else 'a new password'}")


async def user_enrol(
    context: Context,
    name: Name,
    peer_id: Annotated[
        str,
        typer.Argument(metavar="PEER_ID", help="The device's peer id: `koco id` shows it on the device, as user."),
    ],
) -> None:
    """Make a code with which one device can log in as a user, once, within 10 minutes."""
    answer = await _request(context, "user.enrol", {"name": name, "peer_id": peer_id})
    if context.json:
        context.emit(answer)
        return
    context.show(str(answer.get("code")))
    context.say(
        f"on that device: koco login {_meant(context)} --code -, and enter it there; it works once, within 10 minutes"
    )


async def user_logout(
    context: Context,
    name: Name,
    device: Annotated[str | None, typer.Option("--device", metavar="PEER_ID", help="Only on this device.")] = None,
) -> None:
    """End the logins of a user, on one device or on all."""
    from kodo.p2p.core.identity import PeerId
    from kodo.p2p.errors import UsageError

    if device is not None:
        try:
            PeerId.parse(device)
        except ValueError as error:
            raise UsageError(f"--device: {error}") from None
    args = {"name": name} if device is None else {"name": name, "peer_id": device}
    await _do(context, "user.logout", args, f"ended the logins of {name}")


async def user_grant(context: Context, name: Name, what: What) -> None:
    """Give a user roles (user, operator, developer:GLOB …) or grants (flow://GLOB/1/r …). Those it has stay."""
    await _change(context, _changes_of_user(name, what, "role.assign", "grant.add"), f"gave {name} {', '.join(what)}")


async def user_revoke(context: Context, name: Name, what: What) -> None:
    """Take roles or grants from a user."""
    await _change(
        context, _changes_of_user(name, what, "role.unassign", "grant.remove"), f"took {', '.join(what)} from {name}"
    )


# --- roles and grants ---


async def role_add(context: Context, name: Name) -> None:
    """Add a role."""
    await _do(context, "role.add", {"name": name}, f"added the role {name}")


async def role_list(context: Context) -> None:
    """List roles and their grants."""
    rows = await _rows(context, "role.list", {})
    if rows is None:
        return
    from kodo.cli.table import Table

    table = Table("ROLE", "USERS", "GRANTS")
    for row in rows:
        table.add(row.get("name"), row.get("users"), _words(row, "grants"))
    context.show_table(table)


async def role_remove(context: Context, name: Name) -> None:
    """Remove a role, from all users too."""
    await _do(context, "role.remove", {"name": name}, f"removed the role {name}")


async def role_grant(context: Context, name: Name, what: What) -> None:
    """Give a role grants: node://GLOB, flow://GLOB/0|1|2/r|x, registry://GLOB/r|w."""
    changes = [("grant.add", {"role": name, "grant": grant}) for grant in what]
    await _change(context, changes, f"gave the role {name} {', '.join(what)}")


async def role_revoke(context: Context, name: Name, what: What) -> None:
    """Take grants from a role."""
    changes = [("grant.remove", {"role": name, "grant": grant}) for grant in what]
    await _change(context, changes, f"took {', '.join(what)} from the role {name}")


async def grant_list(
    context: Context,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help="Only grants of this user and of their roles."),
    ] = None,
    role: Annotated[str | None, typer.Option("--role", metavar="NAME", help="Only grants of this role.")] = None,
) -> None:
    """List who has which grant."""
    args = {key: value for key, value in (("user", user), ("role", role)) if value is not None}
    async with context.client() as client:
        desk = await client.desk(_node(context))
        rows = [row async for row in desk.pages("grant.list", args)]
        if user is not None:
            # What a user may do is what the roles of theirs may, too.
            held = [row async for row in desk.pages("user.list", {})]
            named = next((row.get("roles") for row in held if row.get("name") == user), None)
            roles = [str(each).partition(":")[0] for each in named] if isinstance(named, (list, tuple)) else []
            for each in roles:
                rows += [row async for row in desk.pages("grant.list", {"role": each})]
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    from kodo.cli.table import Table

    table = Table("WHO", "NAME", "GRANT")
    for row in rows:
        kind = "user" if "user" in row else "role"
        table.add(kind, row.get(kind), row.get("grant"))
    context.show_table(table, "there are no grants")


# --- inside ---


def _node(context: Context) -> str:
    """Return what is meant: the node named, else the registry named by --registry, else the node of this home."""
    from kodo.client.finders import read_home_node
    from kodo.p2p.errors import NotFoundError, UsageError

    if context.node is not None:
        return context.node
    urls = context.loaded.settings.registry
    if context.loaded.sources.get("registry") == "flag":
        if len(urls) != 1:
            raise UsageError(f"name one registry with --registry URL; there are {len(urls)}")
        return urls[0]
    here = read_home_node(context.loaded.home)
    if here is None:
        home = context.loaded.home
        raise NotFoundError(f"no node runs from {home}; name one with --node, or a registry with --registry")
    return str(here["peer_id"])


def _meant(context: Context) -> str:
    """Return the option by which another device names what is meant here: `--node NAME` or `--registry URL`."""
    from kodo.cli.text import shell_word
    from kodo.client.finders import read_home_node

    place = _node(context)
    here = read_home_node(context.loaded.home)
    if here is not None and place == str(here["peer_id"]):
        place = str(here.get("name") or place)
    option = "--registry" if place.startswith(("http://", "https://")) else "--node"
    return f"{option} {shell_word(place)}"


async def _request(context: Context, op: str, args: Mapping[str, Any]) -> dict[str, Any]:
    from kodo.p2p.errors import PeerError

    async with context.client() as client:
        remote = await client.desk(_node(context))
        answer = await remote.request(op, args, repeat=False)
    if not isinstance(answer, Mapping):
        raise PeerError(f"the answer to {op} is not a map")
    return dict(answer)


async def _rows(context: Context, op: str, args: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return all rows of a list, for a table; None when they were written as JSON."""
    async with context.client() as client:
        remote = await client.desk(_node(context))
        rows = [row async for row in remote.pages(op, args)]
    if not context.json:
        return rows
    context.emit({"total_records": len(rows), "result": rows})
    return None


async def _do(context: Context, op: str, args: Mapping[str, Any], said: str) -> None:
    answer = await _request(context, op, args)
    if context.json:
        context.emit(answer)
    else:
        context.say(said)


async def _change(context: Context, changes: Sequence[tuple[str, Mapping[str, Any]]], said: str) -> None:
    async with context.client() as client:
        remote = await client.desk(_node(context))
        answers = [await remote.request(op, args) for op, args in changes]
    if context.json:
        context.emit({"result": answers})
    else:
        context.say(said)


def _changes_of_user(
    name: str, what: Sequence[str], role_op: str, grant_op: str
) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (grant_op, {"user": name, "grant": each}) if "://" in each else (role_op, {"user": name, "role": each})
        for each in what
    ]


def _way(info: Any, code: str | None, name: str | None, issuer: str | None, place: str) -> str:
    """Choose how to log in: what was asked for, if the `place` (a node or registry) knows it."""
    from kodo.p2p.errors import UsageError

    said = info.get("login") if isinstance(info, Mapping) else None
    ways = [str(way) for way in said] if isinstance(said, (list, tuple)) else []
    if not ways:
        raise UsageError(f"this {place} has no users, so there is nothing to log in to")
    asked = [way for way, given in (("enrol", code), ("password", name), ("oidc", issuer)) if given is not None]
    if len(asked) > 1:
        raise UsageError("--code, --name and --issuer exclude each other; use one")
    way = asked[0] if asked else ways[0]
    if way not in ways:
        raise UsageError(f"this {place} does not accept logins by {way}; it accepts: {', '.join(ways)}")
    return way


def _named_issuer(context: Context, issuer: str | None, info: Mapping[str, Any]) -> str | None:
    """Return the issuer that was named; without one a person has to be asked."""
    from kodo.p2p.errors import UsageError

    if issuer is None and not context.interactive:
        raise UsageError(f"approve the issuer with --issuer {shlex.quote(str(info.get('issuer')))}")
    return issuer


async def _approved(context: Context, client: Client, node: str, approval: Approval) -> bool:
    """Ask the user to approve that a node, or a registry, gets tokens of an issuer."""

    def name(place: str) -> str:
        known = next((name for name, peer in client.known.all().items() if str(peer) == place), None)
        return place if known is None else f"{known} ({place})"

    where = node if node == approval.place else f"{node} ({approval.place})"
    context.say(f"{where} asks who you are, and will receive a token of yours")
    for word in ("issuer", "audience", "client_id", "scope"):
        context.say(f"  {word.replace('_', ' '):<10}{getattr(approval, word)}")
    if approval.before is not None:
        issuer, client_id, audience, scope = approval.before.terms
        context.say(f"earlier you approved: {issuer}, {audience}, {client_id}, {scope}")
    if approval.others:
        context.say(f"the same token is accepted by: {', '.join(map(name, approval.others))}")
        context.say("unless it is bound to your key, whoever gets it can act as you there")
    return (await _ask(context, "approve? (yes/no)", "--issuer")).strip().lower() in ("y", "yes")


def _show_prompt(context: Context, prompt: Prompt) -> None:
    if context.json:
        context.emit(
            {
                "open": prompt.uri,
                "open_complete": prompt.uri_complete,
                "code": prompt.code,
                "seconds": prompt.expires_s,
            }
        )
        return
    context.show(f"open   {prompt.uri_complete or prompt.uri}")
    context.show(f"code   {prompt.code}")
    context.say(f"waiting for your approval there, for up to {prompt.expires_s:g} s")


async def _password(context: Context, file: Path | None, *, twice: bool) -> str:
    from kodo.p2p.errors import UsageError

    if file is not None:
        return _read_line(file)
    password = await _ask(context, "password", "--password-file", secret=True)
    if not password:
        raise UsageError("the password is empty")
    if twice and await _ask(context, "again", "--password-file", secret=True) != password:
        raise UsageError("the two entries differ")
    return password


async def _ask(context: Context, what: str, instead: str | None = None, *, secret: bool = False) -> str:
    from kodo.cli.terminal import ask_line
    from kodo.p2p.errors import UsageError

    if not context.interactive:
        otherwise = f"; give {instead}" if instead else ""
        raise UsageError(f"{what} can be asked for on a terminal only{otherwise}")
    return await ask_line(f"{what}:", secret=secret)


def _read_line(file: Path) -> str:
    import sys

    from kodo.p2p.errors import UsageError

    try:
        raw = sys.stdin.buffer.read(4097) if str(file) == "-" else file.read_bytes()[:4097]
        password = raw.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as a password: {error}") from None
    if not password:
        raise UsageError(f"{file} is empty: it holds no password")
    return password


def _words(row: Mapping[str, Any], key: str) -> str:
    found = row.get(key)
    return " ".join(map(str, found)) if isinstance(found, (list, tuple)) else ""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "login")(login)
    command(app, "logout", bounded=True)(logout)
    command(app, "whoami", bounded=True)(whoami)
    groups: dict[str, tuple[str, dict[str, Any]]] = {
        "user": (
            "Manage the users of a node, or of a registry with --registry, that runs with --auth local.",
            {
                "add": user_add,
                "list": user_list,
                "remove": user_remove,
                "password": user_password,
                "enrol": user_enrol,
                "logout": user_logout,
                "grant": user_grant,
                "revoke": user_revoke,
            },
        ),
        "role": (
            "Manage the roles of a node, or of a registry with --registry.",
            {"add": role_add, "list": role_list, "remove": role_remove, "grant": role_grant, "revoke": role_revoke},
        ),
        "grant": ("List the grants of a node, or of a registry with --registry.", {"list": grant_list}),
    }
    for name, (help_, commands) in groups.items():
        group = typer.Typer(help=help_, no_args_is_help=True)
        for word, function in commands.items():
            command(group, word, bounded=function not in (user_add, user_password))(function)  # these ask
        app.add_typer(group, name=name)
