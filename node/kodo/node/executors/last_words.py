"""What a flow's process had said when it died, and its node had not heard: events, and what lies in its pipes.

A process that a signal ends, or that ends itself, tells nothing more. Its events are in a file
(`kodo.flow._runtime.spool`), and what was printed stays in the pipes for as long as somebody holds their other ends:
here, by way of `/proc`. Both are on this machine only. All of it is other people's data, and judged like what a
living process says.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import msgpack

from kodo.flow._runtime.capture import MARK, MAX_LINE_BYTES, read_rest, shown
from kodo.flow._runtime.spool import read_spool
from kodo.node.executors.checks import unpack_event
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.runner.context import is_rays_mark
from kodo.protocol.events import MAX_EVENT_BYTES

__all__ = ["Pipes", "last_words"]

_MAX_PIPE_BYTES = 1 << 20
"""As much as a pipe may hold, where its size was not raised by the system's administrator."""

_MAX_NAME_BYTES = 1024
"""What an event takes beside its data."""

_PRINTED = 1 << 62
"""Numbers what was printed: after all events, whatever their numbers are."""


class Pipes:
    """The read ends of a process's stdout and stderr; nothing is read from them while it lives."""

    def __init__(self, pid: int):
        """Open what the process has as 1 and 2, where they are pipes and this system shows them."""
        self._ends: dict[str, int] = {}
        for descriptor, event in ((1, "stdout"), (2, "stderr")):
            with contextlib.suppress(OSError):
                end = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if stat.S_ISFIFO(os.fstat(end).st_mode):
                    self._ends[event] = end
                else:
                    os.close(end)

    def read(self, event: str) -> bytes:
        """Return what nobody has read of `stdout` or `stderr`; waits for nothing."""
        end, data = self._ends.get(event), b""
        if end is not None:
            with contextlib.suppress(OSError):
                while len(data) < _MAX_PIPE_BYTES and (piece := os.read(end, _MAX_PIPE_BYTES)):
                    data += piece
        return data

    def close(self) -> None:
        """Let go of them; idempotent."""
        ends, self._ends = self._ends, {}
        for end in ends.values():
            os.close(end)


def last_words(spool: Path, pipes: Pipes | None) -> list[RunnerEvent]:
    """Return what a dead process had said, in the order of its events, then what it had printed; blocks."""
    found: list[RunnerEvent] = []
    for rseq, packed in read_spool(spool):
        try:
            if len(packed) > MAX_EVENT_BYTES + _MAX_NAME_BYTES:
                break
            event, data = msgpack.unpackb(packed)
            found.append(RunnerEvent(rseq, event, unpack_event(data), data))
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            break
    lines = _not_told(found, _printed(spool.parent, pipes))
    return found + [RunnerEvent(_PRINTED + n, event, {"text": text}) for n, (event, text) in enumerate(lines)]


def _printed(folder: Path, pipes: Pipes | None) -> list[tuple[str, str]]:
    """Return the lines that nobody has read: event and text. The first one may have begun before the pipe's bytes."""
    found = []
    for event in ("stdout", "stderr"):
        data = read_rest(folder, event, pipes.read(event) if pipes is not None else b"")
        for line in data.removesuffix(b"\n").split(b"\n") if data else ():
            text = shown(line[:MAX_LINE_BYTES])
            if MARK not in line and not is_rays_mark(text):
                found.append((event, text))
    return found


def _not_told(events: list[RunnerEvent], lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out lines that are events already: a process tells them before it takes them out of the pipe."""
    left = []
    for stream in ("stdout", "stderr"):
        told: list[Any] = [event.data.get("text") for event in events if event.event == stream and event.data]
        found = [text for event, text in lines if event == stream]
        most = min(len(told), len(found))
        overlap = next((size for size in range(most, 0, -1) if told[-size:] == found[:size]), 0)
        left += [(stream, text) for text in found[overlap:]]
    return left
