"""What carries one run from its place in the queue to its end: one task for each live run.

    inputs are there ─► its turn ─► handed to the executor ─► pumped until it is over ─► its process is let go

Whatever goes wrong becomes one `fatal`, and the store lets no second end in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from functools import partial
from typing import Any

from kodo.node.executors.executor import Executor, InputFile, Runner, RunnerDiedError
from kodo.node.runs.fatals import fatal_of
from kodo.node.runs.flow_requests import Asking
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.live import LiveRun
from kodo.node.runs.pump import Pump
from kodo.node.runs.queue import FairQueue
from kodo.node.runs.run_secrets import RunSecrets
from kodo.node.runs.tasks import Tasks
from kodo.node.store.rows import NewEvent, RunOverError
from kodo.node.store.store import Store
from kodo.p2p.errors import DeadlineError, KodoError

__all__ = ["Driver"]

logger = logging.getLogger(__name__)


class Driver:
    """Drives live runs, and ends them.

    Args:
        live: the runs that are not over, by fid; one whose end is stored leaves it.
        files: gives the uploads of a principal that inputs name.
        asking: answers what runs ask the node.
        retired: called when a run has left `live`.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        settings: RunSettings,
        live: MutableMapping[str, LiveRun],
        queue: FairQueue,
        pump: Pump,
        tasks: Tasks,
        secrets: RunSecrets,
        files: Callable[[str, Mapping[str, Any]], tuple[InputFile, ...]],
        asking: Asking,
        retired: Callable[[], None],
    ):
        self._store = store
        self._executor = executor
        self._settings = settings
        self._live = live
        self._queue = queue
        self._pump = pump
        self._tasks = tasks
        self._secrets = secrets
        self._files = files
        self._asking = asking
        self._retired = retired
        self.releasing: set[asyncio.Task[None]] = set()
        """Runners of runs that are over, on their way to be let go."""

    def drive(self, live: LiveRun) -> None:
        """Carry a run to its end, in a task."""
        live.driver = self._tasks.spawn(partial(self._run, live), live.payer)

    async def halt(self, live: LiveRun) -> None:
        """Stop driving; what was being stored goes into the log before anything that is stored from now on."""
        driver, live.driver = live.driver, None
        if driver is not None:
            driver.cancel()
            await asyncio.wait([driver], timeout=self._settings.end_s)

    async def end(self, live: LiveRun, fatal: dict[str, Any]) -> None:
        """End a run with `fatal` unless it is over, and its runner; whatever fails, its place and process go."""
        try:
            await self._pump.append(live, [NewEvent.make("fatal", fatal)])
        except RunOverError:
            pass
        except Exception as error:
            logger.error("run %s has ended, and no note of it could be stored: %s", live.fid, type(error).__name__)
        await self.end_runner(live)
        await self.retire(live)

    async def end_runner(self, live: LiveRun) -> None:
        """End the process of a run, if it has one."""
        if live.runner is not None:
            await self.bounded(live.runner.kill())

    async def retire(self, live: LiveRun) -> None:
        """Release the runner of a run that is over, and forget the run."""
        self._live.pop(live.fid, None)
        self._retired()
        await self._secrets.forget(live.fid)
        if live.server is not None:
            live.server.cancel()
            self._tasks.spawn(lambda: self._asking.ended(live.fid))
        runner = live.runner
        if runner is None:
            self._queue.leave(live.fid)
        else:
            release = self._tasks.start(lambda: self.bounded(runner.release()))
            self.releasing.add(release)
            release.add_done_callback(self.releasing.discard)
            release.add_done_callback(lambda _: self._queue.leave(live.fid))
            await asyncio.shield(release)

    async def bounded(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the end of a runner, for as long as that may take; a failure is logged."""
        try:
            async with asyncio.timeout(self._settings.end_s):
                await work
        except Exception as error:
            logger.warning("a runner did not end as asked: %s", type(error).__name__)

    async def _run(self, live: LiveRun) -> None:
        """Drive one run to its end."""
        fresh = live.runner is None
        try:
            if live.runner is None:
                await self._inputs(live)
                await self._queue.turn(live.payer, live.fid)
                if live.handed:
                    raise RunnerDiedError("the node died while it started this run, so the run may have begun")
                files = self._files(live.row.principal, live.view.inputs)
                spec = live.spec(self._settings, files, await self._secrets.of(live))
                live.runner = await self._executor.launch(spec, partial(self._hand, live))
            await self._pump.carry(live, live.runner, fresh=fresh)
        except RunOverError:
            await self.retire(live)
        except Exception as error:
            if not isinstance(error, KodoError):
                logger.error("run %s: %s in the node", live.fid, type(error).__name__)
            await self.end(
                live, fatal_of(error, has_runner=live.runner is not None or live.handed, stderr=live.stderr)
            )
        else:
            await self.retire(live)

    async def _inputs(self, live: LiveRun) -> None:
        """Wait until the lock that asks for missing inputs is answered, if there is one.

        Raises:
            DeadlineError: nobody answered it in time.
        """
        while live.view.locks:
            live.moved.clear()
            await live.moved.wait()
        if live.lids and await self._store.every(live.fid, ["lock-timeout"]):
            raise DeadlineError("nobody provided the missing inputs in time")

    async def _hand(self, live: LiveRun) -> None:
        """Note that the flow is about to begin: from now on the run is not started again, whatever happens."""
        await self._pump.patiently(lambda: self._store.hand(live.fid))
        live.handed = True

    def serve(self, live: LiveRun, runner: Runner) -> None:
        """Answer what a run asks the node, from the first time that it asks something."""
        if live.server is None:
            live.server = self._tasks.spawn(lambda: self._asking.serve(live, runner))
