"""What a running flow asks of its node, as its memory. The node fetches the questions, as it does events.

A question is kept until it is answered, so it outlives the node's process: the next one is asked it again, under the
same number (`aid`), by which the node knows what it did already.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgpack

from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import CallError, CapacityError, KodoError, NotFoundError, UsageError

__all__ = ["MAX_ASK_BYTES", "AskQueue", "error_of", "pack_error"]

MAX_OPEN = 1000
"""Questions of one run that wait for their answers; more are refused."""

MAX_ASK_BYTES = 2 << 20
"""Bound of one question."""

BATCH_BYTES = 4 << 20


class AskQueue:
    """The questions of one run. Any thread asks; one asyncio loop polls and brings the answers."""

    def __init__(self, notice: Callable[[], None] = lambda: None):
        """Call `notice` when there is a question for somebody who does not poll yet."""
        self._notice = notice
        self._guard = threading.Lock()
        self._open: dict[int, tuple[bytes, Future[Any]]] = {}
        self._last = 0
        self._poller: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Put a question; the future has the answer, or the error that `error_of` makes of a refusal.

        Raises:
            UsageError: it is nothing that a node can be asked.
            CapacityError: it is too large, or too many are open.
        """
        try:
            check_value(args)
            packed_args = msgpack.packb(dict(args))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"the arguments of {op} are not plain data: {error}") from None
        if len(packed_args) > MAX_ASK_BYTES:
            raise CapacityError(
                f"the arguments of this call to the node have {len(packed_args)} bytes, more than {MAX_ASK_BYTES}"
            )
        future: Future[Any] = Future()
        with self._guard:
            if len(self._open) >= MAX_OPEN:
                raise CapacityError(f"{MAX_OPEN} questions of this run to its node are open; wait for answers")
            self._last += 1
            self._open[self._last] = (msgpack.packb([self._last, op]) + packed_args, future)
            poller = self._poller
        if poller is None:
            self._notice()
        else:
            with contextlib.suppress(RuntimeError):  # a loop that has been closed waits for nothing
                poller[0].call_soon_threadsafe(poller[1].set)
        return future

    async def poll(self, after: int, timeout: float) -> bytes:
        """Return the open questions with `aid` > `after`, waiting at most `timeout` seconds for one.

        Returns:
            msgpack: `[first open aid, [[aid, op, args], …]]`. Cancelling is safe.
        """
        news = asyncio.Event()
        with self._guard:
            if self._poller is not None:
                self._poller[1].set()  # whoever asked before has gone away
            self._poller = (asyncio.get_running_loop(), news)
        batch = self._take(after)
        if not batch[1]:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), timeout)
            batch = self._take(after)
        packed: bytes = msgpack.packb(batch)
        return packed

    def reply(self, aid: int, packed: bytes) -> None:
        """Take the answer to a question: msgpack of `{done}` or `{error}`; a second one changes nothing."""
        with self._guard:
            _, future = self._open.pop(aid, (b"", None))
        if future is None:
            return
        answer = msgpack.unpackb(packed)
        if "error" in answer:
            future.set_exception(error_of(answer["error"]))
        else:
            future.set_result(answer["done"])

    def _take(self, after: int) -> list[Any]:
        with self._guard:
            first = min(self._open, default=self._last + 1)
            found: list[bytes] = []
            size = 0
            for aid, (packed, _) in self._open.items():
                if aid > after and (not found or size + len(packed) <= BATCH_BYTES):
                    found.append(packed)
                    size += len(packed)
        unpacked = []
        for packed in found:
            unpacker = msgpack.Unpacker(max_buffer_size=0)
            unpacker.feed(packed)
            (aid, op), args = unpacker
            unpacked.append([aid, op, args])
        return [first, unpacked]


def pack_error(error: KodoError) -> dict[str, Any]:
    """Return a refusal as it travels to the flow: `{code, reason, message, data}`."""
    if isinstance(error, CallError):
        return {"code": error.code, "reason": error.reason, "message": error.message, "data": error.data}
    code, reason = next((pair for kind, pair in _CODES.items() if isinstance(error, kind)), (500, "failed"))
    return {"code": code, "reason": reason, "message": str(error), "data": {"type": type(error).__name__}}


def error_of(told: Mapping[str, Any]) -> KodoError:
    """Return the error that a flow gets for a refusal: `CapacityError` and the like for the node's own bounds."""
    code, reason, message = int(told.get("code", 500)), str(told.get("reason", "")), str(told.get("message", ""))
    for kind, pair in _CODES.items():
        if pair == (code, reason):
            return kind(message)
    return CallError(code, reason, message, told.get("data") or {})


_CODES: dict[type[KodoError], tuple[int, str]] = {
    UsageError: (400, "usage"),
    NotFoundError: (404, "not-found"),
    CapacityError: (413, "bound"),
}
