"""What a process holds, counted: objects by type, blocks of memory, tasks, descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator

__all__ = ["BLOCKS", "DESCRIPTORS", "Census", "grown", "old_objects_aside", "take_census"]

BLOCKS = "blocks of memory"
"""Also what the garbage collector does not know: bytes, texts, numbers, and maps of nothing else.

Not counted are plain weak references: a connection of `sqlite3` keeps those of up to 200 cursors that are gone.
"""

DESCRIPTORS = "descriptors"
_TASKS = "tasks"
_THREADS = "threads"

Census = Counter["type | str"]


async def take_census() -> Census:
    """Count what is alive in this process."""
    # The loop keeps timers that were cancelled until they are many: now they are.
    for _ in range(200):
        asyncio.get_running_loop().call_later(3600, _nothing).cancel()
    await asyncio.sleep(0)
    for _ in range(2):  # what the first finds may have had finalizers
        gc.collect()
    blocks = sys.getallocatedblocks()
    counts: Census = Counter(map(type, gc.get_objects()))
    counts[BLOCKS] = blocks - counts.pop(weakref.ref, 0)
    counts[DESCRIPTORS] = len(os.listdir("/proc/self/fd"))
    counts[_TASKS] = len(asyncio.all_tasks())
    counts[_THREADS] = threading.active_count()
    return counts


@contextlib.contextmanager
def old_objects_aside() -> Iterator[None]:
    """Leave what is there already out of each census in the block: it is most of it, and counting takes a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def grown(before: Census, after: Census, cycles: int) -> dict[str, float]:
    """Give what there is more of for each cycle: half of one or more, so that what came once does not count.

    Of memory three blocks: interpreter and libraries fill caches of texts and numbers for thousands of cycles.
    """
    more = {kind: (count - before[kind]) / cycles for kind, count in after.items()}
    return {
        kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}": each
        for kind, each in more.items()
        if each >= (3.0 if kind == BLOCKS else 0.5)
    }


def _nothing() -> None:
    """Be what a timer calls."""
