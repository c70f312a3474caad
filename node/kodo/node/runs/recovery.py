"""What an earlier process of the node left: runners that live on, and runs that are not over."""

from __future__ import annotations

import asyncio
import logging

from kodo.node.clock import Clock
from kodo.node.executors.executor import Executor, Runner
from kodo.node.runs.live import LiveRun
from kodo.node.store.store import Store
from kodo.p2p.errors import KodoError

__all__ = ["adopt_runners", "unfinished_runs"]

logger = logging.getLogger(__name__)


async def adopt_runners(executor: Executor, clock: Clock, grace_s: float) -> dict[str, Runner]:
    """Return the runners that live on, by fid; none when the executor cannot say within `grace_s` seconds."""
    pause = 0.5
    try:
        async with asyncio.timeout(grace_s):
            while True:
                try:
                    return {runner.fid: runner for runner in await executor.adopt()}
                except KodoError as error:
                    logger.warning("looking for runners failed, trying again: %s", type(error).__name__)
                await clock.sleep(pause)
                pause = min(pause * 2, 5.0)
    except TimeoutError:
        return {}


async def unfinished_runs(store: Store, runners: dict[str, Runner]) -> list[LiveRun]:
    """Return the runs that are not over, each with its runner, which is taken out of `runners`.

    What is left there is to be ended.
    """
    found: list[LiveRun] = []
    for row in await store.unfinished():
        view = await store.view(row.fid)
        if view is not None:
            locks = await store.every(row.fid, ["lock"])
            lids = {str(event.data.get("lid")) for event in locks}
            runner = runners.pop(row.fid, None)
            if runner is not None and not runner.started:
                # It was about to be handed the run, and never will be: the run may be given to another.
                runners[row.fid] = runner
                found.append(LiveRun(row, view, lids))
            else:
                found.append(LiveRun(row, view, lids, handed=row.handed, runner=runner))
    return found
