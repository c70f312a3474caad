"""A runner on Ray: the actor that runs one flow once and tells what it does.

Before any user code is imported, `prepare_worker` has redirected the process's output: nothing that a flow prints
reaches Ray's log files. The same hook runs in the workers of the flow's Ray tasks; they belong to this one runner,
because they inherit its environment (`KODO_RUNNER`), and send their lines and events to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from kodo.flow._runtime.capture import StreamCapture
from kodo.flow._runtime.current import connect_children, emit_here, install
from kodo.flow._runtime.kept_code import CODE, use_kept_code
from kodo.flow._runtime.log_events import log_as_events
from kodo.flow._runtime.node_requests import pack_error
from kodo.flow._runtime.sources import add_roots, enter_scope
from kodo.node.executors.ray.task import TaskContext
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.service import FLUSH_TIMEOUT, RunnerService
from kodo.node.executors.runner.storage import FOLDER, own_storage, place_of_runner
from kodo.p2p.errors import CapacityError, KodoError

__all__ = ["RunnerActor", "prepare_worker"]

TASK_QUIET_SECONDS = 0.5
"""How long the flow's Ray tasks must have said nothing at the run's end."""

_capture: StreamCapture | None = None


def prepare_worker() -> None:
    """Make a Ray worker of a runner fit for user code; Ray calls it in each worker before anything else."""
    global _capture
    if "KODO_RUNNER" not in os.environ or _capture is not None:
        return
    own_storage(os.environ, os.environ.get(FOLDER) or place_of_runner(os.environ["KODO_RUNNER"]))
    context = TaskContext(os.environ["KODO_RUNNER"], os.environ.get("KODO_NAMESPACE", ""))
    _capture = StreamCapture(context.line, context.draw)
    _capture.start()
    install(context)
    connect_children()
    log_as_events(emit_here)
    context.start()
    from ray._private import worker

    # A flow blocks its own thread, not the actor's loop, for which Ray would scold it once.
    worker.blocking_get_inside_async_warned = worker.blocking_wait_inside_async_warned = True
    add_roots(_roots())
    if code := os.environ.get(CODE):
        use_kept_code(code)


def _roots() -> list[str]:
    """Return the folders of the scope's sources on this machine."""
    return [*json.loads(os.environ.get("KODO_ROOTS", "[]")), *_unpacked_roots()]


def _unpacked_roots() -> list[str]:
    """Find the folders that travelled by Ray's `py_modules`: it puts each one's *parent* on the import path."""
    names = json.loads(os.environ.get("KODO_PACKAGES", "[]"))
    parents = [path for path in sys.path if os.path.basename(path).startswith("_ray_pkg_")]
    return [
        os.path.join(parent, name)
        for name in names
        for parent in parents
        if os.path.isdir(os.path.join(parent, name))
    ]


class RunnerActor(RunnerService):
    """The Ray actor: a runner as `ray_executor` and the flow's Ray tasks call it."""

    def __init__(self, preload: Sequence[str], folder: str | None):
        """See `RunnerService`; the output of this process has been taken over before."""
        enter_scope(_roots())
        super().__init__(preload, folder, _capture)

    async def describe(self) -> dict[str, Any]:
        """Return what a runner says of itself, and the id of its machine."""
        return {**await super().describe(), "machine": _machine()}

    async def seal(self) -> dict[str, Any]:
        """Return which run this is, and the id of its machine; see `RunnerService.seal`."""
        return {**await super().seal(), "machine": _machine()}

    def _connect(self) -> None:
        _notice_tasks(self._context)

    async def ingest(self, events: list[bytes]) -> None:
        """Take events that a Ray task of the flow made; waits while the node is behind."""
        self._context.last_ingest = time.monotonic()
        for packed in events:
            try:
                self._context.count("", len(packed))  # tasks make no events but such as are counted
            except CapacityError:
                continue
            while self._context.buffer.full and not self._context.buffer.closed:
                await self._context.buffer.drained()
            self._context.buffer.put(packed, wait=False)

    async def relay(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Ask the node something for a Ray task of the flow; gives `{done}` or `{error}`."""
        try:
            return {"done": await asyncio.wrap_future(self._context.ask(op, args))}
        except KodoError as error:
            return {"error": pack_error(error)}

    def _finish(self) -> None:
        context, now = self._context, time.monotonic()
        while context.has_tasks and time.monotonic() < now + FLUSH_TIMEOUT:
            # The last lines of Ray tasks are on their way: a task's result may overtake what it printed.
            quiet = time.monotonic() - max(now, context.last_ingest)
            if quiet > TASK_QUIET_SECONDS:
                break
            time.sleep(TASK_QUIET_SECONDS - quiet + 0.01)
        super()._finish()


def _machine() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _notice_tasks(context: RunnerContext) -> None:
    """Inform the context when the flow gives Ray a task or makes an actor: their lines come by another way."""
    from ray.actor import ActorClass
    from ray.remote_function import RemoteFunction

    for owner in (RemoteFunction, ActorClass):
        original = owner._remote

        def noticed(self: Any, *args: Any, _original: Any = original, **options: Any) -> Any:
            context.has_tasks = True
            return _original(self, *args, **options)

        owner._remote = noticed  # type: ignore[method-assign]
