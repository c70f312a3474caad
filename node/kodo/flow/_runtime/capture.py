"""What a flow prints and logs, as events: file descriptors 1 and 2 become pipes that threads of this process read.

Redirecting the descriptors, not Python's `sys.stdout`, also catches what C libraries and child processes write.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import io
import os
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kodo.flow._runtime.bars import EVERY_S, Bar, plain_text
from kodo.p2p.net.files import open_plain, plain_descriptor

__all__ = ["MARK", "MAX_LINE_BYTES", "StreamCapture", "read_rest", "shown"]

MAX_LINE_BYTES = 32 * 1024
"""A longer line becomes several events."""

MARK = b"\x00kodo-"
"""Begins what `flush` sends through a pipe."""

_READ_BYTES = 64 * 1024

_HEAD_BYTES = 16
"""Of a file of `keep_rests`: the length of the rest, and length and digest of what was in the pipe with it."""


class StreamCapture:
    """Takes over stdout and stderr of this process for the rest of its life.

    `sink(event, text)` is called in reader threads, once per line, without its line end; `event` is `stdout` or
    `stderr`. A sink that blocks makes whoever prints wait: that is the back-pressure.
    """

    def __init__(
        self, sink: Callable[[str, str], None], draw: Callable[[dict[str, Any]], object] = lambda data: None
    ):
        self.sink = sink
        self.draw = draw
        self._marks: dict[bytes, threading.Event] = {}
        self._rests = {"stdout": b"", "stderr": b""}
        self._kept: dict[str, int] = {}
        self._ends: list[_End] = []
        self._guard = threading.Lock()

    def start(self) -> None:
        """Redirect; nothing that is printed from now on reaches where it went before. stdin becomes empty."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        for descriptor, event in ((1, "stdout"), (2, "stderr")):
            with contextlib.suppress(OSError, ValueError):
                (sys.stdout if descriptor == 1 else sys.stderr).flush()
            reading, writing = os.pipe()
            os.dup2(writing, descriptor)  # inheritable, as children need it
            end = _End(writing)
            self._ends.append(end)
            stream = io.TextIOWrapper(
                io.BufferedWriter(_Output(descriptor, end)),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=True,
            )
            if descriptor == 1:
                sys.stdout = stream
            else:
                sys.stderr = stream
            threading.Thread(target=self._read, args=(reading, event), name=f"kodo-{event}", daemon=True).start()

    def keep_rests(self, folder: Path) -> None:
        """Keep in files of a folder what was printed without a line end yet, for when this process dies."""
        for event, rest in self._rests.items():
            with self._guard, contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                self._kept[event] = plain_descriptor(_rest_file(folder, event), flags)
                self._write_rest(event, rest)

    def _keep_rest(self, event: str, rest: bytes, read: bytes = b"") -> None:
        with self._guard:
            if rest or self._rests[event]:
                self._rests[event] = rest
                self._write_rest(event, rest, read)

    def _write_rest(self, event: str, rest: bytes, read: bytes = b"") -> None:
        """Write it in one step; what is behind it in the file is of a longer one before.

        Args:
            read: what it ends, and is in the pipe still: whoever reads both has to know.
        """
        if event in self._kept:
            with contextlib.suppress(OSError):  # the disk may be full
                head = len(rest).to_bytes(4, "big") + len(read).to_bytes(4, "big") + _digest(read)
                os.pwrite(self._kept[event], head + rest, 0)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all that was printed before has been handed to the sink.

        A mark is sent through each pipe: waiting for its end would wait for every child that still holds it. Whatever
        a flow has made of 1 and 2, nothing but the pipes gets one.
        """
        with contextlib.suppress(Exception):  # a flow may have replaced or closed them
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)
        done = []
        for end in self._ends:
            mark = MARK + secrets.token_hex(16).encode() + b"\x00\n"
            event = self._marks[mark] = threading.Event()
            done.append(event)
            # A full pipe would block this write, so another thread does it.
            threading.Thread(target=self._mark, args=(end, mark, event), daemon=True).start()
        return sum(event.wait(timeout) for event in done) == len(done)

    def _mark(self, end: _End, mark: bytes, done: threading.Event) -> None:
        try:
            end.write(mark)
        except OSError:  # the flow has closed it: what was printed is read, or cannot be
            self._marks.pop(mark, None)
            done.set()

    def _read(self, descriptor: int, event: str) -> None:
        rest = b""
        bar = Bar()
        peek = _peeker(descriptor)
        while True:
            while bar.waits and not select.select([descriptor], [], [], EVERY_S)[0]:
                self._draw(event, bar.due(time.monotonic()))
            try:
                data = peek() if peek else os.read(descriptor, _READ_BYTES)
            except OSError:
                if peek is None:
                    return
                peek = None  # tee(2) is there and not allowed, as in some sandboxes
                continue
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if bar.told:
                    state = line.rpartition(MARK)[0] if MARK in line else line  # a flush may come behind it
                    self._draw(event, bar.draw(shown(state), time.monotonic() + EVERY_S))
                    bar = Bar()
                self._line(event, line)
            if b"\r" in rest:
                self._draw(event, bar.draw(rest.partition(MARK)[0].decode("utf-8", "replace"), time.monotonic()))
                rest = _latest(rest)
            rest = self._say_most(event, rest)
            self._keep_rest(event, rest, data if peek else b"")
            if peek:
                _take(descriptor, len(data))
                self._keep_rest(event, rest)

    def _draw(self, event: str, data: dict[str, Any] | None) -> None:
        if data is not None:
            with contextlib.suppress(Exception):  # as in `_say`
                self.draw({"id": event, **data})

    def _line(self, event: str, line: bytes) -> None:
        if MARK in line:
            text, _, mark = line.rpartition(MARK)
            waiting = self._marks.pop(MARK + mark + b"\n", None)
            if waiting is not None:
                if text:
                    self._say(event, self._say_most(event, text))
                waiting.set()
                return
        self._say(event, self._say_most(event, line))

    def _say_most(self, event: str, line: bytes) -> bytes:
        """Emit a line that is too long for one event in several; return the rest."""
        while len(line) > MAX_LINE_BYTES:
            cut = _boundary(line, MAX_LINE_BYTES)
            self._say(event, line[:cut])
            line = line[cut:]
        return line

    def _say(self, event: str, line: bytes) -> None:
        with contextlib.suppress(Exception):  # a reader that ends would block every print for ever
            self.sink(event, shown(line))


def read_rest(folder: Path, event: str, unread: bytes = b"") -> bytes:
    """Return what a process that died had printed and not told as lines.

    Args:
        folder: of its files; what is no such file is nothing.
        unread: what was found in its pipe.
    """
    try:
        with open_plain(_rest_file(folder, event)) as file:
            data = file.read(_HEAD_BYTES + MAX_LINE_BYTES)
    except OSError:
        return unread
    size, read = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    if read <= len(unread) and _digest(unread[:read]) == data[8:_HEAD_BYTES]:
        unread = unread[read:]
    return data[_HEAD_BYTES : _HEAD_BYTES + size] + unread


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _rest_file(folder: Path, event: str) -> Path:
    return folder / f"rest-{event}"


def shown(line: bytes) -> str:
    """Return a line as a screen would show it in the end, uncoloured; after a carriage return it is drawn anew."""
    return plain_text(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))


def _latest(line: bytes) -> bytes:
    """Return of a line that is drawn anew what counts: its state now, and whether it is about to be drawn again."""
    states = line.split(b"\r")
    if states[-1]:
        return b"\r" + states[-1]
    return b"\r" + next((state for state in reversed(states) if state), b"") + b"\r"


class _End:
    """The writing end of a pipe, which is there also when a flow has closed or redirected 1 and 2."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._pipe = _identity(descriptor)

    def write(self, data: bytes | memoryview) -> int:
        """Write; return how many bytes were taken.

        Raises:
            OSError: this end is closed, or its number is another file's by now.
        """
        if _identity(self._descriptor) != self._pipe:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.write(self._descriptor, data)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class _Output(io.FileIO):
    """Descriptor 1 or 2 for `print`, which goes on where a flow, or a library, has closed it."""

    def __init__(self, descriptor: int, end: _End):
        super().__init__(descriptor, "w", closefd=False)
        self._end = end

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return self._end.write(data)


def _peeker(descriptor: int) -> Callable[[], bytes] | None:
    """Return what waits for data in a pipe and returns it, but leaves it there; None: this system has no tee(2).

    Whoever else holds the pipe can read what this process, should it die, has not told.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "tee"):
        return None
    copied, copying = os.pipe()

    def peek() -> bytes:
        size = -1
        while size < 0:
            size = library.tee(descriptor, copying, _READ_BYTES, 0)
            if size >= 0 or ctypes.get_errno() == errno.EINTR:
                continue
            raise OSError(ctypes.get_errno(), "tee")
        return os.read(copied, size) if size else b""

    return peek


def _take(descriptor: int, size: int) -> None:
    while size:
        size -= len(os.read(descriptor, size))


def _boundary(data: bytes, limit: int) -> int:
    """Cut at most `limit` bytes off, not inside of a UTF-8 sequence."""
    cut = limit
    while cut > limit - 4 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
