"""`koco run FLOW --each FILE`: the rows of a file, and what became of each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.cli.exits import Exit, failure_of
from kodo.cli.forms import missing_inputs
from kodo.cli.values import name_files, parse_assignments, read_text
from kodo.p2p.errors import KodoError, UsageError

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client, FlowOnNode
    from kodo.client.each import Outcome

__all__ = ["read_rows", "run_rows"]


def read_rows(name: str, schema: Mapping[str, Any], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read a file's rows as inputs: CSV with the names of inputs as its header, or a JSON object a line.

    Cells are read by the schema, as `name=value` is; empty ones are left out. `common` holds for all rows that do not
    say otherwise. `-` is stdin, with JSON lines.

    Raises:
        UsageError: naming the line that cannot be read.
    """
    is_csv = name.lower().endswith(".csv")
    if not is_csv and name != "-" and not name.lower().endswith((".jsonl", ".ndjson")):
        raise UsageError(f"--each takes a .csv or .jsonl file, or - for JSON lines from stdin, not {name!r}")
    text = read_text(name, "--each").removeprefix("\ufeff")
    rows = []
    for number, row in _csv_rows(text, schema) if is_csv else _json_rows(text, schema):
        if isinstance(row, UsageError):
            raise UsageError(f"{name}, line {number}: {row}")
        whole = {**common, **row}
        if absent := missing_inputs(schema, whole):
            raise UsageError(f"{name}, line {number}: {', '.join(absent)} is missing")
        rows.append(whole)
    if not rows:
        raise UsageError(f"{name} has no rows")
    return rows


def _csv_rows(text: str, schema: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any] | UsageError]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if not all(header):
                    yield reader.line_num, UsageError("the header has an empty name")
                continue
            if len(cells) != len(header):
                yield reader.line_num, UsageError(f"it has {len(cells)} cells, and the header {len(header)}")
            words = [f"{field}={cell}" for field, cell in zip(header, cells, strict=False) if cell]
            try:
                yield reader.line_num, parse_assignments(words, schema)
            except UsageError as error:
                yield reader.line_num, error
    except csv.Error as error:
        yield reader.line_num, UsageError(f"this is not CSV: {error}")


def _json_rows(text: str, schema: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any] | UsageError]]:
    for number, each in enumerate(text.splitlines(), 1):
        if not each.strip():
            continue
        try:
            row = json.loads(each)
        except (ValueError, RecursionError) as error:
            yield number, UsageError(f"this is not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, name_files(row, schema)
        else:
            yield number, UsageError("a row is an object of names and values")


async def run_rows(
    context: Context,
    client: Client,
    found: FlowOnNode,
    rows: Sequence[Mapping[str, Any]],
    *,
    parallel: int,
    batch: str,
    tags: Sequence[str] | None,
    out: Path | None,
    overwrite: bool,
    detach: bool,
    keep: bool,
) -> int:
    """Launch a run for each row, show what becomes of each, and give the exit code: 1 when one did not succeed."""
    from kodo.cli.table import Table
    from kodo.cli.text import shell_word
    from kodo.client.each import run_each

    context.farewell = "interrupted; runs that were launched go on, and the same command launches the others"
    done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if context.json:
            context.emit(_line_of(outcome))
        else:
            said = outcome.error or outcome.state
            context.say(f"{done} of {len(rows)}: row {outcome.row}: {said}")

    outcomes = await run_each(
        client, found, rows, parallel=parallel, batch=batch, tags=tags, wait=not detach, on_outcome=tell
    )
    failed = [each for each in outcomes if each.error is not None or each.state == "error"]
    for outcome in outcomes:
        if outcome.run is not None and outcome.state == "done" and not detach:
            failed += await _fetch(context, outcome, out, overwrite=overwrite, keep=keep)
    context.farewell = None
    states = {state: sum(each.state == state for each in outcomes) for state in ("done", "error", "locked")}
    # Of a node that is older nobody knows which of the two it is.
    waiting = {state: sum(each.state == state for each in outcomes) for state in ("queued", "running", "pending")}
    refused = sum(each.run is None for each in outcomes)
    if context.json:
        told = {**states, **waiting, "pending": sum(waiting.values())}
        context.emit({"rows": len(outcomes), **told, "refused": refused})
    else:
        table = Table("ROW", "RUN", "STATE", "RESULT")
        for outcome in outcomes:
            run = outcome.run
            address = "" if run is None else shell_word(f"{found.remote.reach}/{run.fid}")
            table.add(outcome.row, address, outcome.state or "refused", _result(outcome))
        context.show_table(table)
        said = [f"{count} {state}" for state, count in {**states, **waiting, "refused": refused}.items() if count]
        context.say(f"{len(outcomes)} rows: {', '.join(said)}")
        if states["locked"]:
            context.say("some wait for an answer: koco locks")
    return Exit.RUN_FAILED if failed else Exit.OK


async def _fetch(
    context: Context, outcome: Outcome, out: Path | None, *, overwrite: bool, keep: bool
) -> list[Outcome]:
    """Download what a row's run made into a folder of its number; give it back when that failed."""
    from kodo.cli.following import settle

    assert outcome.run is not None
    try:
        if out is not None and outcome.run.view.outputs:
            await outcome.run.download(out / str(outcome.row), overwrite=overwrite, keep=keep)
        elif not keep:
            await settle(outcome.run)
    except (KodoError, TimeoutError) as error:
        context.say(f"row {outcome.row}: its files were not fetched: {failure_of(error).message}")
        return [outcome]
    return []


def _line_of(outcome: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = {"row": outcome.row}
    if (run := outcome.run) is not None:
        told |= {"fid": run.fid, "node": run.node, "state": outcome.state}
        told |= {"final": run.view.final} if run.view.final is not None else {}
        told |= {"fatal": run.view.fatal} if run.view.fatal is not None else {}
    return told | (failure_of(outcome.error).to_json() if outcome.error is not None else {})


def _result(outcome: Outcome) -> str:
    from kodo.cli.text import compact

    if outcome.error is not None:
        return failure_of(outcome.error).message
    view = outcome.run.view if outcome.run is not None else None
    if view is None:
        return ""
    if view.fatal is not None:
        return f"{view.fatal.get('type')}: {view.fatal.get('message')}"
    result = view.final.get("result") if view.final is not None else None
    return "" if result is None else result if isinstance(result, str) else compact(result, 400)
