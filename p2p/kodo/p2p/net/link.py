"""One WebRTC Direct link: an authenticated connection to one peer that carries channels.

DTLS, SCTP, then Noise XX on channel 0, which proves both peer ids; nothing else is looked at before.
Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from OpenSSL import SSL

from kodo.p2p.core import framing, noise
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import BrokenSessionError, KodoError, LocallyClosedError, PeerError, RemotelyClosedError
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.transport import Channel, ChannelHandler, Limits, LinkHandler
from kodo.p2p.net.webrtc import NOISE_CHANNEL, Association, DatagramPipe, Dtls, RawChannel

__all__ = ["WebRtcLink"]

logger = logging.getLogger(__name__)

NOISE_MESSAGES = 8
NOISE_END_SECONDS = 5.0
"""When a listener closes the handshake's channel if the dialer has not."""
CLOSE_SECONDS = 1.0
WRITE_AHEAD_BYTES = 256 << 10
"""Output that one link queues before writers wait: all channels share one queue, so more would delay calls."""
EARLY_CHANNELS, EARLY_BYTES = 16, 64 << 10
"""What a peer may open and send before its last handshake message has arrived."""
CLOSING_CHANNELS = 1024
"""Channels beside the open streams: both sides have to agree that one is closed, and a peer need never do."""
_SHA256_MULTIHASH = b"\x12\x20"


@dataclass(eq=False, slots=True)
class _Channel:
    """One data channel as `transport.Channel`."""

    link: WebRtcLink
    id: int
    raw: RawChannel
    handler: ChannelHandler | None = None
    unread: int = 0
    closed: bool = False

    def send(self, message: bytes) -> None:
        if self.closed or self.raw.readyState in ("closing", "closed"):
            raise BrokenSessionError("the stream's channel is closed")
        # aiortc keeps what is sent on a channel that is not announced yet behind the announcement.
        self.link.send(self.raw, message)

    def consumed(self, count: int) -> None:
        self.unread -= count
        self.link.consumed(count)

    def close(self) -> None:
        if not self.closed:
            self.raw.close()


class WebRtcLink:
    """One WebRTC Direct link. Make it, feed it datagrams, `await authenticate()`, then `start`."""

    def __init__(
        self,
        identity: Identity,
        certificate: Certificate,
        limits: Limits,
        send: Callable[[bytes], None],
        remote_address: tuple[str, int],
        *,
        server: bool,
        route: str,
    ) -> None:
        self.local_peer = identity.peer_id
        self.remote_peer: PeerId
        self.remote_address = remote_address
        self.route = route
        self.dialled = not server
        self._established = asyncio.Event()
        self.on_end: Callable[[], None] = lambda: None
        self._identity = identity
        self._certificate = certificate
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._last_heard = self._loop.time()
        self._pipe = DatagramPipe(send, "controlled" if server else "controlling")
        self._dtls = Dtls(
            self._pipe,
            certificate,
            server=server,
            lost=lambda: self.fail(RemotelyClosedError("the other side closed the session")),
        )
        self._sctp = Association(self._dtls, self)
        self._channels: dict[int, _Channel] = {}
        self._handler: LinkHandler | None = None
        self._early: list[tuple[_Channel, list[bytes]]] = []
        self._noise_inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._idle = asyncio.Event()
        self._noise_end: asyncio.TimerHandle | None = None
        self._closing = False
        self._buffered = 0
        self._unread = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._error: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # datagrams

    @property
    def last_heard(self) -> float:
        """When the last packet came, on the event loop's clock, seconds."""
        return self._last_heard

    def left_queue(self, count: int) -> None:
        """Note that the association has taken `count` bytes of the queue."""
        self._buffered -= count

    def heard(self) -> None:
        """Note a sign of life that is no datagram of the link, such as a consent check."""
        self._last_heard = self._loop.time()

    def datagram_received(self, data: bytes) -> None:
        """Take one DTLS datagram."""
        self._last_heard = self._loop.time()
        self._pipe.datagram_received(data)

    # handshake

    async def authenticate(
        self, *, expected_digest: bytes | None = None, connection: SSL.Connection | None = None
    ) -> None:
        """Run DTLS, SCTP and Noise. The caller sets the deadline; after an error call `aclose`.

        Raises:
            IdentityError: the other side is somebody else.
            PeerError: it broke the protocol.
            NetworkError: it went away.
        """
        await self._dtls.handshake(connection, expected_digest)
        raw = await self._sctp.begin()
        await self._established.wait()
        self._raise_error()
        await self._noise(raw)
        if self._dtls_is_server:
            # Closed at once, the channel's end may overtake the last handshake message inside the other side.
            self._noise_end = self._loop.call_later(NOISE_END_SECONDS, raw.close)
        else:
            raw.close()

    @property
    def _dtls_is_server(self) -> bool:
        return not self.dialled

    async def _noise(self, raw: RawChannel) -> None:
        local, remote = (
            _SHA256_MULTIHASH + digest for digest in (self._certificate.digest, self._dtls.remote_digest)
        )
        server, client = (local, remote) if self._dtls_is_server else (remote, local)
        # The DTLS server is the initiator, so that the client's first stream needs no further round trip.
        handshake = noise.NoiseXX(
            initiator=self._dtls_is_server,
            static_private=X25519PrivateKey.generate().private_bytes_raw(),
            ephemeral_private=X25519PrivateKey.generate().private_bytes_raw(),
            prologue=b"libp2p-webrtc-noise:" + client + server,
            identity=self._identity,
        )
        messages, frames = framing.MessageReader(), noise.NoiseFrames()
        writing = self._dtls_is_server
        received: deque[bytes] = deque()
        while not handshake.finished:
            if writing:
                raw.send(framing.encode_message(message=noise.frame_noise(handshake.write_message())))
            else:
                while not received:
                    for flag, payload in messages.feed(await self._next_noise_message()):
                        if flag is not None and flag is not framing.Flag.FIN:
                            raise PeerError("the other side broke off the handshake")
                        received.extend(frames.feed(payload))
                handshake.read_message(received.popleft())
            writing = not writing
        if handshake.remote_peer is None:
            raise PeerError("the handshake proved nobody")
        self.remote_peer = handshake.remote_peer

    async def _next_noise_message(self) -> bytes:
        message = await self._noise_inbox.get()
        self._raise_error()
        return message

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # what the association says

    def message_received(self, stream_id: int, data: bytes) -> None:
        """Route one message of the association."""
        channel = self._channels.get(stream_id)
        if channel is None:
            if stream_id == NOISE_CHANNEL and self._noise_inbox.qsize() < NOISE_MESSAGES:
                self._noise_inbox.put_nowait(data)
            self._sctp.read(len(data))
            return
        self._unread += len(data)
        if self._unread > self._limits.unread_bytes:
            self.fail(PeerError("the other side sent more than this side was ready to keep"))
            return
        channel.unread += len(data)
        if channel.handler is not None:
            channel.handler.message_received(data)
            return
        for early, messages in self._early:
            if early is channel:
                messages.append(data)
        if self._unread > EARLY_BYTES:
            self.fail(PeerError("too much came before the handshake was over"))

    def channel_opened(self, raw: RawChannel) -> None:
        """Take a channel that the peer opened."""
        channel = _Channel(self, int(raw.id or 0), raw)
        self._channels[channel.id] = channel
        if len(self._channels) > self._limits.streams + CLOSING_CHANNELS:
            self.fail(PeerError("the other side opens channels without closing any"))
            return
        if self._handler is not None:
            self._deliver(channel, [])
        elif len(self._early) < EARLY_CHANNELS:
            self._early.append((channel, []))
        else:
            channel.close()

    def channel_closed(self, stream_id: int) -> None:
        """Tell the handler that its channel is gone."""
        channel = self._channels.pop(stream_id, None)
        if channel is None or channel.closed:
            return
        channel.closed = True
        if channel.handler is not None:
            channel.handler.channel_closed()

    def fail(self, error: Exception) -> None:
        """End the link because of `error`; the first one counts."""
        if self._error is not None:
            return
        self._error = error
        self._pipe.close()
        self._drained.set()
        self._idle.set()
        self._established.set()
        self._noise_inbox.put_nowait(b"")
        self.on_end()
        for stream_id in list(self._channels):
            self.channel_closed(stream_id)
        if self._handler is not None:
            self._handler.link_lost(error)

    # transport.Link

    def start(self, handler: LinkHandler) -> None:
        """Begin to deliver; see `transport.Link`."""
        self._handler = handler
        early, self._early = self._early, []
        for channel, messages in early:
            if not channel.closed:
                self._deliver(channel, messages)
        if self._error is not None:
            handler.link_lost(self._error)

    def _deliver(self, channel: _Channel, messages: list[bytes]) -> None:
        if self._handler is None:
            return
        channel.handler = self._handler.channel_opened(channel)
        if channel.handler is None:
            channel.close()
            self.consumed(channel.unread)
            channel.unread = 0
            return
        for message in messages:
            channel.handler.message_received(message)

    def open_channel(self, handler: ChannelHandler) -> Channel:
        """Open a channel; see `transport.Link`."""
        self._raise_error()
        raw = self._sctp.open_channel()
        stream_id = int(raw.id or 0)
        channel = _Channel(self, stream_id, raw, handler)
        self._channels[stream_id] = channel
        return channel

    def send(self, raw: RawChannel, message: bytes) -> None:
        """Queue one message of a channel."""
        self._raise_error()
        if self.queued + len(message) > self._limits.queued_out_bytes:
            self.fail(BrokenSessionError("the other side does not take what it is sent"))
            raise BrokenSessionError("the other side does not take what it is sent")
        self._buffered += len(message)
        raw.send(message)
        self.acknowledged()

    @property
    def queued(self) -> int:
        """Bytes given to `send` and not yet acknowledged."""
        return self._buffered + self._sctp.in_flight

    def association_established(self) -> None:
        """Note that SCTP is up."""
        self._established.set()

    def acknowledged(self) -> None:
        """Let writers go on, or make them wait."""
        queued = self.queued
        if self._error is not None or queued < WRITE_AHEAD_BYTES:
            self._drained.set()
        else:
            self._drained.clear()
        if not queued:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until there is room; see `transport.Link`."""
        await self._drained.wait()
        self._raise_error()

    def consumed(self, count: int) -> None:
        """Give window back for bytes that the application read."""
        self._unread -= count
        self._sctp.read(count)

    def probe(self) -> None:
        """Ask for a sign of life; see `transport.Link`."""
        if self._error is None:
            self.spawn(self._sctp.heartbeat())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of the association as a task that the link owns."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.fail(error if isinstance(error, KodoError) else BrokenSessionError(str(error)))

    async def aclose(self) -> None:
        """Close in an orderly way; see `transport.Link`."""
        if self._closing:
            return
        self._closing = True
        try:
            if self._error is None and self.queued:
                self._idle.clear()
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._idle.wait()
        except TimeoutError:
            logger.debug("closing with %d bytes unacknowledged", self.queued)
        finally:
            if self._error is None:
                self._error = LocallyClosedError("this side closed the session")
            # Both only send one packet each and never wait on the network.
            await self._sctp.stop()
            await self._dtls.stop()
            self._pipe.close()
            self._drained.set()
            if self._noise_end is not None:
                self._noise_end.cancel()
            for task in self._tasks:
                task.cancel()
            self.on_end()
