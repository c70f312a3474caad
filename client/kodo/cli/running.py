"""`koco run`, `ps`, `state`, `follow`, `locks`, `answer`, `restart`."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command
from kodo.cli.complete import complete_flow, complete_run
from kodo.cli.outputs import Keep

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import RunSelection

__all__ = ["FLOW_HELP", "NODE_FLOW_HELP", "Inputs", "Texts", "Words", "WordsKept", "register"]

NODE_FLOW_HELP = "NODE/PATH, NODE/NAME, or a name that only one flow has."
FLOW_HELP = (
    f"{NODE_FLOW_HELP[:-1].replace(', or', ',')}, or a local file: ./x.py[:flow], ./x.yaml, ./langgraph.json[:graph]."
)
MAX_LISTED = 50
"""How many runs `ps` shows when nothing is said of it."""

RunId = Annotated[str, typer.Argument(metavar="FID", help="The run: NODE/FID or FID.", autocompletion=complete_run)]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE",
        help="An input; NAME=@FILE reads a file. A secret: NAME=- asks for it, NAME=env:VARIABLE reads a variable.",
    ),
]
WordsKept = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE", help="An input. The node keeps it for the launch, so it cannot be a secret."
    ),
]
Inputs = Annotated[
    str | None, typer.Option("--inputs", metavar="FILE", help="JSON or YAML file with the values; - reads stdin.")
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="NAME=VALUE",
        help="An input that is taken literally, for texts that others wrote: @, - and env: have no meaning in it.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "--defaults", help="Answer each question with its default instead of asking.")
]


Logs = Annotated[
    bool,
    typer.Option("--logs", help="On a terminal: also show what the flow logs and prints, not only how many lines."),
]
Wide = Annotated[bool, typer.Option("--wide", help="On a terminal: shorten nothing.")]


async def run(
    context: Context,
    flow: Annotated[
        str | None, typer.Argument(metavar="[FLOW]", help=FLOW_HELP, autocompletion=complete_flow)
    ] = None,
    words: Words = None,
    inputs: Inputs = None,
    text: Texts = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="RUN",
            help="Run the flow of this run again, with its inputs; NAME=VALUE changes some of them. Leave FLOW out.",
        ),
    ] = None,
    each: Annotated[
        str | None,
        typer.Option(
            "--each", metavar="FILE", help="A run for each row of a .csv or .jsonl file; - is JSON on stdin."
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=64, metavar="N", help="With --each: how many runs at once.")
    ] = 4,
    detach: Annotated[bool, typer.Option("--detach", help="Launch the flow and do not wait for it.")] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Launch once: within 24 h, the same key returns the same run; with --each, the same runs.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Tag for the run; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Download the outputs to this folder at the end.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    yes: Yes = False,
    logs: Logs = False,
    wide: Wide = False,
    keep: Keep = False,
    later: Annotated[
        bool,
        typer.Option(
            "--later", help="Launch although required inputs are missing; the run waits for them (`koco answer`)."
        ),
    ] = False,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="What runs a local flow: ray or process. Default: process, unless it needs Ray.",
        ),
    ] = None,
) -> int | None:
    """Launch a flow, follow it and answer its questions. Ctrl-C leaves it running."""
    from kodo.cli.again import changed
    from kodo.cli.following import Look, come_back, follow_run, last_line, settle, show_end
    from kodo.cli.launching import given_inputs, upload_files
    from kodo.cli.outputs import fetch
    from kodo.client.resolve import is_local_flow
    from kodo.p2p.errors import UsageError

    if like is not None and flow is not None:
        words, flow = [flow, *(words or [])], None
    if (flow is None) == (like is None):
        raise UsageError("name the FLOW to run, or a run that it is to be like: --like RUN")
    local = flow is not None and is_local_flow(flow) and context.node is None
    if local and detach:
        raise UsageError(
            "a local flow ends with this command, so it cannot be detached; offer it with `koco up` instead"
        )
    if each is not None and (like is not None or local or yes or later):
        raise UsageError("--each is for a flow on a node; it cannot be combined with --like, --yes or --later")
    if executor and not local:
        raise UsageError("--executor is for a local flow; a node's flows are run as its operator says")
    async with AsyncExitStack() as stack:
        client_options: dict[str, Any] = {}
        node, values = None, None
        words, texts = words or [], text or []
        given = partial(given_inputs, context, words=words, texts=texts, file=inputs, ask=not yes and not later)
        if local:
            from kodo.cli.local import describe_local, embedded_node, prepare_node

            assert flow is not None
            context.cleaning = True
            described, _ = await asyncio.gather(describe_local(flow), prepare_node())
            values = await given(described.info["name"], described.info["schema"])
            if not later:
                _check_complete(described.info["schema"], values)
            node = await stack.enter_async_context(embedded_node(context, described, executor))
            flow, client_options["finders"] = described.info["path"], []
        client = await stack.enter_async_context(context.client(**client_options))
        if like is not None:
            earlier = await client.run(like)
            found = await earlier.flow()
            values = await given(found.name, found.inputs_schema, ask=False)
            values = changed(values, (await earlier.state()).get("inputs"), [*words, *texts])
            # What is missing is asked for by a lock, which a person at a terminal answers at once.
            strict = not later and not context.interactive
            await earlier.prove()
            started = await earlier.restart(
                await upload_files(context, client, found, values), key=key, tags=tag, strict=strict
            )
        else:
            assert flow is not None
            found = await client.find_flow(flow, node=node)
            if each is not None:
                from kodo.cli.each import read_rows, run_rows

                common = await given(found.name, found.inputs_schema, ask=False)
                return await run_rows(
                    context,
                    client,
                    found,
                    read_rows(each, found.inputs_schema, common),
                    parallel=parallel,
                    batch=key or "",
                    tags=tag,
                    out=out,
                    overwrite=overwrite,
                    detach=detach,
                    keep=keep,
                )
            if values is None:
                values = await given(found.name, found.inputs_schema)
            await client.prove(found, values)
            values = await upload_files(context, client, found, values)
            started = await client.launch(found, inputs=values, key=key, tags=tag, strict=not later)
        context.farewell = "interrupted; the local run ended with its node" if local else come_back(started)
        if detach:
            answer = {"fid": started.fid, "node": started.node, "state": started.launched_state}
            if context.json:
                context.emit(answer)
            else:
                context.show(started.address)
                context.say(come_back(started))
            return None
        title = found.name if local else f"{found.name} on {started.node}"
        if not context.json:
            context.say(f"{title}: {started.fid}")
        look = Look(found.name, None if local else started.node, logs=logs, wide=wide)
        await follow_run(context, started, look, defaults=yes)
        context.farewell = None
        code = show_end(context, started, downloads=out is None and not local)
        files: dict[str, Any] = {}
        if out is not None and started.view.outputs:
            files = await fetch(context, started, out, None, overwrite, keep=keep)
        elif not local and not keep:
            await settle(started)
        if local and out is None and started.view.outputs and not context.json:
            context.say("its files were not kept; use --out DIR to keep them")
        if context.json:
            context.emit({**last_line(started), **({"files": files["files"]} if files else {})})
        return code


def _check_complete(schema: Any, values: Mapping[str, Any]) -> None:
    """Refuse inputs that are not complete, before anything is started for them.

    Raises:
        UsageError: naming them.
    """
    from kodo.cli.forms import missing_inputs
    from kodo.p2p.errors import UsageError

    if absent := missing_inputs(schema, values):
        raise UsageError(f"the flow needs {', '.join(absent)}; give {' '.join(f'{name}=…' for name in absent)}")


async def ps(
    context: Context,
    wanted: RunSelection,
    all_: Annotated[
        bool, typer.Option("--all", help=f"All of them. Without it, and without --limit, the latest {MAX_LISTED}.")
    ] = False,
    wide: Wide = False,
) -> None:
    """List your runs, the latest first."""
    from dataclasses import replace

    from kodo.cli.complete import MAX_KEPT, keep
    from kodo.cli.display import progress_text
    from kodo.cli.run_filters import say_away
    from kodo.cli.table import Table
    from kodo.cli.text import compact, human_seconds, human_time, line, shell_word

    if wanted.limit is None and not all_ and not context.json:
        wanted = replace(wanted, limit=MAX_LISTED)
    async with context.client() as client:
        found = await client.find_runs(wanted)
    rows = found.rows
    keep(context.loaded.home, "runs", (f"{row['node']}/{row.get('fid')}" for row in rows[:MAX_KEPT]))
    if context.json:
        context.emit({"total_records": len(rows), "result": rows, "more": found.more, "away": found.away})
        return
    # Only where it says something: most people see runs of their own and no others.
    mixed = any(row.get("own") is False for row in rows)
    far = any(row.get("route") not in (None, "lan") for row in rows)
    more = [*(["WHOSE"] if mixed else []), "PROGRESS", "INPUTS", *(["ROUTE"] if far else [])]
    table = Table(
        *("RUN", "FLOW", "STATE", "CREATED", "RUNTIME", *more),
        ids=["RUN"],
        title="FLOW",
        spared=["WHOSE", "PROGRESS", "INPUTS", "RUNTIME", "ROUTE"],
    )
    for row in rows:
        # How far a run had come says nothing once it is over.
        state = row.get("state")
        progress = row.get("progress") if state in ("queued", "running", "locked") else None
        shown = progress_text(progress).lstrip() if isinstance(progress, Mapping) else ""
        if state == "queued":
            state = f"queued ({row.get('queue_position')})"
        elif row.get("waits"):
            state = f"waits for {line(row['waits'], 20)}"
        if state == "error":
            shown = str(row.get("error") or "")
        runtime = human_seconds(row["runtime_s"]) if row.get("runtime_s") is not None else ""
        created = human_time(row.get("created"))
        # Operators are told who launched it; developers only that it was somebody else.
        whose = ["yours" if row.get("own") is not False else row.get("launcher") or "another's"] if mixed else []
        address = shell_word(f"{row['node']}/{row.get('fid')}")
        inputs = row.get("inputs")
        pairs = inputs.items() if isinstance(inputs, Mapping) else ()
        given = " ".join(f"{line(name, 40)}={compact(value, 80)}" for name, value in pairs)
        table.add(
            address,
            row.get("name"),
            state,
            created,
            runtime,
            *whose,
            shown,
            given,
            *([row.get("route")] if far else []),
        )
    say_away(context, found.away)
    which = "such runs" if wanted.narrow else "runs of yours"
    asked = "the nodes that answered" if found.away else "the near nodes"
    context.show_table(table, f"no {which} on {asked}; --node NODE asks one that is further away", wide=wide)
    if found.more:
        context.say(f"there are more; the latest {wanted.limit} are shown (--all, --limit N, --since WHEN)")


async def state(context: Context, fid: RunId) -> None:
    """Show the state of a run."""
    from kodo.cli.display import state_rows

    async with context.client() as client:
        answer = await (await client.run(fid)).state()
    if context.json:
        context.emit(answer)
        return
    for name, value in state_rows(answer):
        context.show(f"{name:<13} {value}")


async def follow(
    context: Context,
    fid: RunId,
    after: Annotated[int, typer.Option("--after", metavar="N", min=0, help="Begin after event N.")] = 0,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Show the events there are, and do not wait for more.")
    ] = False,
    yes: Yes = False,
    logs: Logs = False,
    wide: Wide = False,
    keep: Keep = False,
) -> int:
    """Follow a run to its end, from its first event or a later one."""
    from kodo.cli.following import Look, come_back, follow_run, last_line, settle, show_end

    async with context.client() as client:
        found = await client.run(fid)
        context.farewell = come_back(found)
        look = Look(f"run {found.fid}", found.node, logs=logs, wide=wide)
        await follow_run(context, found, look, after=after, live=not no_wait, defaults=yes)
        context.farewell = None
        if after and not found.view.state.over:
            await _complete(found)
        if not keep:
            await settle(found)
        if context.json:
            context.emit(last_line(found))
        return show_end(context, found)


async def _complete(run: Any) -> None:
    """Learn the end of a run of which nothing was left to be shown."""
    state = await run.state()
    view = run.view
    if state.get("state") == "done":
        view.final = state.get("final") if isinstance(state.get("final"), dict) else {"result": state.get("final")}
    elif state.get("state") == "error" and view.fatal is None:
        view.fatal = state.get("fatal") if isinstance(state.get("fatal"), dict) else {}
    for output in await run.made(state):
        view.outputs.setdefault(str(output.get("name")), output)


async def locks(context: Context) -> None:
    """List the questions that wait for your answer."""
    from kodo.cli.table import Table
    from kodo.cli.text import human_time, shell_word

    async with context.client() as client:
        rows = await client.locks()
    if context.json:
        context.emit({"total_records": len(rows), "result": rows})
        return
    table = Table("RUN", "LOCK", "UNTIL", "TITLE", ids=["RUN", "LOCK"], title="TITLE")
    for row in rows:
        until = human_time(row.get("expires_at"))
        table.add(shell_word(f"{row['node']}/{row.get('fid')}"), row.get("lid"), until, row.get("title"))
    none = "no question waits for you on the nodes nearby; --node NODE asks a node elsewhere"
    context.show_table(table, none)


async def answer(
    context: Context,
    fid: RunId,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LID|NAME=VALUE", help="The answer. Begin with the LID where several questions are open."
        ),
    ] = None,
    inputs: Inputs = None,
    text: Texts = None,
    yes: Annotated[bool, typer.Option("--yes", "--defaults", help="Answer with the default.")] = False,
) -> None:
    """Answer a question (lock) of a run."""
    from kodo.cli.following import RETRIED, again, say_refusal
    from kodo.p2p.errors import CallError, NotFoundError, UsageError
    from kodo.protocol.ids import is_id

    rest = list(words or [])
    lid = rest.pop(0) if rest and is_id(rest[0]) else None
    async with context.client() as client:
        found = await client.run(fid)
        if lid is None:
            state = await found.state()
            rows = [row for row in state.get("locks") or () if isinstance(row, Mapping)]
            if not rows:
                raise NotFoundError(f"no question is open in {found.address}")
            if len(rows) > 1:
                choices = ", ".join(f"{shlex.quote(str(row.get('lid')))} ({row.get('title')})" for row in rows[:8])
                raise UsageError(f"several questions are open; name one: {choices}")
            lid = str(rows[0].get("lid"))
        lock = await found.lock(lid)
        asks = context.interactive and not (rest or text or inputs or yes)
        while True:
            candidate = await _candidate(context, lock, rest, text or [], inputs, yes)
            try:
                unlock = await found.answer(lid, candidate)
                break
            except CallError as error:
                if not asks or error.code not in RETRIED:
                    raise
                say_refusal(context, error)
                default, known = again(lock.get("schema"), candidate, (lock.get("default"), "default" in lock))
                lock = {**lock, "default": default} if known else lock
    if context.json:
        context.emit({"fid": found.fid, "lid": lid, "unlock": unlock})
    else:
        context.say("accepted")


async def _candidate(
    context: Context, lock: Mapping[str, Any], words: list[str], texts: list[str], file: str | None, yes: bool
) -> Any:
    from kodo.cli.following import ask_for
    from kodo.cli.secret import is_elsewhere, read_secret, secret_values, warn_of
    from kodo.cli.text import line
    from kodo.cli.values import answer_words, parse_assignments, read_inputs_file
    from kodo.client.inputs import read_literal, read_word, to_inputs
    from kodo.client.schemas import is_object, is_secret, resolve
    from kodo.p2p.errors import UsageError

    schema = lock.get("schema")
    root = schema if isinstance(schema, Mapping) else {}
    fields = is_object(resolve(root, root))
    whole = fields and len(words) == 1 and words[0].lstrip().startswith("{")
    if fields and not whole and (words or texts or file is not None):
        given = parse_assignments(words, root, await secret_values(context, words, root), texts)
        return {**(to_inputs(read_inputs_file(file), root) if file is not None else {}), **given}
    if texts:
        words, read = [texts[-1].removeprefix("value=")], read_literal
    else:
        read = read_word
    if words:
        text, secret = " ".join(words).removeprefix("value="), is_secret(root, root)
        if secret and not texts:
            if not is_elsewhere(text):
                warn_of(context, "value")
            text = await read_secret(text, "the answer")
        try:
            return read(text, root, root)
        except ValueError as error:
            shown = "" if secret else f"; it is {text[:80]!r}"
            raise UsageError(f"the answer should be {error}{shown}") from None
    title = line(lock.get("title", ""), 200)
    if yes:
        if "default" not in lock:
            raise UsageError(f"{title!r} has no default; answer it")
        return lock["default"]
    if context.interactive:
        return await ask_for(context, str(lock.get("title", "")), root, lock.get("default"), "default" in lock)
    default = "; or --yes to take the default" if "default" in lock else ""
    raise UsageError(f"give the answer to {title!r}: {answer_words(root)}{default}")


async def restart(context: Context, fid: RunId) -> None:
    """Launch a flow again, with the inputs of an earlier run."""
    from kodo.cli.following import come_back

    async with context.client() as client:
        found = await client.run(fid)
        started = await found.restart()
    if context.json:
        context.emit(
            {"fid": started.fid, "node": started.node, "state": started.launched_state, "restarted": found.fid}
        )
    else:
        context.show(started.address)
        context.say(come_back(started))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for function in (run, follow, answer):
        command(app, function.__name__)(function)
    for short in (state, locks, restart):
        command(app, short.__name__, bounded=True)(short)
    command(app, "ps", filters=True, bounded=True)(ps)
