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
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from kodo.flow._runtime.capture import MARK, MAX_LINE_BYTES, read_rest, shown
from kodo.flow._runtime.spool import read_spool, unpack_spool
from kodo.node.executors.checks import unpack_event
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.runner.context import is_rays_mark
from kodo.protocol.events import MAX_EVENT_BYTES

__all__ = ["LastWords", "Pipes"]

_MAX_PIPE_BYTES = 1 << 20
"""As much as a pipe may hold, where its size was not raised by the system's administrator."""

MAX_SAID_BYTES = 40 << 20
"""Of events that a node has not taken: more than a process keeps (`kodo.flow._runtime.buffer.MAX_BYTES`)."""

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
        """Release them; idempotent."""
        ends, self._ends = self._ends, {}
        for end in ends.values():
            os.close(end)


class LastWords:
    """What a dead process had said: its events in their order, then what it had printed.

    It is kept as it lay in the file, at most `MAX_SAID_BYTES`; whoever iterates makes values of one event at a time.
    """

    def __init__(self, spool: Path, pipes: Pipes | None, after: int = 0):
        """Read it; blocks.

        Args:
            after: the number of the last event that is known already.
        """
        self._events = read_spool(spool, after, MAX_SAID_BYTES)
        self._lines = _printed(spool.parent, pipes)

    def __iter__(self) -> Iterator[RunnerEvent]:
        """Yield the events; one that cannot be read is the last."""
        told = {name: deque[Any](maxlen=len(lines)) for name, lines in self._lines.items()}
        for rseq, packed in unpack_spool(self._events):
            try:
                if len(packed) > MAX_EVENT_BYTES + _MAX_NAME_BYTES:
                    break
                event, packed_data = msgpack.unpackb(packed)
                data = unpack_event(packed_data)
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
                break
            if isinstance(event, str) and event in told and isinstance(data, dict):
                told[event].append(data.get("text"))
            yield RunnerEvent(rseq, event, data, packed_data)
        number = _PRINTED
        for name, lines in self._lines.items():
            # A process tells a line before it takes it out of the pipe.
            for text in lines[_overlap(list(told[name]), lines) :]:
                yield RunnerEvent(number, name, {"text": text})
                number += 1


def _printed(folder: Path, pipes: Pipes | None) -> dict[str, list[str]]:
    """Return the lines that nobody has read, by stream. The first one may have begun before the pipe's bytes."""
    found: dict[str, list[str]] = {}
    for event in ("stdout", "stderr"):
        data = read_rest(folder, event, pipes.read(event) if pipes is not None else b"")
        texts = ((line, shown(line[:MAX_LINE_BYTES])) for line in data.removesuffix(b"\n").split(b"\n") if data)
        found[event] = [text for line, text in texts if MARK not in line and not is_rays_mark(text)]
    return found


def _overlap(told: list[Any], lines: list[str]) -> int:
    """Return how many of the last of `told` are the first of `lines`, the most there are; in linear time (KMP)."""
    borders = [0]  # of each beginning of `lines`: how much of its end is its beginning again
    length = 0
    for line in lines[1:]:
        while length and line != lines[length]:
            length = borders[length - 1]
        length += line == lines[length]
        borders.append(length)
    length = 0
    for text in told:
        if length == len(lines):
            length = borders[length - 1] if lines else 0
        while length and text != lines[length]:
            length = borders[length - 1]
        length += bool(lines) and text == lines[length]
    return length
