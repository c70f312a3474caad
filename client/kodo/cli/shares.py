"""`koco share`, `shares`, `unshare`, `get`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_run
from kodo.cli.links import PageHost, page_link, show_link
from kodo.cli.outputs import Out

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]

RunId = Annotated[str, typer.Argument(metavar="FID", help="The run: NODE/FID or FID.", autocompletion=complete_run)]


async def share(
    context: Context,
    fid: RunId,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="WHO",
            help="A user's name or peer id, or a role (operator, developer, user, role:NAME); may be repeated."
            " Default: make a link, which works for whoever has it.",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            "--level",
            min=0,
            max=2,
            help="What the share shows: 0 state, inputs and result; 1 also files; 2 everything. Default: 1.",
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long the share is valid, e.g. 7d, 12h or 30m.")
    ] = "7d",
    downloads: Annotated[
        int | None,
        typer.Option(
            "--downloads",
            min=1,
            metavar="N",
            help="End the share after this many complete downloads. Default: no limit.",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="r|x",
            help="r: read only. x: users and roles may also answer the run's questions and kill it.",
        ),
    ] = "r",
    host: PageHost = None,
    qr: Annotated[bool, typer.Option("--qr", help="Also show the link as a QR code, to be read by a phone.")] = False,
) -> None:
    """Share a run with users or roles, or by a link."""
    import shlex

    from kodo.cli.text import human_time
    from kodo.client.links import page_url
    from kodo.p2p.errors import UsageError

    if mode not in ("r", "x"):
        raise UsageError("--mode must be r or x")
    if host is not None:
        host = page_url(host)
        if to:
            raise UsageError("--host is for a link; leave it out, or leave out --to")
    if qr and (to or context.json):
        raise UsageError("--qr shows a link at a terminal; leave it out, or leave out --to and --json")
    async with context.client() as client:
        found = await client.run(fid)
        made = await found.share(to or None, level=level, mode=mode, expires=expires, downloads=downloads)
    page = None if made.link is None else page_link(context, made.link, made.at, host)
    if context.json:
        terms = {"fid": made.fid, "level": made.level, "mode": made.mode, "expires_at": made.expires_at}
        context.emit({"sid": made.sid, "link": made.link, "page": page, "token": made.token, **terms})
        return
    if made.link is not None:
        show_link(
            context, made.link, page, host, "to fetch the files: koco get - --out DIR, and enter this link", qr=qr
        )
    end = f"koco unshare {shlex.quote(found.address.rpartition('/')[0] + '/' + made.sid)}"
    context.say(f"share {made.sid}, until {human_time(made.expires_at)}; end it with: {end}")


async def shares(
    context: Context,
    fid: Annotated[
        str | None, typer.Argument(metavar="FID", help="Only shares of this run.", autocompletion=complete_run)
    ] = None,
) -> None:
    """List your shares and their state."""
    from kodo.cli.display import shared_with
    from kodo.cli.table import Table
    from kodo.cli.text import human_time

    async with context.client() as client:
        rows = await client.shares() if fid is None else await (await client.run(fid)).shares()
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    table = Table(
        *("SID", "STATE", "FOR", "LEVEL", "DOWNLOADS", "UNTIL", "FLOW", "FID"),
        ids=["SID", "FID"],
        title="FLOW",
        spared=["UNTIL", "DOWNLOADS", "LEVEL"],
    )
    for row in rows:
        limit = row.get("downloads")
        counted = "" if limit is None else f"{row.get('done')} of {limit}"
        table.add(
            row.get("sid"),
            row.get("state"),
            shared_with(row),
            f"{row.get('level')} {row.get('mode')}",
            counted,
            human_time(row.get("expires_at")),
            row.get("name"),
            row.get("fid"),
        )
    context.show_table(table, "nothing is shared")


async def unshare(
    context: Context,
    sid: Annotated[str, typer.Argument(metavar="SID", help="The share or invitation: NODE/SID or SID.")],
) -> None:
    """End a share or an invitation. Access through it stops within a second."""
    async with context.client() as client:
        answer = await client.unshare(sid)
    if context.json:
        context.emit(answer)
    else:
        context.say(f"{answer.get('sid')} is revoked")


async def get(
    context: Context,
    link: Annotated[
        str,
        typer.Argument(
            metavar="LINK",
            help="The link. - asks for it, env:VARIABLE reads it from the environment.",
        ),
    ],
    out: Out = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until the run is finished (default), or download what there is.",
            show_default=False,
        ),
    ] = True,
) -> None:
    """Download and verify the files of a shared run, by its link. An interrupted download is resumed."""

    from kodo.cli.outputs import fetch
    from kodo.cli.secret import confirm_registry, read_secret
    from kodo.cli.text import compact, line

    text = await read_secret(link, "the link")

    async with context.client() as client:
        context.farewell = "what arrived is kept; the same command resumes the download"
        found = await client.get(text, confirm=confirm_registry(context))
        state = await found.state()
        if wait and state.get("state") not in ("done", "error"):
            context.say("the run is not finished; waiting for its end (--no-wait downloads what there is)")
            await found.wait()
            state = await found.state()
        if not context.json:
            context.say(f"{line(state.get('name'))} on {found.node}: {line(state.get('state'))}")
        answer = {"fid": found.fid, "files": [], "bytes": 0, "seconds": 0.0}
        if state.get("level"):
            answer = await fetch(context, found, out, None, overwrite, keep=True)
        elif not context.json:
            context.say("this link shows the run's inputs and result, but not its files")
            final = state.get("final")
            result = final.get("result") if isinstance(final, dict) else None
            if result is not None:
                context.show(result if isinstance(result, str) else compact(result, 20_000))
    if context.json:
        about = {
            "node": found.node,
            "peer_id": str(found.peer_id),
            "name": state.get("name"),
            "state": state.get("state"),
        }
        context.emit({**answer, **about, "route": found.route})


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "share", bounded=True)(share)
    command(app, "shares", bounded=True)(shares)
    command(app, "unshare", bounded=True)(unshare)
    command(app, "get")(get)
