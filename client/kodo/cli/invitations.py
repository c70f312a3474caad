"""`koco invite`, `invitations`, `open`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.links import PageHost, page_link, show_link
from kodo.cli.running import NODE_FLOW_HELP, Inputs, Texts, Words, WordsKept

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.cli.table import Table
    from kodo.client import Run
    from kodo.client.invitations import OpenInvitation

__all__ = ["invitation_table", "register"]


async def invite(
    context: Context,
    flow: Annotated[str, typer.Argument(metavar="FLOW", help=NODE_FLOW_HELP)],
    words: WordsKept = None,
    inputs: Inputs = None,
    texts: Texts = None,
    launches: Annotated[
        int, typer.Option("--launches", min=1, max=10_000, metavar="N", help="How many runs it may launch.")
    ] = 5,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long the invitation is valid, e.g. 7d, 12h or 30m.")
    ] = "7d",
    level: Annotated[
        int | None,
        typer.Option(
            "--level",
            min=0,
            max=2,
            help="What its holder sees of its runs: 0 state and result; 1 also files; 2 everything. Default: 1.",
        ),
    ] = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="A note that is shown to whoever opens the link.")
    ] = "",
    see: Annotated[
        bool, typer.Option("--see", help="See its runs yourself, with their inputs. Its holder is told.")
    ] = False,
    host: PageHost = None,
    qr: Annotated[bool, typer.Option("--qr", help="Also show the link as a QR code.")] = False,
) -> None:
    """Make a link by which others launch a flow in your name, without an account, and see those runs only."""
    from kodo.cli.launching import given_inputs
    from kodo.cli.text import human_time, shell_word
    from kodo.cli.values import check_assignments
    from kodo.client.invitations import expiry_seconds
    from kodo.client.links import page_url
    from kodo.client.resolve import is_local_flow
    from kodo.p2p.errors import UsageError

    expiry_seconds(expires)
    check_assignments(texts or [])
    if host is not None:
        host = page_url(host)
    if qr and context.json:
        raise UsageError("--qr shows a link at a terminal; leave it out, or leave out --json")
    if is_local_flow(flow) and context.node is None:
        raise UsageError("a local flow ends with its command; offer it with `koco up`, and invite to it there")
    async with context.client() as client:
        found = await client.find_flow(flow)
        values = await given_inputs(
            context, found.name, found.inputs_schema, words=words or [], texts=texts, file=inputs, ask=False
        )
        made = await client.invitations.add(
            found, launches=launches, expires=expires, level=level, note=note, see=see, inputs=values
        )
    page = page_link(context, made.link, made.at, host)
    if context.json:
        context.emit({**made.told, "page": page})
        return
    opens = "whoever has this link opens it with: koco open -, and enters it; they all see the runs launched by it"
    show_link(context, made.link, page, host, opens, qr=qr)
    end = shell_word(f"{found.remote.reach}/{made.sid}")
    until = human_time(made.told.get("expires_at"))
    count = f"{launches} launch{'' if launches == 1 else 'es'}"
    context.say(f"invitation {made.sid} to {found.name}, {count}, until {until}; end it with: koco unshare {end}")


async def invitations(context: Context) -> None:
    """List your invitations and their state. `koco unshare` ends one."""
    from kodo.cli.text import human_time, shell_word

    async with context.client() as client:
        rows = await client.invitations.list()
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    table = invitation_table()
    for row in rows:
        address = shell_word(f"{row['node']}/{row.get('sid')}")
        launched = f"{row.get('launched')} of {row.get('launches')}"
        until = human_time(row.get("expires_at"))
        table.add(address, row.get("state"), row.get("name"), launched, until, row.get("note"))
    context.show_table(table, "you have invited nobody")


def invitation_table() -> Table:
    """Return the table of invitations."""
    from kodo.cli.table import Table

    header = ("INVITATION", "STATE", "FLOW", "LAUNCHED", "UNTIL", "NOTE")
    return Table(*header, whole=["INVITATION"], title="FLOW", spared=["STATE", "LAUNCHED", "UNTIL", "NOTE"])


async def open_link(
    context: Context,
    link: Annotated[
        str,
        typer.Argument(metavar="LINK", help="The link. - asks for it, env:VARIABLE reads it from the environment."),
    ],
    words: Words = None,
    inputs: Inputs = None,
    texts: Texts = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="List the runs launched by the invitation instead of launching one.")
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="FID", help="Follow this run, launched by the invitation, instead of launching one."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Download the outputs to this folder at the end.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "--defaults", help="Answer each question with its default instead of asking.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Launch the flow and do not wait for it.")] = False,
) -> int | None:
    """Open an invitation to a flow: fill in its form, launch it, answer its questions and download what it makes."""

    from kodo.cli.launching import given_inputs, upload_files
    from kodo.cli.secret import confirm_registry, read_secret
    from kodo.cli.text import line
    from kodo.p2p.errors import UsageError
    from kodo.protocol.ids import is_id

    if run is not None and not is_id(run):
        raise UsageError(f"--run takes a FID, which has 26 characters, not {line(run, 40)!r}")
    text = await read_secret(link, "the link")

    async with context.client() as client:
        opened = await client.open(text, confirm=confirm_registry(context))
        if runs:
            await _list_runs(context, opened)
            return None
        if run is not None:
            return await _follow(context, opened, opened.run(run), out, overwrite=overwrite, yes=yes)
        _introduce(context, opened)
        found = opened.flow
        prefilled = opened.about.get("inputs")
        begun = dict(prefilled) if isinstance(prefilled, Mapping) else {}
        given = await given_inputs(
            context,
            found.name,
            found.inputs_schema,
            words=words or [],
            texts=texts,
            file=inputs,
            ask=not yes,
            known=begun,
        )
        started = await opened.launch(
            await upload_files(context, client, found, given), strict=not context.interactive
        )
        if detach:
            if context.json:
                context.emit({"fid": started.fid, "node": opened.node, "state": started.launched_state})
            else:
                context.show(started.fid)
                context.say(f"come back with: koco open - --run {shlex.quote(started.fid)}, and enter the link")
            return None
        return await _follow(context, opened, started, out, overwrite=overwrite, yes=yes)


def _introduce(context: Context, opened: OpenInvitation) -> None:
    """Show what the holder of an invitation should know before the first launch."""
    from kodo.cli.text import human_time, line

    about = opened.about
    context.say(f"{line(about.get('by'), 80)} invites you to {line(about.get('name'), 120)} on {opened.node}")
    if note := about.get("note"):
        context.say(f"  {line(note, 500)}")
    if text := about.get("description"):
        context.say(f"  {line(text, 300)}")
    begun = about.get("inputs")
    if isinstance(begun, Mapping) and begun:
        from kodo.cli.text import compact

        context.say(f"  it begins with {compact(begun, 300)}")
    until = human_time(opened.expires_at)
    context.say(f"  launched {about.get('launched')} of {about.get('launches')} times, valid until {until}")
    maker = "the person who made it can, too" if about.get("see") is True else "the person who made it cannot"
    context.say(f"  everybody who has this link can see the runs launched by it; {maker}")


async def _list_runs(context: Context, opened: OpenInvitation) -> None:
    from kodo.cli.table import Table
    from kodo.cli.text import human_time

    rows = await opened.runs()
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    table = Table("RUN", "STATE", "CREATED")
    for row in rows:
        table.add(row.get("fid"), row.get("state"), human_time(row.get("created")))
    context.show_table(table, "nothing was launched by this invitation")


async def _follow(
    context: Context, opened: OpenInvitation, run: Run, out: Path | None, *, overwrite: bool, yes: bool
) -> int:
    """Follow a run, answer its questions, and download what it made."""
    from kodo.cli.following import Look, follow_run, last_line, show_end
    from kodo.cli.outputs import fetch

    context.farewell = (
        f"the run goes on; come back with: koco open - --run {shlex.quote(run.fid)}, and enter the link"
    )
    title = f"{opened.flow.name} on {opened.node}"
    if not context.json:
        context.say(f"{title}: {run.fid}")
    await follow_run(context, run, Look(opened.flow.name, opened.node), defaults=yes)
    code = show_end(context, run, downloads=False)
    files: dict[str, Any] = {}
    if out is not None and run.view.outputs:
        files = await fetch(context, run, out, None, overwrite, keep=True)
    elif run.view.outputs and not context.json:
        context.say(
            f"fetch what it made with: koco open - --run {shlex.quote(run.fid)} --out DIR, and enter the link"
        )
    context.farewell = None
    if context.json:
        context.emit({**last_line(run), **({"files": files["files"]} if files else {})})
    return code


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "invite", bounded=True)(invite)
    command(app, "invitations", bounded=True)(invitations)
    command(app, "open")(open_link)
