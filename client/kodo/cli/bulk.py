"""What is done to all runs that options such as `--state` and `--flow` mean: found, shown, agreed to, done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kodo.cli.exits import Exit, failure_of
from kodo.p2p.errors import KodoError, UsageError

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client, Run, RunSelection

__all__ = ["Verb", "change_runs", "is_bulk", "is_over"]

AT_ONCE = 8
SHOWN = 10

_CONTINUE = "[y/N]"


class Verb:
    """What is to be done to runs.

    Args:
        name: for people: `kill`.
        done: the same when it is done: `killed`.
        fits: whether it can be done to the run of a row of `run.list`; the others are left out.
        change: does it; gives what is told of it as JSON.
        at_once: to how many runs at once.
    """

    def __init__(
        self,
        name: str,
        done: str,
        fits: Callable[[Mapping[str, Any]], bool],
        change: Callable[[Run], Awaitable[Mapping[str, Any]]],
        at_once: int = AT_ONCE,
    ):
        self.name = name
        self.done = done
        self.fits = fits
        self.change = change
        self.at_once = at_once


def is_over(row: Mapping[str, Any]) -> bool:
    """Return whether the run of a row of `run.list` is over."""
    return row.get("state") in ("done", "error")


def is_bulk(fid: str | None, wanted: RunSelection, *, every: bool) -> bool:
    """Return whether several runs are meant.

    Raises:
        UsageError: neither one run nor several are named, or both.
    """
    if fid is not None:
        if wanted.narrow or every or wanted.others:
            raise UsageError("name one run, or say by options such as --state and --flow which are meant; not both")
        return False
    if not wanted.narrow and not every:
        raise UsageError("name a run, or say by options such as --state and --flow which are meant; --all means all")
    return True


async def change_runs(context: Context, client: Client, wanted: RunSelection, verb: Verb, *, yes: bool) -> int:
    """Do something to all runs that are meant, once the person has agreed to how many those are; give the exit code.

    Raises:
        UsageError: there is nobody to agree, and `yes` was not said.
    """
    found = await client.find_runs(wanted)
    for node, why in found.away.items():
        context.say(f"{node} was not asked: {why}")
    rows = [row for row in found.rows if verb.fits(row)]
    left_out = len(found.rows) - len(rows)
    if not rows:
        return _tell(context, verb, [], left_out)
    if not yes and not await _agreed(context, rows, left_out, verb):
        context.say("nothing was changed")
        return Exit.OK
    answers: dict[int, dict[str, Any]] = {}
    todo = iter(enumerate(rows))

    async def work() -> None:
        for number, row in todo:
            answers[number] = await _one(context, client, row, verb)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(verb.at_once, len(rows))):
            group.create_task(work())
    return _tell(context, verb, [answers[number] for number in sorted(answers)], left_out)


async def _agreed(context: Context, rows: Sequence[Mapping[str, Any]], left_out: int, verb: Verb) -> bool:
    """Show which runs are meant and ask."""
    from kodo.cli.terminal import ask_line

    count = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    if not context.interactive:
        raise UsageError(
            f"this would {verb.name} {count}; confirm with --yes, or select fewer with --limit and other options"
        )
    for row in rows[:SHOWN]:
        context.say(f"  {row.get('node')}/{row.get('fid')}  {row.get('name')}  {row.get('state')}")
    if len(rows) > SHOWN:
        context.say(f"  and {len(rows) - SHOWN} more")
    if left_out:
        context.say(f"({left_out} more match, but this cannot be done to them)")
    answer = await ask_line(f"{verb.name} {count}? {_CONTINUE} ")
    return answer.strip().lower() in ("y", "yes")


async def _one(context: Context, client: Client, row: Mapping[str, Any], verb: Verb) -> dict[str, Any]:
    """Do it to one run; what goes wrong there does not stop the others."""
    about = {"fid": row.get("fid"), "node": row.get("node"), "peer_id": row.get("peer_id")}
    address = f"{row.get('node')}/{row.get('fid')}"
    try:
        # The node has told of this run itself, and learns nothing but that.
        answer = await verb.change(await client.run(str(row.get("fid")), node=str(row.get("peer_id"))))
    except (KodoError, TimeoutError) as error:
        failure = failure_of(error)
        context.say(f"{address}: {failure.message}")
        return {**about, **failure.to_json()}
    if not context.json:
        context.say(f"{verb.done} {address}")
    return {**about, **answer}


def _tell(context: Context, verb: Verb, answers: Sequence[Mapping[str, Any]], left_out: int) -> int:
    failed = [each for each in answers if "error" in each]
    done = len(answers) - len(failed)
    if context.json:
        context.emit({"total_records": len(answers), "done": done, "failed": len(failed), "result": list(answers)})
    elif not answers:
        context.say(
            "no run is meant" if not left_out else f"{left_out} runs are meant, to none of which that can be done"
        )
    else:
        context.say(f"{verb.done} {done} of {len(answers)}")
    if not failed:
        return Exit.OK
    return int(failed[0]["error"]["exit"])
