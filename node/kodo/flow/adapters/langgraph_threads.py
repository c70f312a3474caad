"""`Threads`: LangGraph's checkpoints in `memory.long`, so that a thread goes on over runs, for whoever launched them.

A thread is one file of the flow's long-term memory, in the part of it that its launcher has for themselves, and is
removed with that memory. Two runs that go on with one thread at once do not see each other: the last to write wins.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgpack
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from kodo.flow.memory import Memory
from kodo.p2p.errors import CallError, NotFoundError

__all__ = ["Threads", "is_kept_in_memory"]


class Threads(InMemorySaver):
    """A checkpointer for sync and async use: `builder.compile(checkpointer=Threads())`.

    Args:
        latest: keep of each thread its latest state alone; not for graphs with delta channels.

    Raises:
        CapacityError: by what it stores, when the memory is full.
    """

    def __init__(self, *, latest: bool = False):
        super().__init__()
        self._latest = latest
        self._memory = Memory("long", own=True)
        self._known: set[str] = set()
        self._guard = threading.RLock()

    def get_tuple(self, config: Any) -> Any:
        """Return the checkpoint that a config names, or the latest of its thread."""
        with self._loaded(config):
            return super().get_tuple(config)

    def list(self, config: Any, *, filter: Any = None, before: Any = None, limit: int | None = None) -> Iterator[Any]:
        """Yield checkpoints of a thread, the latest first."""
        with self._loaded(config):
            yield from list(super().list(config, filter=filter, before=before, limit=limit))

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Store a checkpoint; when this returns it is in the memory."""
        with self._loaded(config):
            made = super().put(config, checkpoint, metadata, new_versions)
            self._write(str(config["configurable"]["thread_id"]))
        return made

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Keep what a task wrote, until the next checkpoint is stored."""
        with self._loaded(config):
            super().put_writes(config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread."""
        with self._guard:
            super().delete_thread(thread_id)
            self._memory.ask("file.delete", {"name": _name(thread_id)})

    async def aget_tuple(self, config: Any) -> Any:
        """Return the checkpoint that a config names, or the latest of its thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self, config: Any, *, filter: Any = None, before: Any = None, limit: int | None = None
    ) -> AsyncIterator[Any]:
        """Yield checkpoints of a thread, the latest first."""
        found = await asyncio.to_thread(lambda: [*self.list(config, filter=filter, before=before, limit=limit)])
        for each in found:
            yield each

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Store a checkpoint; when this returns it is in the memory."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote, until the next checkpoint is stored."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def _loaded(self, config: Any) -> threading.RLock:
        """Read the thread of a config, once; gives the guard."""
        thread = str(config["configurable"]["thread_id"]) if config else ""
        with self._guard:
            if thread and thread not in self._known:
                self._read(thread)
                self._known.add(thread)
        return self._guard

    def _read(self, thread: str) -> None:
        try:
            packed = self._memory.files._read(_name(thread))
        except NotFoundError:
            return
        except CallError as error:
            if error.code == 404:
                return
            raise
        found = msgpack.unpackb(packed, use_list=False, strict_map_key=False)
        for namespace, checkpoint_id, *saved in found["checkpoints"]:
            self.storage[thread][namespace][checkpoint_id] = tuple(saved)
        for namespace, checkpoint_id, key, write in found["writes"]:
            self.writes[(thread, namespace, checkpoint_id)][key] = write
        for namespace, channel, version, blob in found["blobs"]:
            self.blobs[(thread, namespace, channel, version)] = blob

    def _write(self, thread: str) -> None:
        kept = {
            (namespace, each): saved
            for namespace, checkpoints in self.storage[thread].items()
            for each, saved in checkpoints.items()
            if not self._latest or each == max(checkpoints)
        }
        needed = {
            (namespace, channel, version)
            for (namespace, _), (checkpoint, *_) in kept.items()
            for channel, version in self.serde.loads_typed(checkpoint)["channel_versions"].items()
        }
        value = {
            "checkpoints": [(*key, *saved) for key, saved in kept.items()],
            "writes": [
                (namespace, checkpoint_id, key, write)
                for (of, namespace, checkpoint_id), writes in self.writes.items()
                if of == thread and (namespace, checkpoint_id) in kept
                for key, write in writes.items()
            ],
            "blobs": [
                (namespace, channel, version, blob)
                for (of, namespace, channel, version), blob in self.blobs.items()
                if of == thread and (not self._latest or (namespace, channel, version) in needed)
            ],
        }
        self._memory.files._write(_name(thread), msgpack.packb(value))


def _name(thread: str) -> str:
    return f"threads/{hashlib.sha256(thread.encode()).hexdigest()[:32]}"


def is_kept_in_memory(checkpointer: Any) -> bool:
    """Return whether a graph's checkpoints would be gone after the run, so that others may take their place."""
    return not isinstance(checkpointer, BaseCheckpointSaver) or type(checkpointer) is InMemorySaver
