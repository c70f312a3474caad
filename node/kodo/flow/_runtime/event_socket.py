"""The Unix socket named in `$KODO_EVENTS`: one JSON event per line, from any language that can write to it.

`{"event": "progress", "data": {"percent": 10, "text": "reading"}}`; `data` may be left out. What a flow may not emit,
and a line that is no such JSON, become a `log` event of level WARNING that says why, and nothing else happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kodo.flow._runtime.flow_events import check_event, normal
from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import KodoError
from kodo.protocol.events import MAX_EVENT_DEPTH

__all__ = ["EVENTS_VARIABLE", "MAX_CONNECTIONS", "MAX_LINE_BYTES", "EventInlet", "fits", "parse_line"]

EVENTS_VARIABLE = "KODO_EVENTS"
"""The environment variable that names the socket."""

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is dropped: as JSON an event of 256 KiB may be about this long."""

MAX_CONNECTIONS = 256
"""Open at a time, one for each child process that has made an event; further ones wait to be accepted."""

_MAX_PATH_BYTES = 100  # the kernel takes 107, some systems 103
_READ_BYTES = 64 * 1024


def parse_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """Read one line into an event's name and data, as the emitters would make them.

    Raises:
        ValueError: it is not JSON map with `event` and, if at all, a map `data`; or the data is more than an event
            carries.
        UsageError: a flow may not emit this event.
    """
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        raise ValueError('it is not a map such as {"event": "progress", "data": {"percent": 10}}')
    data = value.get("data", {})
    if not isinstance(data, dict) or set(value) - {"event", "data"}:
        raise ValueError("besides `event` it may have `data`, a map, and nothing else")
    check_event(value["event"])
    data = normal(value["event"], data)
    check_value(data, MAX_EVENT_DEPTH)
    return value["event"], data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def fits(path: Path) -> bool:
    """Whether a path is short enough for a socket."""
    return len(os.fsencode(path)) <= _MAX_PATH_BYTES


class EventInlet:
    """Listens until closed; one thread serves all connections, in the order in which they say something.

    `sink(event, data)` is called in that thread. One that blocks makes the writers wait: that is the back-pressure.
    """

    def __init__(self, sink: Callable[[str, dict[str, Any]], object]):
        self._sink = sink
        self._selector = selectors.DefaultSelector()
        self._rests: dict[socket.socket, bytes | None] = {}  # None: inside of a line that is too long
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._waking, self._wake = socket.socketpair()
        self._flushes: list[threading.Event] = []
        self._closing = False
        self._temporary: str | None = None
        self._thread: threading.Thread | None = None

    def start(self, path: Path) -> Path:
        """Listen at `path`, or, where that is too long for a socket, in a new temporary folder; gives the place."""
        if not fits(path):
            self._temporary = tempfile.mkdtemp(prefix="kodo-")
            path = Path(self._temporary, "events")
        path.unlink(missing_ok=True)
        self._server.bind(str(path))
        path.chmod(0o600)
        self._server.listen(MAX_CONNECTIONS)
        for end in (self._server, self._waking, self._wake):
            end.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._waking, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="kodo-events", daemon=True)
        self._thread.start()
        return path

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all that was written before has been handed to the sink."""
        done = threading.Event()
        self._flushes.append(done)
        self._stir()
        return done.wait(timeout)

    def close(self) -> None:
        """Stop listening, and remove the socket's temporary folder; idempotent."""
        self._closing = True
        self._stir()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _stir(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            self._wake.send(b"\0")

    def _serve(self) -> None:
        while not self._closing:
            flushes, self._flushes = self._flushes, []
            # A flush is done when a look at everything, after it was asked for, found nothing more.
            while self._turn(0.0 if flushes else None) and not self._closing:
                if not flushes:
                    flushes, self._flushes = self._flushes, []
            for done in flushes:
                done.set()
        for end in (*self._rests, self._server, self._waking, self._wake):
            end.close()
        self._selector.close()

    def _turn(self, timeout: float | None) -> bool:
        """Serve whatever is ready; says whether something was."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            end = key.fileobj
            assert isinstance(end, socket.socket)
            with contextlib.suppress(BlockingIOError, InterruptedError):
                if end is self._waking:
                    end.recv(_READ_BYTES)
                elif end is self._server:
                    self._accept()
                else:
                    self._read(end)
        return bool(ready)

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        connection.setblocking(False)
        self._rests[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._rests) == MAX_CONNECTIONS:
            self._selector.unregister(self._server)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        rest = self._rests[connection]
        *lines, last = data.split(b"\n")
        for line in lines:
            if rest is not None:
                self._line(rest + line)
            rest = b""
        if rest is not None:
            rest += last
            if len(rest) > MAX_LINE_BYTES:
                self._refuse(f"it is longer than {MAX_LINE_BYTES} bytes")
                rest = None
        self._rests[connection] = rest
        if not data:
            if rest:
                self._line(rest)
            self._selector.unregister(connection)
            if len(self._rests) == MAX_CONNECTIONS:
                self._selector.register(self._server, selectors.EVENT_READ)
            del self._rests[connection]
            connection.close()

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        if len(line) > MAX_LINE_BYTES:
            self._refuse(f"it is longer than {MAX_LINE_BYTES} bytes")
            return
        try:
            self._sink(*parse_line(line))
        except (KodoError, ValueError) as error:
            self._refuse(str(error))
        except Exception as error:  # a thread that ends would leave all writers waiting
            self._refuse(type(error).__name__)

    def _refuse(self, reason: str) -> None:
        with contextlib.suppress(Exception):  # as above
            text = f"a line written to ${EVENTS_VARIABLE} was dropped: {reason}"
            self._sink("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})
