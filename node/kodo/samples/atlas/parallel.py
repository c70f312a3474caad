"""Work through batches in parallel: Ray tasks where Ray is, else one batch after the other in a thread."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

__all__ = ["in_parallel", "workers"]

Batch = TypeVar("Batch")
Answer = TypeVar("Answer")

BATCHES_AHEAD = 2
"""Batches handed to Ray for each that may run: a worker that is done finds its next one waiting."""


def workers(jobs: int) -> int:
    """How many batches may run at once: `jobs`, or with 0 as many as the cluster has CPUs; 1 without Ray."""
    ray = _ray()
    if ray is None:
        return 1
    return jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))


async def in_parallel(
    function: Callable[[Batch], Answer], load: Callable[[Any], Batch], keys: Iterable[Any], jobs: int
) -> AsyncGenerator[Answer, None]:
    """Yield `function(load(key))` for each key, in order.

    What `load` gives travels to the worker, which may be on another machine; only as many batches as are about to
    run are loaded at a time. Closing the generator, or cancelling, cancels what is still running.

    Raises:
        Exception: whatever `function` raised; or Ray's own error when a worker died more often than Ray retries.
    """
    ray = _ray()
    if ray is None:
        for key in keys:
            batch = await asyncio.to_thread(load, key)
            yield await asyncio.to_thread(function, batch)
        return
    task = ray.remote(num_cpus=1, max_retries=2)(function)
    running: deque[Any] = deque()
    try:
        for key in keys:
            if len(running) >= jobs * BATCHES_AHEAD:
                yield await _answer(running)
            running.append(task.remote(await asyncio.to_thread(load, key)))
        while running:
            yield await _answer(running)
    finally:
        for reference in running:
            ray.cancel(reference, force=False)


async def _answer(running: deque[Any]) -> Any:
    answer = await asyncio.wrap_future(running[0].future())
    running.popleft()
    return answer


def _ray() -> Any:
    """Ray, if this process is part of a cluster. It is not imported here: a flow that is tested alone needs none."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None
