"""The call layer: one stream is one call. The caller's side (`Call`, `request`) and the callee's (`CallServer`).

A call begins with its op and args, gives zero or more items and exactly one end, and is cancelled by a reset of
its stream. Whatever goes wrong has a deadline and ends in one of the errors of `kodo.p2p.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kodo.p2p.core import callframe
from kodo.p2p.core.callframe import Done, Item
from kodo.p2p.errors import (
    BrokenSessionError,
    CallError,
    CapacityError,
    DeadlineError,
    KodoError,
    LocallyClosedError,
    PeerError,
)
from kodo.p2p.net.session import Session
from kodo.p2p.net.stream import Stream

__all__ = ["CALL_PROTOCOL", "Call", "CallServer", "Request", "request"]

logger = logging.getLogger(__name__)

CALL_PROTOCOL = "/kodo/call/1"
REQUEST_SECONDS = 30.0
"""How long a caller may take to say what it wants."""
CODES = {CapacityError: (507, "full"), DeadlineError: (504, "timeout")}


class Call:
    """One call as its caller sees it.

        async with Call(session, "run.stream", {"fid": fid}) as call:
            async for item in call: ...
            done = await call.done()

    Leaving the block before the end cancels the call.

    Args:
        upload: byte pieces that are sent after the args.
        timeout: seconds that one item or the end may take; None waits for as long as the session lives.
    """

    def __init__(
        self,
        session: Session,
        op: str,
        args: Mapping[str, Any] | None = None,
        *,
        upload: AsyncIterable[bytes] | None = None,
        timeout: float | None = 30.0,
    ) -> None:
        self.op = op
        self._session = session
        self._args = args
        self._upload = upload
        self._timeout = timeout
        self._stream: Stream | None = None
        self._frames = callframe.FrameReader()
        self._waiting: deque[Any] = deque()
        self._end: Done | CallError | None = None
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        first = callframe.encode_frame(callframe.request(self.op, self._args))
        self._stream = await self._session.open_stream(CALL_PROTOCOL)
        try:
            async with self._deadline():
                await self._stream.write(first)
                if self._upload is None:
                    await self._stream.close_write()
        except BaseException:
            self._stream.reset()
            raise
        if self._upload is not None:
            self._sending = asyncio.create_task(self._send_upload(self._stream, self._upload))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        if self._stream is not None:
            if self._end is None:
                self._stream.reset()
            else:
                with contextlib.suppress(KodoError):
                    await self._stream.aclose()

    async def _send_upload(self, stream: Stream, pieces: AsyncIterable[bytes]) -> None:
        try:
            async for piece in pieces:
                await stream.write(callframe.encode_frame(piece))
            await stream.close_write()
        except KodoError:
            # The callee's answer says why it takes no more; without one, reading raises what broke.
            return
        except BaseException:
            stream.reset()
            raise

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            raise DeadlineError(f"{self.op}: no answer within {self._timeout:g} s") from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next item.

        Raises:
            StopAsyncIteration: the call has ended; `done` says how.
            DeadlineError, PeerError, NetworkError: it broke.
        """
        frame = await self._next()
        if isinstance(frame, Item):
            return frame.value
        raise StopAsyncIteration

    async def batches(self) -> AsyncIterator[list[Any]]:
        """Yield the items as they arrive, several at once; otherwise as iterating over the call.

        Raises:
            DeadlineError, PeerError, NetworkError: it broke.
        """
        while True:
            first = await self._next()
            if not isinstance(first, Item):
                return
            items = [first.value]
            while self._waiting and callframe.is_item(self._waiting[0]):
                items.append(self._waiting.popleft()["item"])
            yield items

    async def done(self) -> Any:
        """Return the end of the call; items that were not taken are passed over.

        Raises:
            CallError: the callee refused.
            DeadlineError, PeerError, NetworkError: it broke.
        """
        while self._end is None:
            await self._next()
        if isinstance(self._end, CallError):
            raise self._end
        return self._end.value

    async def _next(self) -> Item | Done | CallError:
        if self._end is not None:
            return self._end
        if self._stream is None:
            raise LocallyClosedError("a call is used inside `async with`")
        while not self._waiting:
            data = self._stream.read_ready()
            if not data:
                async with self._deadline():
                    data = await self._stream.read()
            if not data:
                raise BrokenSessionError(f"{self.op}: the other side ended the stream without an answer")
            self._waiting.extend(self._frames.feed(data))
            self._stream.keep(self._frames.buffered)
        answer = callframe.read_answer(self._waiting.popleft())
        if not isinstance(answer, Item):
            self._end = answer
        return answer


async def request(
    session: Session, op: str, args: Mapping[str, Any] | None = None, *, timeout: float | None = 30.0
) -> Any:
    """Make a call that has no items; give what it ends with.

    Raises:
        CallError: the callee refused.
        DeadlineError: no answer within `timeout` seconds.
        PeerError, NetworkError: the call broke.
    """
    async with Call(session, op, args, timeout=timeout) as call:
        async for _ in call:
            raise PeerError(f"{op} answered with an item where none is expected")
        return await call.done()


@dataclass(slots=True)
class Request:
    """One call as its callee sees it."""

    op: str
    args: dict[str, Any]
    session: Session
    stream: Stream
    _frames: callframe.FrameReader
    _waiting: deque[Any]

    async def send(self, item: Any) -> None:
        """Send one item; waits while the caller takes none."""
        await self.stream.write(callframe.encode_frame(callframe.item(item)))

    async def send_all(self, items: Iterable[Any]) -> None:
        """Send several items at once, which costs less than one by one."""
        await self.stream.write(b"".join(callframe.encode_frame(callframe.item(item)) for item in items))

    async def send_frames(self, frames: bytes) -> None:
        """Send items that are encoded already, as by `callframe.packed_item`, one frame after the other."""
        await self.stream.write(frames)

    def abort(self) -> None:
        """Break the call off: of what was sent nothing more arrives, and no end either."""
        self.stream.reset(drop=True)

    async def uploads(self) -> AsyncIterator[bytes]:
        """Yield the byte pieces that the caller sends after its args.

        Raises:
            PeerError: something else came.
            BrokenSessionError: the caller went away.
        """
        while True:
            while self._waiting:
                yield self._piece()
            data = await self.stream.read()
            if not data:
                if self._frames.buffered:
                    raise PeerError(f"{self.op}: the upload was cut off within a frame")
                return
            self._waiting.extend(self._frames.feed(data))
            self.stream.keep(self._frames.buffered)

    def arrived(self) -> Iterator[bytes]:
        """Yield the pieces that `uploads` would give without waiting.

        Raises:
            PeerError: something else came.
        """
        while self._waiting or (data := self.stream.read_ready()):
            if self._waiting:
                yield self._piece()
            else:
                self._waiting.extend(self._frames.feed(data))
                self.stream.keep(self._frames.buffered)

    def _piece(self) -> bytes:
        piece = self._waiting.popleft()
        if not isinstance(piece, bytes):
            raise PeerError(f"{self.op}: after the args only bytes may follow")
        return piece


class CallServer:
    """Answers calls: the stream handler of `/kodo/call/1`.

    Args:
        handler: gives the end of a call, or raises `CallError` to refuse it. It is cancelled when the caller
            resets the stream.
        admit: says whether the peer of a session has any business here, by raising `CallError` if it has none.
            Until it has, its calls are small: what is over `callframe.EARLY_BYTES` gets that refusal, unread.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Any]],
        admit: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        self._handler = handler
        self._admit = admit

    async def __call__(self, stream: Stream) -> None:
        """Serve one stream."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await self._read_request(stream)
        except TimeoutError:
            raise PeerError("a call did not name its op in time") from None
        except callframe.TooManyValuesError as error:
            return await self._end(stream, callframe.error(CallError(400, "too-complex", str(error))))
        except CallError as error:
            return await self._end(stream, callframe.error(error))
        task, gone = asyncio.current_task(), False
        assert task is not None

        def cancel() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        # A caller may end its own direction; only a broken stream means that nobody waits any more.
        stream.on_end = cancel
        try:
            answer = await self._answer(request)
        except asyncio.CancelledError:
            if gone and not task.uncancel():
                return
            raise
        finally:
            stream.on_end = None
            request._frames.clear()
        if not gone:
            await self._end(stream, answer)

    async def _read_request(self, stream: Stream) -> Request:
        data = await _more(stream)
        while (length := callframe.announced(data)) is None:
            data += await _more(stream)
        refusal = await self._refusal(stream.session, length)
        if refusal is None:
            frames = callframe.FrameReader(max_values=callframe.MAX_REQUEST_VALUES)
        else:
            if length > callframe.EARLY_BYTES:
                await _pass_over(stream, length - len(data))
                raise refusal
            frames = callframe.FrameReader(callframe.EARLY_BYTES, callframe.EARLY_VALUES)
        waiting: deque[Any] = deque()
        try:
            waiting.extend(frames.feed(data))
            while not waiting:
                stream.keep(frames.buffered)
                waiting.extend(frames.feed(await _more(stream)))
            stream.keep(frames.buffered)
        except callframe.TooManyValuesError:
            if refusal is None:
                raise
            raise refusal from None
        finally:
            if not waiting:
                # The error that ended this holds on to the frame of this call, and so to the reader, for long.
                frames.clear()
        op, args = callframe.read_request(waiting.popleft())
        return Request(op, args, stream.session, stream, frames, waiting)

    async def _refusal(self, session: Session, length: int) -> CallError | None:
        """Return why a frame of so many bytes is more than this peer may send; None: it is not."""
        if session.admitted or self._admit is None or length <= callframe.EARLY_VALUES:
            return None
        try:
            await self._admit(session)
        except CallError as refusal:
            return refusal
        return None

    async def _answer(self, request: Request) -> dict[str, Any]:
        try:
            return callframe.done(await self._handler(request))
        except CallError as error:
            return callframe.error(error)
        except (CapacityError, DeadlineError) as error:
            code, reason = CODES[type(error)]
            return callframe.error(CallError(code, reason, str(error)))
        except PeerError as error:
            return callframe.error(CallError(400, "bad-call", str(error)))
        except KodoError as error:
            logger.warning("%s failed: %s", request.op, error)
            return callframe.error(CallError(500, "internal", f"{request.op} failed on the node"))
        except Exception:
            logger.exception("%s failed", request.op)
            return callframe.error(CallError(500, "internal", f"{request.op} failed on the node"))

    async def _end(self, stream: Stream, answer: dict[str, Any]) -> None:
        try:
            frame = callframe.encode_frame(answer)
        except (CapacityError, ValueError) as error:
            frame = callframe.encode_frame(callframe.error(CallError(500, "internal", f"no answer: {error}")))
        await stream.write(frame)
        await stream.aclose()


async def _more(stream: Stream) -> bytes:
    data = await stream.read()
    if not data:
        raise PeerError("a call's stream ended before it named its op")
    return data


async def _pass_over(stream: Stream, count: int) -> None:
    """Discard bytes, so that their sender comes to read why they are not wanted."""
    if count > callframe.MAX_FRAME_BYTES:
        raise PeerError(f"a call frame is over the limit of {callframe.MAX_FRAME_BYTES} bytes")
    while count > 0 and (data := await stream.read()):
        count -= len(data)
