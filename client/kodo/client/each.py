"""Many runs of one flow: a row a run, a few at a time, and none twice.

Each row has an idempotency key that is made of what the row says. So a batch that broke off is repeated as a whole:
within 24 h the rows that were launched name the runs which they made, and the others are launched.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.client.flow import FlowOnNode
from kodo.client.run import Run
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.events import RunState
from kodo.protocol.secrets import hide

if TYPE_CHECKING:
    from kodo.client.client import Client

__all__ = ["MAX_ROWS", "Outcome", "row_keys", "run_each"]

MAX_ROWS = 10_000
MAX_PARALLEL = 64

_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: its number, from 1.
        run: its run; None when it was refused.
        state: of the run, when it was looked at last: `locked` where it waits for an answer; `queued` or `running`
            where it was not waited for.
        error: why there is no run, or why it could not be followed.
    """

    row: int
    run: Run | None = None
    state: str | None = None
    error: KodoError | TimeoutError | None = None


def row_keys(batch: str, path: str, rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the idempotency key of each row; equal rows have different ones. Secrets do not go into them.

    Args:
        batch: what sets this batch apart from another one with the same rows.
        path: the flow's.
        schema: of its inputs.
    """
    seen: Counter[str] = Counter()
    for row in rows:
        shown, _ = hide(schema, dict(row))
        text = json.dumps([batch, path, shown], sort_keys=True, default=_text)
        seen[text] += 1
        yield hashlib.sha256(f"{seen[text]}/{text}".encode()).hexdigest()


def _text(value: Any) -> str:
    return str(value.absolute()) if isinstance(value, Path) else repr(value)


async def run_each(
    client: Client,
    flow: str | FlowOnNode,
    rows: Sequence[Mapping[str, Any]],
    *,
    parallel: int = 4,
    batch: str = "",
    tags: str | Sequence[str] | None = None,
    node: str | None = None,
    wait: bool = True,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:
    """Launch a flow once for each row of inputs; give what became of them, in the order of the rows.

    A row that is refused does not stop the others. A node that is busy is asked again.

    Args:
        rows: inputs of a run each, 10,000 at most; a `Path` inside them is uploaded.
        parallel: how many runs go on at once, 64 at most; without `wait` how many are launched at once.
        batch: the same rows with another `batch` are other runs.
        tags, node: as for `Client.launch`.
        wait: follow each run until it is over, or waits for an answer.
        on_outcome: called as soon as something became of a row.

    Raises:
        UsageError: there are too many rows, or `parallel` is out of range.
    """
    if len(rows) > MAX_ROWS:
        raise UsageError(f"a batch has at most {MAX_ROWS:,} rows, not {len(rows):,}; split it")
    if not 1 <= parallel <= MAX_PARALLEL:
        raise UsageError(f"parallel: from 1 to {MAX_PARALLEL}, not {parallel}")
    found = flow if isinstance(flow, FlowOnNode) else await client.find_flow(flow, node=node)
    todo = enumerate(zip(rows, row_keys(batch, found.path, rows, found.inputs_schema), strict=True), 1)
    outcomes: list[Outcome] = []

    async def work() -> None:
        for number, (row, key) in todo:
            outcome = await _one(client, found, number, row, key, tags, wait=wait)
            outcomes.append(outcome)
            if on_outcome is not None:
                on_outcome(outcome)

    if rows:
        await client.prove(found, rows[0] or {"row": 1})
    async with asyncio.TaskGroup() as group:
        for _ in range(min(parallel, len(rows))):
            group.create_task(work())
    return sorted(outcomes, key=lambda outcome: outcome.row)


async def _one(
    client: Client,
    found: FlowOnNode,
    number: int,
    row: Mapping[str, Any],
    key: str,
    tags: str | Sequence[str] | None,
    *,
    wait: bool,
) -> Outcome:
    run: Run | None = None
    try:
        run = await _launch(client, found, row, key, tags)
        state = run.launched_state
        if wait:
            async with aclosing(run.follow()) as events:
                async for _ in events:
                    # A question waits for a person: the others need not wait with it.
                    if run.view.state is RunState.LOCKED:
                        break
            state = "running" if run.view.state is RunState.PENDING else str(run.view.state)
    except (KodoError, TimeoutError) as error:
        return Outcome(number, run, run.launched_state if run is not None else None, error)
    return Outcome(number, run, state)


async def _launch(
    client: Client, found: FlowOnNode, row: Mapping[str, Any], key: str, tags: str | Sequence[str] | None
) -> Run:
    """Launch a row, again while the node is busy, for as long as the client is patient."""
    tries = max(int(client.settings.patience_s / _PAUSE_S), 1)
    while True:
        try:
            return await client.launch(found, inputs=row, key=key, tags=tags, strict=True)
        except CallError as error:
            tries -= 1
            if error.code != 429 or not tries:
                raise
        await asyncio.sleep(_PAUSE_S)
