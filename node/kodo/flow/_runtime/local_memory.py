"""Memories of a process without a node: empty at first, in a temporary folder that goes with it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from kodo.flow._runtime.memory_store import MemoryStore
from kodo.p2p.errors import KodoError, UsageError

__all__ = ["LocalMemory"]


class LocalMemory:
    """Answers questions about memories as a node does. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._memories: MemoryStore | None = None

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Do `memory.*`; the future has its answer or its error.

        Raises:
            UsageError: it is something else, which only a node does.
        """
        group, _, what = op.partition(".")
        if group != "memory":
            raise UsageError(f"{op} needs a node: offer the flow on one")
        future: Future[Any] = Future()
        rest = {name: value for name, value in args.items() if name not in ("scope", "of", "own")}
        with self._guard:
            try:
                future.set_result(self._store().perform(what, args["scope"], args["of"], rest))
            except KodoError as error:
                future.set_exception(error)
        return future

    def forget(self) -> None:
        """Remove the memories from the disk; done by itself when the process ends."""
        with self._guard:
            memories, self._memories = self._memories, None
        if memories is not None:
            memories.close()
            shutil.rmtree(memories.root, ignore_errors=True)
        atexit.unregister(self.forget)

    def _store(self) -> MemoryStore:
        if self._memories is None:
            folder = Path(tempfile.mkdtemp(prefix="kodo-memory-"))
            self._memories = MemoryStore(folder, lambda: time.time_ns() // 1_000_000)
            self._memories.open()
            atexit.register(self.forget)
        return self._memories
