"""What code in a process that a flow forked or started is connected to: the flow's socket for events.

Of what a fork copies nothing leads to the node: the threads that carry events are the parent's. So a child says what
it has to say as every other program does, by `$KODO_EVENTS`; what is handed over is in the run, also when the child
ends at once.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.context import DONE, Context, Demand, Emitted
from kodo.flow._runtime.event_socket import MAX_LINE_BYTES
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import CapacityError, UnreachableError, UsageError

__all__ = ["ChildContext"]


class ChildContext(Context):
    """Sends events to the flow's socket at `place`, and waits while the node is behind; refuses all else."""

    def __init__(self, place: str, fid: str | None = None):
        self.fid = fid
        self._place = place
        self._guard = threading.Lock()
        self._connection: socket.socket | None = None

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        """Send one event.

        Raises:
            CapacityError: it is larger than an event or a line may be.
            UnreachableError: the flow's process takes none: the run has not begun, or is over.
        """
        pack_event(event, data)
        line = json.dumps({"event": event, "data": plain(data)}, ensure_ascii=False).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise CapacityError(f"this {event!r} event is {len(line)} bytes as JSON, more than {MAX_LINE_BYTES}")
        try:
            with self._guard:
                if self._connection is None:
                    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    connection.connect(self._place)
                    self._connection = connection
                self._connection.sendall(line)
        except OSError as error:
            raise UnreachableError(
                f"the flow of this process accepts no events: it has not begun or has ended ({error.strerror})"
            ) from error
        return DONE

    def lock(self, demand: Demand) -> Future[Any]:
        raise UsageError("a lock works only in the flow's own process, not in one that it has forked or started")

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        raise UsageError("an output can be written only in the flow's own process: return the data to it")

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        raise UsageError(f"{op} works only in the flow's own process, not in one that it has forked or started")
