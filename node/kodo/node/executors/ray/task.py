"""What code in a Ray task of a flow is connected to: the flow's runner, which it finds by its name."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from kodo.flow._runtime.bars import RayBars
from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.context import DONE, Context, Demand, Emitted
from kodo.flow._runtime.node_requests import error_of
from kodo.node.executors.runner.context import is_rays_mark
from kodo.p2p.errors import UsageError

__all__ = ["TaskContext"]


class TaskContext(Context):
    """Sends what a Ray task of the flow makes to the runner of this name."""

    def __init__(self, name: str, namespace: str):
        self._name = name
        self._namespace = namespace
        self._bars = RayBars()
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=10_000)
        self._sender: threading.Thread | None = None
        self._runner: Any = None

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        self._send(pack_event(event, data))
        # A task's events come before its result, for whoever waits for that; a loop is not held up.
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._queue.join()
        return DONE

    def line(self, event: str, text: str) -> None:
        """Take one line of output."""
        is_bar, data = self._bars.read(text, time.monotonic())
        if data is not None:
            self.draw(data)
        if not is_bar and not is_rays_mark(text):
            self._send(pack_event(event, {"text": text}))

    def draw(self, data: dict[str, Any]) -> None:
        """Take what a progress bar shows."""
        self._send(pack_event("progress", data))

    def lock(self, demand: Demand) -> Future[Any]:
        raise UsageError("only the flow itself can ask a lock, not its Ray tasks")

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        raise UsageError("only the flow itself can write an output: return its bytes from the Ray task")

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def carry() -> None:
            import ray

            try:
                told = ray.get(self._find_runner().relay.remote(op, dict(args)))
                if "error" in told:
                    raise error_of(told["error"])
                future.set_result(told["done"])
            except Exception as error:  # told to the task that waits
                future.set_exception(error)

        threading.Thread(target=carry, name="kodo-relay", daemon=True).start()
        return future

    def start(self) -> None:
        """Be ready to forward before there is something: a short task would be over before its first line."""
        self._sender = threading.Thread(target=self._forward, name="kodo-forward", daemon=True)
        self._sender.start()

    def _send(self, packed: bytes) -> None:
        self._queue.put(packed)

    def _forward(self) -> None:
        with contextlib.suppress(Exception):  # as below
            self._find_runner()
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 500:
                    batch.append(self._queue.get_nowait())
            with contextlib.suppress(Exception):  # the runner is gone: so is whoever would read this
                self._deliver(batch)
            for _ in batch:
                self._queue.task_done()

    def _deliver(self, batch: list[bytes]) -> None:
        import ray

        ray.get(self._find_runner().ingest.remote(batch))

    def _find_runner(self) -> Any:
        import ray

        if self._runner is None:
            self._runner = ray.get_actor(self._name, namespace=self._namespace)
        return self._runner
