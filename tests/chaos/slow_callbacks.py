"""`koco` that notes what keeps its event loop for long: `$KODO_TEST_SLOW` names the file, a line of JSON for each.

    python -m tests.chaos.slow_callbacks up …

Counted is the CPU time of the loop's thread, so that a busy machine makes nothing slow. A second thread looks at what
the loop does while it goes on, since a callback's name alone seldom says what took the time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from kodo.p2p.net.turns import FairLoop

__all__ = ["LEAST_VARIABLE", "SLOW_MS", "VARIABLE", "read_slow", "watch"]

VARIABLE = "KODO_TEST_SLOW"
LEAST_VARIABLE = "KODO_TEST_SLOW_MS"
SLOW_MS = 20.0
"""What takes longer than this in one piece is noted, if `$KODO_TEST_SLOW_MS` says nothing else."""
_LOOK_S = 0.01
_DEPTH = 6


class _Watch:
    """Measures each callback of one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._least = float(os.environ.get(LEAST_VARIABLE, SLOW_MS))
        self._thread = threading.get_ident()
        self._begun = 0.0
        """When what runs now began, by the wall clock; 0: nothing does."""
        self._seen = ""
        self._collecting = 0.0

    def run(self, handle: Any, plain: Any) -> None:
        """Run a callback as `Handle._run` does."""
        if getattr(handle._callback, "__func__", None) is FairLoop._serve:
            plain(handle)  # what it calls is measured by itself
            return
        begun = time.thread_time()
        self._begun, self._seen = time.monotonic(), ""
        callback = handle._callback
        try:
            plain(handle)
        finally:
            self._begun = 0.0
            took = 1000 * (time.thread_time() - begun)
            if took >= self._least:
                self._note(_name(callback), took, self._seen)

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """Measure a run of the garbage collector."""
        if phase == "start":
            self._collecting = time.thread_time()
        elif (took := 1000 * (time.thread_time() - self._collecting)) >= self._least:
            self._note(f"garbage collection of generation {info['generation']}", took, f"{info['collected']} objects")

    def look(self) -> None:
        """Note where a callback is that has gone on for long, again and again."""
        while True:
            time.sleep(min(_LOOK_S, self._least / 2000))
            begun = self._begun
            if begun and time.monotonic() - begun >= self._least / 2000:
                frame = sys._current_frames().get(self._thread)
                seen = " < ".join(_frames(frame))
                if begun == self._begun:
                    self._seen = seen

    def _note(self, name: str, took: float, seen: str) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"name": name, "ms": round(took, 1), "seen": seen}) + "\n")


def _frames(frame: FrameType | None) -> Iterable[str]:
    for _ in range(_DEPTH):
        if frame is None or frame.f_code.co_name in ("run", "_run", "_serve"):
            return
        yield f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back


def _name(callback: Any) -> str:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"task {getattr(owner.get_coro(), '__qualname__', owner.get_coro())}"
    return str(getattr(callback, "__qualname__", callback))


def watch() -> None:
    """Measure from now on what this thread's loops call, if the variable names a file."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    watching, plain = _Watch(Path(path)), asyncio.Handle._run

    def run(handle: Any) -> None:
        if threading.get_ident() == watching._thread:
            watching.run(handle, plain)
        else:
            plain(handle)

    asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
    gc.callbacks.append(watching.collecting)
    threading.Thread(target=watching.look, daemon=True).start()


def read_slow(path: Path) -> list[tuple[str, int, float, str]]:
    """Return what was noted: name, how often, the longest in ms, and where it was; the longest first."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    if path.exists():
        for line in path.read_text().splitlines():
            noted = json.loads(line)
            found[noted["name"]].append((noted["ms"], noted["seen"]))
    rows = [(name, len(each), *max(each)) for name, each in found.items()]
    return sorted(rows, key=lambda row: -row[2])


if __name__ == "__main__":
    from kodo.cli.main import main

    watch()
    main()
