"""DTLS and SCTP of a WebRTC Direct link, and the only module that imports aiortc.

aiortc gives the DTLS handshake, the SCTP association and the data channels; what it leaves open is closed here in
subclasses: the certificate's hash is checked against the address, the receive window follows what the application
has read, the peer's window is respected, a bad packet ends the link and nothing else. `tests/contract` fails when
a new release changes one of the internals that are touched.

Source: libp2p/specs webrtc/webrtc-direct.md; RFC 8831, 8832, 9260.
"""

from __future__ import annotations

import asyncio
import datetime
import hmac
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiortc import RTCCertificate
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCDtlsTransport, State
from aiortc.rtcsctptransport import (
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    HeartbeatChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from kodo.p2p.core import framing, noise
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import (
    BrokenSessionError,
    IdentityError,
    KodoError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
    UsageError,
)
from kodo.p2p.net.transport import Channel, ChannelHandler, Limits, LinkHandler

__all__ = ["Certificate", "CookieGate", "WebRtcLink"]

logger = logging.getLogger(__name__)

SCTP_PORT = 5000
NOISE_CHANNEL = 0
NOISE_MESSAGES = 8
CLOSE_SECONDS = 1.0
QUEUED_DATAGRAMS = 512
"""Datagrams that wait for one link; more are dropped, as a network would."""
WRITE_AHEAD_BYTES = 256 << 10
"""Output that one link queues before writers wait: all channels share one queue, so more would delay calls."""
EARLY_CHANNELS, EARLY_BYTES = 16, 64 << 10
"""What a peer may open and send before its last handshake message has arrived."""
_SHA256_MULTIHASH = b"\x12\x20"
_OP_COOKIE_EXCHANGE: Any = SSL.OP_COOKIE_EXCHANGE


class Certificate:
    """A DTLS certificate (P-256) that outlives the process, so that a node's certhash, its address, stays."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.digest = certificate.fingerprint(hashes.SHA256())
        """SHA-256 of the certificate, `bytes[32]`."""
        self.context = self._make_context()

    @classmethod
    def generate(cls) -> Certificate:
        """Make a new one, valid for 100 years; who holds the peer key says whom it stands for."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, os.urandom(8).hex())])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=36500))
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def from_pem(cls, data: bytes) -> Certificate:
        """Read what `to_pem` wrote.

        Raises:
            UsageError: when it is not a P-256 key and its certificate.
        """
        try:
            key = serialization.load_pem_private_key(data, None)
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError as error:
            raise UsageError(f"not a DTLS key and certificate: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UsageError("the DTLS key and certificate do not belong together")
        return cls(key, certificate)

    def to_pem(self) -> bytes:
        """Give the private key and the certificate as PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + self._certificate.public_bytes(serialization.Encoding.PEM)

    def for_aiortc(self) -> RTCCertificate:
        """Give the same as aiortc's type."""
        return RTCCertificate(self._key, self._certificate)

    def _make_context(self) -> SSL.Context:
        # One context for all links: 20 KiB less a session than one each.
        context: SSL.Context = self.for_aiortc()._create_ssl_context(srtp_profiles=SRTP_PROFILES)
        return context


class CookieGate:
    """Asks a source to echo a cookie before anything is kept for it (RFC 6347, 4.2.1)."""

    def __init__(self, certificate: Certificate) -> None:
        self._secret = os.urandom(32)
        self._source = b""
        self._context = certificate._make_context()
        self._context.set_options(_OP_COOKIE_EXCHANGE)
        self._context.set_cookie_generate_callback(self._cookie)
        self._context.set_cookie_verify_callback(
            lambda connection, cookie: hmac.compare_digest(cookie, self._cookie(connection))
        )

    def _cookie(self, connection: SSL.Connection) -> bytes:
        return hmac.digest(self._secret, self._source, "sha256")

    def feed(self, source: tuple[str, int], datagram: bytes) -> tuple[SSL.Connection | None, bytes]:
        """Take a ClientHello. Gives the connection to go on with, or None and the datagram to answer."""
        self._source = repr(source).encode()
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except SSL.Error:
            try:
                return None, connection.bio_read(1500)
            except SSL.Error:
                return None, b""
        return connection, b""


class _DatagramPipe:
    """What aiortc's DTLS transport wants of an ICE transport: a role, and datagrams in and out."""

    def __init__(self, send: Callable[[bytes], None], role: str) -> None:
        self.role = role
        self._send_datagram = send
        self._received: deque[bytes] = deque()
        self._wakeup: asyncio.Future[None] | None = None
        self._closed = False

    def datagram_received(self, data: bytes) -> None:
        if data and len(self._received) < QUEUED_DATAGRAMS and not self._closed:
            self._received.append(data)
            self._wake()

    def close(self) -> None:
        self._closed = True
        self._received.clear()
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _recv(self) -> bytes:
        while not self._received:
            if self._closed:
                raise ConnectionError("the link is closed")
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        return self._received.popleft()

    async def _send(self, data: bytes) -> None:
        if not self._closed:
            self._send_datagram(data)


class _Dtls(RTCDtlsTransport):
    """aiortc's DTLS without SRTP, with the certificate checked against a hash, on a shared context."""

    def __init__(
        self, pipe: _DatagramPipe, certificate: Certificate, *, server: bool, lost: Callable[[], None]
    ) -> None:
        super().__init__(cast("Any", pipe), [certificate.for_aiortc()])
        self._set_role("server" if server else "client")
        self._context = certificate.context
        self._lost = lost
        self.remote_digest = b""

    async def handshake(self, connection: SSL.Connection | None, expected: bytes | None) -> None:
        """Shake hands; `expected` is the SHA-256 that the other side's certificate must have.

        Raises:
            IdentityError: when it has another.
            BrokenSessionError: when the handshake failed.
        """
        if connection is None:
            connection = SSL.Connection(self._context)
            if self._role == "server":
                connection.set_accept_state()
            else:
                connection.set_connect_state()
        self._ssl = connection
        self._set_state(State.CONNECTING)
        await self._do_handshake()
        if self._state is not State.CONNECTING:
            raise BrokenSessionError("the DTLS handshake failed")
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise PeerError("the other side showed no DTLS certificate")
        self.remote_digest = certificate.fingerprint(hashes.SHA256())
        if expected is not None and not hmac.compare_digest(self.remote_digest, expected):
            raise IdentityError("the DTLS certificate is not the one that the address names")
        self._set_state(State.CONNECTED)
        self._task = asyncio.ensure_future(self._pump())

    async def _pump(self) -> None:
        try:
            while True:
                await self._recv_next()
        except ConnectionError:
            logger.debug("a DTLS connection has ended")
        finally:
            self._set_state(State.CLOSED)

    def _set_state(self, state: State) -> None:
        super()._set_state(state)
        if state is State.CLOSED:
            self._lost()


class _Sctp(RTCSctpTransport):
    """aiortc's association with honest windows in both directions, and its events as plain calls to the link."""

    def __init__(self, dtls: _Dtls, link: WebRtcLink) -> None:
        super().__init__(dtls, SCTP_PORT)
        self._link = link
        self._peer_window = 1 << 16
        self._window_size = self._advertised_rwnd

    # inbound

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except asyncio.CancelledError:
            raise
        except ConnectionError as error:
            self._link.fail(BrokenSessionError(str(error)))
        except Exception as error:
            # The parser and the state machine beneath raise whatever a bad packet makes them trip over.
            self._link.fail(PeerError(f"a packet broke the association: {type(error).__name__}"))

    async def _receive_chunk(self, chunk: Any) -> None:
        window = getattr(chunk, "advertised_rwnd", None)
        if isinstance(window, int) and not hasattr(chunk, "gaps"):  # INIT, INIT ACK
            self._peer_window = window
        await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: Any) -> None:
        if self._advertised_rwnd <= 0 and not self._fills_gap(chunk.tsn):
            # The window is closed: what comes all the same is a probe (or a peer that does not care). Not
            # acknowledged, so it is sent again.
            self._sack_needed = True
            return
        await super()._receive_data_chunk(chunk)

    def _fills_gap(self, tsn: int) -> bool:
        return any((highest - tsn) & 0xFFFFFFFF < 0x80000000 for highest in self._sack_misordered)

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id == WEBRTC_BINARY:
            self._advertised_rwnd -= len(data)
            self._link.message_received(stream_id, data)
        elif pp_id == WEBRTC_DCEP:
            known = stream_id in self._data_channels
            await super()._receive(stream_id, pp_id, data)
            if not known and (channel := self._data_channels.get(stream_id)) is not None:
                self._link.channel_opened(channel)

    def read(self, count: int) -> None:
        """Open the window by what the application has read, and say so when it had been small."""
        before = self._advertised_rwnd
        self._advertised_rwnd += count
        if (
            before < self._window_size // 2 <= self._advertised_rwnd
            and self._association_state is self.State.ESTABLISHED
        ):
            self._link.spawn(self._send_sack())

    # outbound

    async def _receive_sack_chunk(self, chunk: Any) -> None:
        reopened = not self._peer_window and chunk.advertised_rwnd
        self._peer_window = chunk.advertised_rwnd
        if reopened:
            # What was sent into the closed window was dropped there.
            for sent in self._sent_queue:
                if not sent._acked:
                    self._flight_size_decrease(sent)
                    sent._retransmit = True
        await super()._receive_sack_chunk(chunk)
        self._link.check_drained()

    async def _transmit(self) -> None:
        congestion_window = self._cwnd
        # At least one byte: a single chunk then probes a closed window, repeated by T3.
        self._cwnd = min(congestion_window, max(self._peer_window, 1))
        try:
            await super()._transmit()
        finally:
            self._cwnd = congestion_window

    async def _send(self, stream_id: int, pp_id: int, user_data: bytes, *args: Any, **options: Any) -> None:
        if pp_id == WEBRTC_BINARY and stream_id != NOISE_CHANNEL:
            self._link.left_queue(len(user_data))
        await super()._send(stream_id, pp_id, user_data, *args, **options)

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged, and the rest of the message that is being sent."""
        return int(self._flight_size) + sum(len(chunk.user_data) for chunk in self._outbound_queue)

    async def heartbeat(self) -> None:
        """Send a HEARTBEAT; the peer must answer (RFC 9260, 8.3)."""
        chunk = HeartbeatChunk()
        chunk.params = [(1, b"kodo")]
        await self._send_chunk(chunk)

    # life

    def _set_state(self, state: Any) -> None:
        super()._set_state(state)
        if state is self.State.ESTABLISHED:
            self._link.established.set()
        elif state is self.State.CLOSED:
            self._link.fail(RemotelyClosedError("the other side closed the session"))

    def _data_channel_closed(self, stream_id: int) -> None:
        super()._data_channel_closed(stream_id)
        self._link.channel_closed(stream_id)


@dataclass(eq=False, slots=True)
class _Channel:
    """One data channel as `transport.Channel`."""

    link: WebRtcLink
    id: int
    raw: RTCDataChannel
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
        self.established = asyncio.Event()
        self.on_end: Callable[[], None] = lambda: None
        self._identity = identity
        self._certificate = certificate
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._last_heard = self._loop.time()
        self._pipe = _DatagramPipe(send, "controlled" if server else "controlling")
        self._dtls = _Dtls(
            self._pipe,
            certificate,
            server=server,
            lost=lambda: self.fail(RemotelyClosedError("the other side closed the session")),
        )
        self._sctp = _Sctp(self._dtls, self)
        self._channels: dict[int, _Channel] = {}
        self._handler: LinkHandler | None = None
        self._early: list[tuple[_Channel, list[bytes]]] = []
        self._noise_inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._idle = asyncio.Event()
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
        raw = RTCDataChannel(self._sctp, RTCDataChannelParameters(negotiated=True, id=NOISE_CHANNEL))
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=framing.MAX_MESSAGE_BYTES), SCTP_PORT)
        if not self._dtls_is_server:
            self._sctp._data_channel_id = 2  # channel 0 is closing while the first stream opens
        await self.established.wait()
        self._raise_error()
        await self._noise(raw)
        raw.close()

    @property
    def _dtls_is_server(self) -> bool:
        return not self.dialled

    async def _noise(self, raw: RTCDataChannel) -> None:
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

    def channel_opened(self, raw: RTCDataChannel) -> None:
        """Take a channel that the peer opened."""
        channel = _Channel(self, int(raw.id or 0), raw)
        self._channels[channel.id] = channel
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
        self.established.set()
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
        sctp = self._sctp
        stream_id = int(sctp._data_channel_id or 0)
        while stream_id in sctp._data_channels:
            stream_id += 2
        raw = RTCDataChannel(sctp, RTCDataChannelParameters(id=stream_id))
        # Messages may follow the announcement at once (RFC 8832, 6).
        raw._setReadyState("open")
        channel = _Channel(self, stream_id, raw, handler)
        self._channels[stream_id] = channel
        return channel

    def send(self, raw: RTCDataChannel, message: bytes) -> None:
        """Queue one message of a channel."""
        self._raise_error()
        if self.queued + len(message) > self._limits.queued_out_bytes:
            self.fail(BrokenSessionError("the other side does not take what it is sent"))
            raise BrokenSessionError("the other side does not take what it is sent")
        self._buffered += len(message)
        raw.send(message)
        self.check_drained()

    @property
    def queued(self) -> int:
        """Bytes given to `send` and not yet acknowledged."""
        return self._buffered + self._sctp.in_flight

    def check_drained(self) -> None:
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

    def spawn(self, work: Any) -> None:
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
            for task in self._tasks:
                task.cancel()
            self.on_end()
