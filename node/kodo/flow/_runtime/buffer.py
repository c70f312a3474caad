"""The events of one run, numbered and kept until the node has committed them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import msgpack

from kodo.flow._runtime.context import DONE, Emitted
from kodo.flow._runtime.plain import plain
from kodo.flow._runtime.spool import Spool
from kodo.p2p.errors import CapacityError, UsageError
from kodo.protocol.flow_limits import pack_data

__all__ = ["EventBuffer", "pack_event"]

MAX_EVENTS = 20_000
"""Uncommitted events beyond which making one blocks; awaiting waits from half of it on."""

MAX_BYTES = 32 * 1024 * 1024
"""The same in bytes."""

BATCH_BYTES = 90 * 1024
"""Bytes of one batch: below the 100 KiB up to which Ray answers inline, without its object store."""


def pack_event(event: str, data: dict[str, Any]) -> bytes:
    """Encode one event as msgpack: `[event, bytes]`, the bytes being its data as msgpack.

    Data that an event cannot carry as it is becomes text where it must: see `plain`.

    Raises:
        CapacityError: `data` is larger than 256 KiB.
    """
    try:
        try:
            packed = pack_data(event, data)
        except UsageError:
            packed = pack_data(event, plain(data))
    except CapacityError as error:
        raise CapacityError(f"{error}: store it with output.write, and name the output in the event") from None
    whole: bytes = msgpack.packb([event, packed])
    return whole


class _Waiting(Emitted):
    """An event that was taken; awaiting it waits until the buffer has drained to half."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: EventBuffer):
        self._buffer = buffer

    def __await__(self) -> Generator[Any, None, None]:
        return self._buffer.drained().__await__()


class EventBuffer:
    """Takes packed events from any thread; one asyncio loop polls them.

    Back-pressure: `put` blocks its thread while the buffer is full, with `wait=False` it never does. Awaiting what
    `put` gives back waits, without blocking a loop, while it is half full.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._events: deque[bytes] = deque()
        self._first = 1  # rseq of the first event kept
        self._bytes = 0
        self._closed = False
        self._poller: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._drained: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._waiting = _Waiting(self)
        self._asking = self._asking_told = False
        self._spool: Spool | None = None

    def keep_in(self, path: Path) -> None:
        """Keep what the node has not taken in the file `path` too, from now on."""
        with self._lock:
            self._spool = Spool(path)
            for rseq, packed in self._numbered():
                self._spool.add(rseq, packed)

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        return enumerate(self._events, self._first)

    def put(self, packed: bytes, *, wait: bool = True, last: bool = False) -> Emitted:
        """Append one event. After the `last` one, more are dropped: the run is over."""
        with self._lock:
            while wait and not self._closed and (len(self._events) >= MAX_EVENTS or self._bytes >= MAX_BYTES):
                self._room.wait()
            if self._closed:
                return DONE
            self._closed = last
            self._events.append(packed)
            self._bytes += len(packed)
            if self._spool is not None:
                self._spool.add(self._first + len(self._events) - 1, packed)
            if self._poller is not None:
                _wake(self._poller)
                self._poller = None
            return self._waiting if self._half_full() else DONE

    @property
    def last(self) -> int:
        """The number of the newest event, 0 before there is one."""
        return self._first + len(self._events) - 1

    @property
    def asking(self) -> bool:
        """Whether `tell_asking` was called."""
        return self._asking

    def tell_asking(self) -> None:
        """Make every batch say from now on that the run has questions for its node."""
        with self._lock:
            self._asking = True
            if self._poller is not None:
                _wake(self._poller)
                self._poller = None

    @property
    def closed(self) -> bool:
        """Whether the last event was put."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether `put` would block."""
        return len(self._events) >= MAX_EVENTS or self._bytes >= MAX_BYTES

    async def drained(self) -> None:
        """Wait until the buffer is less than half full. Cancelling is safe."""
        while True:
            with self._lock:
                if self._closed or not self._half_full():
                    return
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._drained.append((loop, future))
            await future

    async def poll(self, after: int, timeout: float) -> bytes:
        """Forget events up to `after`; give a batch of those beyond, waiting at most `timeout` seconds for one.

        Returns:
            msgpack: `[first rseq, [[event, data as msgpack], …], asking]`; the list is empty when there was none, or
            when a newer poll came; `asking`: see `tell_asking`. Cancelling is safe: events stay until a later poll
            names them.
        """
        batch = self._take(after)
        if batch is None and timeout > 0 and self._asking == self._asking_told:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            with self._lock:
                if self._poller is not None:
                    _wake(self._poller)  # whoever asked before has gone away
                self._poller = (loop, future)
                if self._events or self._asking != self._asking_told:
                    _wake(self._poller)
                    self._poller = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, timeout)
            batch = self._take(after)
        self._asking_told = self._asking
        return batch or msgpack.packb([after + 1, [], self._asking])

    def _take(self, after: int) -> bytes | None:
        with self._lock:
            while self._events and self._first <= after:
                self._bytes -= len(self._events.popleft())
                self._first += 1
            if self._spool is not None and (not self._events or self._spool.full):
                self._spool.clear(self._numbered())
            if not self._half_full():
                self._room.notify_all()
                for waiting in self._drained:
                    _wake(waiting)
                self._drained.clear()
            if not self._events:
                return None
            batch: list[bytes] = []
            size = 0
            for packed in self._events:
                if batch and size + len(packed) > BATCH_BYTES:
                    break
                batch.append(packed)
                size += len(packed)
            packer = msgpack.Packer()
            head: bytes = b"\x93" + packer.pack(self._first) + packer.pack_array_header(len(batch))
            tail: bytes = packer.pack(self._asking)
            return head + b"".join(batch) + tail

    def _half_full(self) -> bool:
        return len(self._events) * 2 >= MAX_EVENTS or self._bytes * 2 >= MAX_BYTES


def _wake(waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]) -> None:
    loop, future = waiting

    def finish() -> None:
        if not future.done():
            future.set_result(None)

    with contextlib.suppress(RuntimeError):  # a loop that has been closed waits for nothing
        loop.call_soon_threadsafe(finish)
