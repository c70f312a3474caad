"""DTLS and SCTP of a WebRTC Direct link, and the only module that imports aiortc.

aiortc gives the DTLS handshake, the SCTP association and the data channels; what it leaves open is closed here in
subclasses: the certificate's hash is checked against the address, the receive window follows what the application
has read, the peer's window is respected, a bad packet ends the link and nothing else, and what a peer can make us
keep or compute by small pieces, gaps and channels without number is bounded. `tests/contract` fails when a new
release changes one of the internals that are touched.

Source: RFC 8831, 8832, 9260.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcsctptransport import (
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    ForwardTsnChunk,
    HeartbeatChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from kodo.p2p.core.framing import MAX_MESSAGE_BYTES
from kodo.p2p.errors import BrokenSessionError, IdentityError, PeerError, RemotelyClosedError
from kodo.p2p.net.certificate import Certificate

__all__ = ["NOISE_CHANNEL", "Association", "AssociationHandler", "DatagramPipe", "Dtls", "RawChannel"]

logger = logging.getLogger(__name__)

SCTP_PORT = 5000
NOISE_CHANNEL = 0
QUEUED_DATAGRAMS = 512
"""Datagrams that wait for one link; more are dropped, as a network would."""
MISORDERED_CHUNKS = 1024
"""How far beyond the first missing chunk others are kept (the window holds 900 of full size). The window counts
bytes alone, and a chunk of one byte costs hundreds."""
MESSAGE_CHUNKS = 64
"""Pieces of one message; 16 KiB are 33 at the smallest MTU that the Internet has to carry."""
MESSAGE_BYTES = 64 << 10
INBOUND_STREAMS = 2048
"""SCTP streams on which something has come and that are not reset."""
DCEP_BYTES = 1024
"""A channel's announcement: 12 bytes, and a label and protocol that libp2p leaves empty."""


class RawChannel(Protocol):
    """A data channel of the association."""

    @property
    def id(self) -> int | None:
        """Its SCTP stream."""
        ...

    @property
    def readyState(self) -> str:
        """`connecting`, `open`, `closing` or `closed`."""
        ...

    def send(self, data: bytes) -> None:
        """Queue a message."""
        ...

    def close(self) -> None:
        """Reset the stream once what is queued has been sent."""
        ...


class AssociationHandler(Protocol):
    """Who takes what the association says; the link."""

    def message_received(self, stream_id: int, data: bytes) -> None:
        """Take one binary message."""
        ...

    def channel_opened(self, raw: RawChannel) -> None:
        """Take a channel that the peer opened."""
        ...

    def channel_closed(self, stream_id: int) -> None:
        """Take the end of a channel."""
        ...

    def association_established(self) -> None:
        """Take the end of the handshake."""
        ...

    def acknowledged(self) -> None:
        """Note that the peer has acknowledged something."""
        ...

    def left_queue(self, count: int) -> None:
        """Note that the association has taken `count` bytes of the queue."""
        ...

    def fail(self, error: Exception) -> None:
        """End the link because of `error`."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of the association as a task that the link owns."""
        ...


class DatagramPipe:
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


class Dtls(RTCDtlsTransport):
    """aiortc's DTLS without SRTP, with the certificate checked against a hash, on a shared context."""

    def __init__(
        self, pipe: DatagramPipe, certificate: Certificate, *, server: bool, lost: Callable[[], None]
    ) -> None:
        # aiortc keeps the certificate for `start`, which `handshake` replaces.
        super().__init__(cast("Any", pipe), cast("Any", [certificate]))
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


class Association(RTCSctpTransport):
    """aiortc's association with honest windows in both directions, and its events as plain calls to the link."""

    def __init__(self, dtls: Dtls, link: AssociationHandler) -> None:
        super().__init__(dtls, SCTP_PORT)
        self._link = link
        self._peer_window = 1 << 16
        self._window_size = self._advertised_rwnd
        self._chunks_kept = 0
        # Nobody may give up what was sent: libp2p's channels are reliable.
        self._local_partial_reliability = False

    async def begin(self) -> RawChannel:
        """Begin the handshake; gives the channel on which Noise will run."""
        raw = RTCDataChannel(self, RTCDataChannelParameters(negotiated=True, id=NOISE_CHANNEL))
        await self.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), SCTP_PORT)
        if not self.is_server:
            self._data_channel_id = 2  # channel 0 is closing while the first stream opens
        return raw

    def open_channel(self) -> RawChannel:
        """Open a channel; its announcement goes with the first message (RFC 8832, 6)."""
        stream_id = int(self._data_channel_id or 0)
        while stream_id in self._data_channels:
            stream_id += 2
        raw = RTCDataChannel(self, RTCDataChannelParameters(id=stream_id))
        raw._setReadyState("open")
        return raw

    # inbound

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except asyncio.CancelledError:
            raise
        except PeerError as error:
            self._link.fail(error)
        except ConnectionError as error:
            self._link.fail(BrokenSessionError(str(error)))
        except Exception as error:
            # The parser and the state machine beneath raise whatever a bad packet makes them trip over.
            self._link.fail(PeerError(f"a packet broke the association: {type(error).__name__}"))

    async def _receive_chunk(self, chunk: Any) -> None:
        if isinstance(chunk, ForwardTsnChunk):
            raise PeerError("the other side skips data of a reliable stream")
        window = getattr(chunk, "advertised_rwnd", None)
        if isinstance(window, int) and not hasattr(chunk, "gaps"):  # INIT, INIT ACK
            self._peer_window = window
        await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: Any) -> None:
        if not chunk.user_data or chunk.flags & SCTP_DATA_UNORDERED:
            raise PeerError("the other side sent an empty or unordered chunk")
        if self._last_received_tsn is None:
            raise PeerError("the other side sent data before the association was set up")
        ahead = (chunk.tsn - self._last_received_tsn) & 0xFFFFFFFF
        if MISORDERED_CHUNKS < ahead < 0x80000000 or (self._advertised_rwnd <= 0 and not self._fills_gap(chunk.tsn)):
            # The window is closed: what comes all the same is a probe (or a peer that does not care). Not
            # acknowledged, so it is sent again.
            self._sack_needed = True
            return
        stream = self._get_inbound_stream(chunk.stream_id)
        kept = len(stream.reassembly)
        await super()._receive_data_chunk(chunk)
        self._chunks_kept += len(stream.reassembly) - kept
        # Before the first missing chunk all messages are complete but one: chunks of one message come in a row.
        if self._chunks_kept > len(self._sack_misordered) + MESSAGE_CHUNKS:
            raise PeerError("the other side sent too many pieces of messages that do not end")
        if len(self._inbound_streams) > INBOUND_STREAMS:
            raise PeerError(f"the other side uses more than {INBOUND_STREAMS} streams at once")

    def _mark_received(self, tsn: int) -> bool:
        # As above it, but without sorting all that is misordered for every chunk.
        first_missing = ((self._last_received_tsn or 0) + 1) & 0xFFFFFFFF
        if (tsn - first_missing) & 0x80000000 or tsn in self._sack_misordered:
            self._sack_duplicates.append(tsn)
            return True
        self._sack_misordered.add(tsn)
        while first_missing in self._sack_misordered:
            self._sack_misordered.remove(first_missing)
            self._last_received_tsn = first_missing
            first_missing = (first_missing + 1) & 0xFFFFFFFF
        return False

    def _fills_gap(self, tsn: int) -> bool:
        return any((highest - tsn) & 0xFFFFFFFF < 0x80000000 for highest in self._sack_misordered)

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if len(data) > (DCEP_BYTES if pp_id == WEBRTC_DCEP else MESSAGE_BYTES):
            raise PeerError(f"the other side sent a message of {len(data)} bytes")
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

    async def _send_chunk(self, chunk: Any) -> None:
        try:
            await super()._send_chunk(chunk)
        except (ConnectionError, SSL.Error) as error:
            # Timers and queued work of the association call this from tasks that nobody awaits.
            self._link.fail(BrokenSessionError(f"nothing can be sent any more: {error}"))

    async def _receive_sack_chunk(self, chunk: Any) -> None:
        chunk.gaps = self._gaps_of_what_was_sent(chunk)
        reopened = not self._peer_window and chunk.advertised_rwnd
        self._peer_window = chunk.advertised_rwnd
        if reopened:
            # What was sent into the closed window was dropped there.
            for sent in self._sent_queue:
                if not sent._acked:
                    self._flight_size_decrease(sent)
                    sent._retransmit = True
        await super()._receive_sack_chunk(chunk)
        self._link.acknowledged()

    def _gaps_of_what_was_sent(self, chunk: Any) -> list[tuple[int, int]]:
        """Give the gap blocks, ascending and apart as they have to be, without what was never sent.

        Each may cover 65,536 chunks, which are counted one by one above: 1 kB of them took a second.
        """
        outstanding = (self._local_tsn - 1 - chunk.cumulative_tsn) & 0xFFFFFFFF
        found: list[tuple[int, int]] = []
        seen = 0
        for first, last in chunk.gaps if outstanding < 0x80000000 else ():
            block = (max(first, seen + 1), min(last, outstanding))
            if block[0] <= block[1]:
                found.append(block)
                seen = block[1]
        return found

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
            self._link.association_established()
        elif state is self.State.CLOSED:
            self._link.fail(RemotelyClosedError("the other side closed the session"))

    def _data_channel_closed(self, stream_id: int) -> None:
        super()._data_channel_closed(stream_id)
        self._link.channel_closed(stream_id)
