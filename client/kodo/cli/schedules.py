"""`koco schedule`, `schedules`, `unschedule`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_flow
from kodo.cli.running import NODE_FLOW_HELP, Inputs, Texts, WordsKept

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.cli.table import Table

__all__ = ["register", "schedule_table"]

Sid = Annotated[str, typer.Argument(metavar="SID", help="The schedule: NODE/SID or SID.")]


async def schedule(
    context: Context,
    flow: Annotated[str, typer.Argument(metavar="FLOW", help=NODE_FLOW_HELP, autocompletion=complete_flow)],
    words: WordsKept = None,
    inputs: Inputs = None,
    text: Texts = None,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="FIELDS",
            help="Minute, hour, day of month, month and day of week, e.g. '0 7 * * MON-FRI'.",
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Once, e.g. '2026-12-01 07:00' or 2026-12-01T07:00Z.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="Repeatedly, counted from now, e.g. 30m or 12h."),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            "--tz", metavar="ZONE", help="Time zone of --cron and --at, e.g. Europe/Berlin. Default: this machine's."
        ),
    ] = None,
    missed: Annotated[
        str,
        typer.Option(
            "--missed",
            metavar="once|skip",
            help="What to do about times at which the node was down: launch one run, or none.",
        ),
    ] = "once",
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="skip|queue|allow",
            help="What to do while an earlier run is unfinished: skip this launch, queue it until that run is"
            " over, or allow both.",
        ),
    ] = "skip",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag for the runs; may be repeated.")
    ] = None,
) -> None:
    """Launch a flow at set times, even while you are away. Its node does it; secrets cannot be inputs."""
    from kodo.cli.launching import given_inputs, upload_files
    from kodo.cli.text import shell_word
    from kodo.client.resolve import is_local_flow
    from kodo.client.schedules import schedule_args
    from kodo.p2p.errors import UsageError

    if missed not in ("once", "skip"):
        raise UsageError("--missed must be once or skip")
    if overlap not in ("skip", "queue", "allow"):
        raise UsageError("--overlap must be skip, queue or allow")
    if sum(each is not None for each in (cron, at, every)) != 1:
        raise UsageError("say when: exactly one of --cron, --at and --every")
    schedule_args(cron=cron, at=at, every=every, tz=tz, missed=missed, overlap=overlap, tags=tag)
    if is_local_flow(flow) and context.node is None:
        raise UsageError("a local flow ends with its command; offer it with `koco up`, and schedule it there")
    async with context.client() as client:
        found = await client.find_flow(flow)
        values = await given_inputs(
            context, found.name, found.inputs_schema, words=words or [], texts=text, file=inputs, ask=True
        )
        await client.prove(found, values)
        values = await upload_files(context, client, found, values)
        made = await client.schedules.add(
            found,
            cron=cron,
            at=at,
            every=every,
            tz=tz,
            missed="once" if missed == "once" else "skip",
            overlap="queue" if overlap == "queue" else "allow" if overlap == "allow" else "skip",
            inputs=values,
            tags=tag,
        )
    if context.json:
        context.emit(made)
        return
    address = shell_word(f"{found.remote.reach}/{made.get('sid')}")
    context.show(address)
    context.say(f"{found.name} on {found.remote}: {when_text(made)}; next {_next_text(made)}")
    context.say(f"to end it: koco unschedule {address}")


async def schedules(
    context: Context,
    others: Annotated[
        bool, typer.Option("--others", help="Also list schedules of others, where you are an operator.")
    ] = False,
    pause: Annotated[str | None, typer.Option("--pause", metavar="SID", help="Pause this schedule instead.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="SID", help="Resume this schedule instead, with the next time from now."),
    ] = None,
) -> None:
    """List your schedules, and when each is due next. --pause and --resume change one."""
    from kodo.cli.text import human_time, shell_word
    from kodo.p2p.errors import UsageError

    if pause is not None and resume is not None:
        raise UsageError("use --pause or --resume, not both")
    async with context.client() as client:
        if (sid := pause or resume) is not None:
            changed = await client.schedules.pause(sid, paused=pause is not None)
            if context.json:
                context.emit(changed)
            else:
                then = "paused" if changed.get("paused") else f"resumed; next {_next_text(changed)}"
                context.say(f"schedule {changed.get('sid')} of {changed.get('name')} is {then}")
            return
        rows = await client.schedules.list(others=others)
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    mixed = any(row.get("own") is False for row in rows)
    table = schedule_table(mixed)
    for row in rows:
        whose = ["yours" if row.get("own") is not False else row.get("launcher") or ""] if mixed else []
        last = row.get("last")
        told = ""
        if isinstance(last, Mapping):
            told = f"{human_time(last.get('due'))} {last.get('reason') or last.get('fid') or ''}".strip()
        address = shell_word(f"{row['node']}/{row.get('sid')}")
        table.add(address, row.get("name"), when_text(row), _next_text(row), *whose, row.get("launches"), told)
    context.show_table(table, "nothing is scheduled on the nodes nearby; --node NODE asks a node elsewhere")


def schedule_table(mixed: bool) -> Table:
    """Return the table of schedules; `mixed`: of several people."""
    from kodo.cli.table import Table

    header = ("SCHEDULE", "FLOW", "WHEN", "NEXT", *(["WHOSE"] if mixed else []), "RUNS", "LAST")
    return Table(*header, whole=["SCHEDULE"], title="FLOW", spared=["NEXT", "WHEN", "LAST", "RUNS"])


async def unschedule(context: Context, sid: Sid) -> None:
    """Remove a schedule. Runs that it has launched go on."""
    async with context.client() as client:
        answer = await client.schedules.remove(sid)
    if context.json:
        context.emit(answer)
    else:
        context.say(f"schedule {answer.get('sid')} is removed")


def when_text(row: Mapping[str, Any]) -> str:
    """Return when a schedule is due, for people: `0 7 * * MON-FRI (Europe/Berlin)`, `every 30m`, `once`."""
    from kodo.cli.text import human_seconds, line

    if row.get("cron") is not None:
        return line(f"{row['cron']} ({row.get('tz')})", 160)
    if row.get("every_s") is not None:
        return f"every {human_seconds(row['every_s'])}"
    return "once"


def _next_text(row: Mapping[str, Any]) -> str:
    from kodo.cli.text import human_time

    if row.get("paused"):
        return "paused"
    times = row.get("next")
    if not isinstance(times, (list, tuple)) or not times:
        return "never"
    return "waits" if row.get("waits") else human_time(times[0])


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "schedule")(schedule)
    for short in (schedules, unschedule):
        command(app, short.__name__, bounded=True)(short)
