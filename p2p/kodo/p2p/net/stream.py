"""One ordered byte stream inside a session: a channel with libp2p's framing, half-closing and protocol choice.

How a stream can end, kept apart as everywhere in kodo: `read` gives `b""` when they finished; `LocallyClosedError`
is raised when we had closed; `BrokenSessionError` when it broke: a RESET, a lost session, a channel closed early.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from kodo.p2p.core.framing import Flag, MessageReader, encode_message
from kodo.p2p.core.halfclose import Event, HalfClose, ReadState, WriteState
from kodo.p2p.core.negotiate import Accepting, Dialing
from kodo.p2p.errors import (
    BrokenSessionError,
    KodoError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
    afresh,
)
from kodo.p2p.net.transport import Channel

if TYPE_CHECKING:
    from kodo.p2p.net.session import Session

__all__ = ["Stream", "StreamHandler"]

SMALL_BYTES = 1024
"""Pieces up to this size are kept together: single bytes would cost fifty times what the window counts."""

MESSAGE_PIECE_BYTES = 16_288
"""Payload of a message in the middle of a long output: with its framing it fills the longest packet."""

StreamHandler = Callable[["Stream"], Awaitable[None]]


class Stream:
    """A byte stream to the other side of a session; made by `Session.open_stream` or given to a handler.

    One task may read while another writes. All waiting methods may be cancelled; a cancelled `write` may have sent
    a part of its data.
    """

    def __init__(self, session: Session, protocol: str | None, accepts: Collection[str] = ()) -> None:
        self.session = session
        self.protocol = protocol or ""
        self.opened_at = session.now()
        self._fin_sent_at: float | None = None
        self._channel: Channel | None = None
        self._window: Channel | None = None
        """The channel once it is closed too: what it has brought holds its link's window until it is read."""
        self._half = HalfClose()
        self._messages = MessageReader()
        self._dialing = Dialing(protocol) if protocol else None
        self._accepting = None if protocol else Accepting(accepts)
        self._hello = self._dialing.hello() if self._dialing else b""
        self._inbox: deque[bytes] = deque()
        self._outbox = bytearray()
        """Less than `MESSAGE_PIECE_BYTES`, which go with what follows, in the next turn of the loop at the latest."""
        self._readable = asyncio.Event()
        self._ended = asyncio.Event()
        self.on_end: Callable[[], None] | None = None
        """Called when the stream broke, was reset, or ended in both directions."""
        self._error: KodoError | None = None
        self._kept = self._kept_of_message = 0

    def attach(self, channel: Channel) -> None:
        """Bind the stream to its channel; the session calls it once."""
        self._channel = self._window = channel

    # reading

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Return the next bytes, at most `max_bytes`; `b""` when the other side has finished.

        Raises:
            BrokenSessionError: the stream broke; what was read may not be all.
            PeerError: the other side broke the protocol, or does not speak this stream's.
            LocallyClosedError: the stream was closed here.
        """
        self._send_hello()
        while not self._inbox:
            if self._half.read is ReadState.CLOSED and self._error is None:
                return b""
            self._raise_error()
            if self._half.read is not ReadState.OPEN:
                raise LocallyClosedError("this stream was closed for reading here")
            self._readable.clear()
            await self._readable.wait()
        piece = self._inbox.popleft()
        if len(piece) > max_bytes:
            self._inbox.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._consumed(len(piece))
        return piece

    def read_ready(self, max_bytes: int = 1 << 18) -> bytes:
        """Return the bytes that have come already, at most `max_bytes`; `b""` when `read` would wait, or raise."""
        inbox = self._inbox
        if len(inbox) < 2:
            if not inbox or len(inbox[0]) > max_bytes:
                return b""
            data = inbox.popleft()
        else:
            pieces, room = [], max_bytes
            while inbox and len(inbox[0]) <= room:
                room -= len(inbox[0])
                pieces.append(inbox.popleft())
            data = b"".join(pieces)
        self._consumed(len(data))
        return data

    def keep(self, count: int) -> None:
        """Report how many bytes the reader keeps of what it took and cannot use yet, as half a frame.

        Their window was given back, so they count as the session's in another way: see `budget`.
        """
        if count != self._kept and not self._ended.is_set():
            self._kept, change = count, count - self._kept
            self.session.keep(change)

    def _consumed(self, count: int) -> None:
        if self._window is not None and count:
            self._window.consumed(count)

    # writing

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the session has much to send already.

        Raises:
            RemotelyClosedError: the other side reads no more.
            BrokenSessionError, PeerError, LocallyClosedError: as `read`.
        """
        if self._hello:
            data, self._hello = self._hello + data, b""
        if not data:
            return
        self._check_writable()
        position, end = 0, len(data)
        while len(self._outbox) + end - position >= MESSAGE_PIECE_BYTES:
            following = position + MESSAGE_PIECE_BYTES - len(self._outbox)
            if self._outbox:
                self._outbox += data[position:following]
                self._send_outbox()
            else:
                self._send(encode_message(message=data[position:following]))
            position = following
            if self.session.full:
                await self.session.drained()
                self._check_writable()
        if position < end:
            if not self._outbox:
                self.session.before_sending(self._send_outbox)
            self._outbox += data[position:] if position else data
            if self.session.full:
                await self.session.drained()

    def _check_writable(self) -> None:
        if not self._half.may_write:
            self._raise_error()
            if self._half.write is WriteState.STOPPED:
                raise RemotelyClosedError("the other side reads no more of this stream")
            raise LocallyClosedError("this stream was closed for writing here")

    def _send_outbox(self) -> None:
        """Send what was kept to go along with more."""
        if self._outbox and self._half.may_write:
            message = encode_message(message=bytes(self._outbox))
            self._outbox.clear()
            # A channel that has just closed says so to the reader and to the next writer.
            with contextlib.suppress(KodoError):
                self._send(message)

    def _send_hello(self) -> None:
        if self._hello and self._half.may_write:
            hello, self._hello = self._hello, b""
            self._send(encode_message(message=hello))

    def _send(self, message: bytes) -> None:
        if self._channel is None:
            raise LocallyClosedError("this stream has no channel")
        self._channel.send(message)

    # ending

    async def close_write(self) -> None:
        """Close the stream for writing; what the other side writes can still be read. Idempotent."""
        self._send_hello()
        self._send_outbox()
        if self._half.write in (WriteState.OPEN, WriteState.STOPPED):
            self._happen(Event.LOCAL_CLOSE_WRITE)

    async def aclose(self) -> None:
        """End both directions in an orderly way; what was written still arrives. Idempotent."""
        await self.close_write()
        if self._half.read is ReadState.OPEN:
            self._happen(Event.LOCAL_CLOSE_READ)
        self._drop_inbox()

    def reset(self, *, drop: bool = False) -> None:
        """Reset both directions at once; the other side's `read` breaks. Idempotent.

        Args:
            drop: what was written and has not gone is forgotten, so that nothing more of it arrives.
        """
        if not self._half.done:
            if drop and self._channel is not None:
                self._outbox.clear()
                self._channel.drop()
            self._send_outbox()
            self._fail(LocallyClosedError("this stream was reset here"), Event.LOCAL_RESET)
        self._drop_inbox()

    async def wait_ended(self) -> None:
        """Wait until the stream broke, was reset, or ended in both directions; cancelling is safe."""
        await self._ended.wait()

    @property
    def ended(self) -> bool:
        """Whether the stream is over in both directions."""
        return self._half.done

    @property
    def broken(self) -> bool:
        """Whether the stream did not end in an orderly way."""
        return self._error is not None

    @property
    def negotiating(self) -> bool:
        """Whether the other side, who opened the stream, has not named a protocol yet."""
        return self._accepting is not None

    @property
    def unacknowledged_since(self) -> float | None:
        """When FIN was sent, if nothing but its acknowledgement is missing; on the event loop's clock."""
        waiting = self._half.write is WriteState.FIN_SENT and self._half.read is not ReadState.OPEN
        return self._fin_sent_at if waiting else None

    def _drop_inbox(self) -> None:
        self._consumed(sum(map(len, self._inbox)))
        self._inbox.clear()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise afresh(self._error)

    def _fail(self, error: KodoError, event: Event) -> None:
        if self._error is None:
            self._error = error
        self._happen(event)

    def _happen(self, event: Event) -> None:
        flag = self._half.on(event)
        if flag is not None and self._channel is not None:
            try:
                self._channel.send(encode_message(flag))
            except KodoError:
                self._half.on(Event.CHANNEL_CLOSED)
        if event is Event.LOCAL_CLOSE_WRITE:
            self._fin_sent_at = self.session.now()
        self._readable.set()
        if self._half.done:
            if self.on_end is not None and not self._ended.is_set():
                self.on_end()
            if kept := self._kept + self._kept_of_message:
                self._kept = self._kept_of_message = 0
                self.session.keep(-kept)
            self._ended.set()
            if self._channel is not None:
                self._channel.close()
            self.session.stream_ended(self)

    # the channel's handler

    def message_received(self, message: bytes) -> None:
        """Take one message of the channel."""
        kept = 0
        try:
            for flag, payload in self._messages.feed(message):
                if payload:
                    kept += self._payload(payload)
                if flag is not None:
                    self._flag(flag)
        except KodoError as error:
            self._fail(error, Event.LOCAL_RESET)
            self._drop_inbox()
        finally:
            self._consumed(len(message) - kept)
            if self._messages.buffered != self._kept_of_message and not self._ended.is_set():
                change = self._messages.buffered - self._kept_of_message
                self._kept_of_message += change
                self.session.keep(change)

    def channel_closed(self) -> None:
        """Take the end of the channel."""
        if not self._half.done:
            if self._half.read is ReadState.OPEN or self._half.write is WriteState.OPEN:
                self._error = self._error or self.session.error or BrokenSessionError("the stream broke off")
            self._happen(Event.CHANNEL_CLOSED)
        self._channel = None

    def _flag(self, flag: Flag) -> None:
        if flag is Flag.RESET and not self._half.done:
            self._fail(BrokenSessionError("the other side reset the stream"), Event.REMOTE_RESET)
        else:
            self._happen(Event.of(flag))

    def _payload(self, payload: bytes) -> int:
        """Keep payload for the reader; give how many bytes of the channel's window it holds until read."""
        self._half.on(Event.REMOTE_DATA)
        if self._dialing is not None:
            if not self._dialing.feed(payload):
                return 0
            payload, self._dialing = self._dialing.leftover, None
        elif self._accepting is not None:
            answer = self._accepting.feed(payload)
            if answer and self._half.may_write:
                # The channel may be closed already; the handler is to learn of that, not of the answer.
                with contextlib.suppress(KodoError):
                    self._send(encode_message(message=answer))
            if self._accepting.protocol is None:
                return 0
            self.protocol, payload = self._accepting.protocol, self._accepting.leftover
            self._accepting = None
            self.session.stream_accepted(self)
        if not payload or not self._half.may_read:
            return 0
        if self._inbox and len(self._inbox[-1]) + len(payload) <= SMALL_BYTES:
            self._inbox[-1] += payload
        else:
            self._inbox.append(payload)
        self._readable.set()
        return len(payload)

    def expire(self, why: str) -> None:
        """End a stream that overstayed a deadline of its session."""
        if not self._half.done:
            self._fail(PeerError(why), Event.LOCAL_RESET)
            self._drop_inbox()
