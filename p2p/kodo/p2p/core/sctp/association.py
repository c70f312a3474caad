"""One SCTP association with data channels: datagrams and `now` in; datagrams, events and the next deadline out.

Nothing here reads a clock, a socket or a source of randomness; the owner calls

* `receive_datagram` for each datagram of DTLS, then takes the events with `next_event`;
* `datagrams_to_send` after that, after `send` and the like, and after `handle_timer`;
* `handle_timer` at `get_timer`.

`datagrams_to_send` gives at most `BATCH` packets, so that the owner may do something else in between; while more
could go at once, `get_timer` names a time that has passed.

Source: RFC 9260, 8261, 8831, 8832, 8841, 6525, 7053.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.channels import (
    PROTOCOL_BINARY,
    PROTOCOL_BINARY_EMPTY,
    PROTOCOL_DCEP,
    PROTOCOL_TEXT,
    PROTOCOL_TEXT_EMPTY,
    Channel,
    Channels,
    Resets,
    parse_open,
)
from kodo.p2p.core.sctp.congestion import Controller, RateController
from kodo.p2p.core.sctp.events import (
    ChannelClosed,
    ChannelOpened,
    Drained,
    Ended,
    Established,
    Event,
    MessageReceived,
    Settings,
)
from kodo.p2p.core.sctp.handshake import make_cookie, read_cookie
from kodo.p2p.core.sctp.reassembly import Message
from kodo.p2p.core.sctp.receiver import Receiver
from kodo.p2p.core.sctp.sender import BATCH, Sender
from kodo.p2p.core.sctp.states import AssociationEvent, AssociationState, ChannelState, next_association_state
from kodo.p2p.core.sctp.wire import DATA_HEADER, DATA_HEADER_BYTES, HEADER_BYTES, Init, PacketCodec
from kodo.p2p.errors import (
    BrokenSessionError,
    KodoError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
    UsageError,
)

__all__ = ["BATCH", "Association"]

_MAX_CONTROL: Final = 64
"""Answers that wait to be sent; more are dropped, as a network would."""
_MASK: Final = 0xFFFFFFFF
_S, _E = AssociationState, AssociationEvent
_SENDING = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED})
_RECEIVING = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_SENT})
_TEXT = frozenset({PROTOCOL_TEXT, 54})
_BINARY = frozenset({PROTOCOL_BINARY, 52})


class Association:
    """One association.

    Args:
        client: this side is the DTLS client, whose channels have even ids.
        tag: a random number of 32 bits, not zero.
        initial_tsn: another.
        cookie_secret: random bytes[32].
        settings: see `Settings`.
        controller: the congestion control; a `RateController` if None.
    """

    def __init__(
        self,
        *,
        client: bool,
        tag: int,
        initial_tsn: int,
        cookie_secret: bytes,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        controller: Controller | None = None,
    ) -> None:
        self._settings = settings
        self._tag = tag
        self._secret = cookie_secret
        self._state = _S.NEW
        self._events: deque[Event] = deque()
        self._codec_in = PacketCodec(settings.port, tag)
        self._codec_out: PacketCodec | None = None
        self._peer_tag = 0
        self._now = 0.0
        self._initial_tsn = initial_tsn
        self._sender = Sender(settings, initial_tsn, controller or RateController(settings.mtu))
        self._receiver = Receiver(settings)
        self._channels = Channels(
            self._sender.outbound, client=client, streams=settings.streams, most=settings.max_channels
        )
        self._resets = Resets(self._channels, initial_tsn, 0, self._channel_closed, self._receiver.reset)
        self._control: list[bytes] = []
        self._raw: list[bytes] = []
        self._handshake_chunk = b""
        self._handshake_at: float | None = None
        self._handshake_failures = 0
        self._handshake_sent_at = 0.0
        self._shutdown_at: float | None = None
        self._shutdown_failures = 0
        self._reset_at: float | None = None
        self._reset_failures = 0
        self._heartbeat_at: float | None = None
        self._heartbeat_failures = 0
        self._handlers: dict[int, Callable[[bytes], None]] = {
            wire.INIT_ACK: self._take_init_ack,
            wire.COOKIE_ECHO: self._take_cookie_echo,
            wire.COOKIE_ACK: self._take_cookie_ack,
            wire.HEARTBEAT: self._take_heartbeat,
            wire.HEARTBEAT_ACK: self._take_heartbeat_ack,
            wire.ABORT: self._take_abort,
            wire.ERROR: self._take_error,
            wire.SHUTDOWN: self._take_shutdown,
            wire.SHUTDOWN_ACK: self._take_shutdown_ack,
            wire.SHUTDOWN_COMPLETE: self._take_shutdown_complete,
            wire.RE_CONFIG: self._take_re_config,
        }

    # what the owner asks

    @property
    def queued(self) -> int:
        """Bytes of all channels that are queued or not acknowledged."""
        return self._sender.queued

    @property
    def established(self) -> bool:
        """Whether the handshake is over and the association has not begun to end."""
        return self._state is _S.ESTABLISHED

    @property
    def state(self) -> AssociationState:
        """Where the association stands."""
        return self._state

    def next_event(self) -> Event | None:
        """Give the oldest event that was not given yet."""
        return self._events.popleft() if self._events else None

    # what the owner does

    def connect(self, now: float) -> None:
        """Begin the handshake. Both sides do."""
        if self._move(_E.CONNECT):
            chunk = wire.encode_init(wire.INIT, self._init())
            self._begin_handshake_step(PacketCodec(self._settings.port, 0).encode(chunk), now)

    def open_channel(
        self, *, label: str = "", protocol: str = "", channel_id: int | None = None, negotiated: bool = False
    ) -> int:
        """Open a channel; messages may be sent on it at once. A negotiated one is not announced to the peer.

        Raises:
            BrokenSessionError: the association is over.
            UsageError: the id is in use, or a negotiated channel names none.
            CapacityError: there are too many channels.
        """
        self._raise_ended()
        return self._channels.create(label, protocol, channel_id, negotiated=negotiated).id

    def send(self, channel_id: int, data: bytes, *, text: bool = False) -> None:
        """Queue a message.

        Raises:
            BrokenSessionError: the channel is closed or unknown.
            UsageError: the message is longer than `Settings.max_message`.
        """
        channel = self._channels.get_open(channel_id)
        if len(data) > self._settings.max_message:
            raise UsageError(f"a message of {len(data)} bytes is longer than {self._settings.max_message}")
        if data:
            self._sender.outbound.put(channel.stream, PROTOCOL_TEXT if text else PROTOCOL_BINARY, data)
        else:
            # SCTP cannot carry nothing: one byte stands for it (RFC 8831, 6.6).
            self._sender.outbound.put(channel.stream, PROTOCOL_TEXT_EMPTY if text else PROTOCOL_BINARY_EMPTY, b"\0")

    def consumed(self, count: int) -> None:
        """Note that the application has read `count` bytes of what it was given; opens the window."""
        self._receiver.consumed(count)

    def close_channel(self, channel_id: int) -> None:
        """Close a channel once what is queued on it was sent; what still arrives on it is thrown away."""
        channel = self._channels.by_id.get(channel_id)
        if channel is not None:
            self._channels.close(channel)

    def heartbeat(self, now: float) -> None:
        """Ask for a sign of life; without an answer it is repeated, and in the end the association is over."""
        if self._state in _SENDING and self._heartbeat_at is None:
            self._heartbeat_failures = 0
            self._send_heartbeat(now)

    def abort(self, reason: str = "") -> None:
        """End at once: the next `datagrams_to_send` gives an ABORT, no event follows."""
        self._events.clear()
        self._end(None, wire.CAUSE_USER_ABORT, reason)

    def shutdown(self, now: float) -> None:
        """End in order: what is queued is still sent; `Ended` with a LocallyClosedError tells that it is over."""
        if not self._move(_E.SHUT_DOWN) and self._state in (_S.NEW, _S.COOKIE_WAIT, _S.COOKIE_ECHOED):
            self._end(LocallyClosedError("this side closed the session"), wire.CAUSE_USER_ABORT)
        self._check_shutdown(now)

    # life

    def _init(self, cookie: bytes = b"", unrecognized: bytes = b"") -> Init:
        streams = self._settings.streams
        return Init(self._tag, self._settings.window, streams, streams, self._initial_tsn, True, cookie, unrecognized)

    def _move(self, event: AssociationEvent) -> bool:
        state = next_association_state(self._state, event)
        if state is None:
            return False
        self._state = state
        return True

    def _raise_ended(self) -> None:
        if self._state is _S.CLOSED:
            raise BrokenSessionError("the session has ended")

    def _end(self, error: KodoError | None, cause: int = 0, reason: str = "") -> None:
        """Close; with `cause`, tell the peer by an ABORT; with `error`, tell the owner."""
        if self._state is _S.CLOSED:
            return
        self._move(_E.END)
        self._control.clear()
        self._sender.stop()
        self._receiver.quiet()
        if cause:
            body = wire.encode_parameter(cause, reason.encode()[:256])
            self._control.append(wire.encode_chunk(wire.ABORT, body))
        self._handshake_at = self._shutdown_at = self._reset_at = self._heartbeat_at = None
        self._channels.by_id.clear()
        self._channels.closing.clear()
        if error is not None:
            self._events.append(Ended(error))

    def _break(self, why: str) -> None:
        self._end(PeerError(f"the other side broke the rules of SCTP: {why}"), wire.CAUSE_PROTOCOL_VIOLATION, why)

    # timers

    def get_timer(self) -> float | None:
        """When `handle_timer` (and then `datagrams_to_send`) is to be called; None for never."""
        if self._sender.more:
            return self._now
        recovery = self._sender.recovery
        times = [
            time
            for time in (
                recovery.timeout_at,
                recovery.probe_at,
                self._receiver.sack_at,
                self._sender.pace_at,
                self._handshake_at,
                self._reset_at,
                self._heartbeat_at,
                self._shutdown_at,
            )
            if time is not None
        ]
        return min(times) if times else None

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        self._now = now
        recovery, settings = self._sender.recovery, self._settings
        failed = False
        sender, receiver = self._sender, self._receiver
        if receiver.sack_at is not None and now >= receiver.sack_at:
            receiver.sack_at = None
            receiver.sack_now = True
        if sender.pace_at is not None and now >= sender.pace_at:
            sender.pace_at = None
        if recovery.timeout_at is not None and now >= recovery.timeout_at:
            if not recovery.outstanding:
                recovery.timeout_at = None
            elif recovery.failures >= settings.max_retransmits:
                failed = True
            else:
                recovery.timed_out(now, probing=not sender.peer_window)
        elif recovery.probe_at is not None and now >= recovery.probe_at:
            recovery.probe()
        if self._handshake_at is not None and now >= self._handshake_at:
            self._handshake_failures += 1
            failed = failed or self._handshake_failures > settings.max_retransmits
            self._handshake_at = now + self._backed_off(self._handshake_failures)
            self._send_handshake_step()
        if self._reset_at is not None and now >= self._reset_at:
            self._reset_failures += 1
            failed = failed or self._reset_failures > settings.max_retransmits
            self._send_reset(now)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_failures += 1
            failed = failed or self._heartbeat_failures > settings.max_retransmits
            self._send_heartbeat(now)
        if self._shutdown_at is not None and now >= self._shutdown_at:
            self._shutdown_failures += 1
            failed = failed or self._shutdown_failures > settings.max_retransmits
            self._send_shutdown(now)
        if failed:
            self._end(BrokenSessionError("the other side does not answer any more"), wire.CAUSE_USER_ABORT)

    def _backed_off(self, failures: int) -> float:
        return float(min(self._sender.recovery.rto * 2.0 ** min(failures, 16), self._settings.rto_max))

    # handshake

    def _begin_handshake_step(self, packet: bytes, now: float) -> None:
        self._handshake_chunk = packet
        self._handshake_failures = 0
        self._handshake_sent_at = now
        self._handshake_at = now + self._sender.recovery.rto
        self._send_handshake_step()

    def _send_handshake_step(self) -> None:
        if len(self._raw) < _MAX_CONTROL:
            self._raw.append(self._handshake_chunk)

    def _take_init(self, body: bytes) -> None:
        """Answer an INIT; nothing is kept until its cookie comes back."""
        init = wire.parse_init(body)
        if self._peer_tag and init.tag != self._peer_tag:
            self._end(PeerError("the other side has started its association again"))
            return
        cookie = make_cookie(init, self._now, self._secret)
        chunk = wire.encode_init(wire.INIT_ACK, self._init(cookie, init.unrecognized))
        if len(self._raw) < _MAX_CONTROL:
            self._raw.append(PacketCodec(self._settings.port, init.tag).encode(chunk))

    def _take_init_ack(self, body: bytes) -> None:
        if self._state is not _S.COOKIE_WAIT:
            return
        init = wire.parse_init(body)
        if not init.cookie:
            self._break("its INIT ACK has no cookie")
            return
        self._move(_E.INIT_ACK)
        if not self._handshake_failures:
            self._sender.recovery.measured(max(self._now - self._handshake_sent_at, 1e-6))
        codec = self._learn(init)
        self._begin_handshake_step(codec.encode(wire.encode_chunk(wire.COOKIE_ECHO, init.cookie)), self._now)

    def _take_cookie_echo(self, body: bytes) -> None:
        try:
            init = read_cookie(body, self._now, self._secret)
        except ValueError:
            return
        if self._peer_tag and init.tag != self._peer_tag:
            self._end(PeerError("the other side has started its association again"))
            return
        if self._move(_E.COOKIE_ECHO):
            if not self._peer_tag:
                self._learn(init)
            self._establish()
        elif self._state in (_S.NEW, _S.CLOSED):
            return
        self._answer(wire.encode_chunk(wire.COOKIE_ACK))

    def _take_cookie_ack(self, body: bytes) -> None:
        if self._move(_E.COOKIE_ACK):
            self._establish()

    def _learn(self, init: Init) -> PacketCodec:
        self._peer_tag = init.tag
        self._codec_out = codec = PacketCodec(self._settings.port, init.tag)
        self._sender.peer_window = init.window
        self._receiver.start(init.tsn)
        self._channels.streams = min(self._settings.streams, init.inbound)
        self._resets.peer_sequence = init.tsn
        self._resets.supported = init.resets
        return codec

    def _establish(self) -> None:
        self._handshake_at = None
        self._handshake_chunk = b""
        self._events.append(Established())

    # receiving

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take one datagram. Bad ones are dropped, or end the association with an `Ended` event."""
        self._now = now
        if self._state is _S.CLOSED or len(data) < HEADER_BYTES + 4:
            return
        if not self._codec_in.matches(data):
            self._receive_other(data)
            return
        try:
            self._receive_chunks(data)
        except ValueError as error:
            self._break(str(error))

    def _receive_other(self, data: bytes) -> None:
        """Take a packet that has not our tag: an INIT, or an end that is marked with the peer's own tag."""
        kind, flags, length = wire.CHUNK_HEADER.unpack_from(data, HEADER_BYTES)
        end = HEADER_BYTES + length
        if kind == wire.INIT:
            if PacketCodec(self._settings.port, 0).matches(data) and length >= 4 and end <= len(data):
                try:
                    self._take_init(data[HEADER_BYTES + 4 : end])
                except ValueError:
                    return
        elif (
            kind in (wire.ABORT, wire.SHUTDOWN_COMPLETE)
            and flags & 1
            and self._codec_out is not None
            and self._codec_out.matches(data)
            and length >= 4
            and end <= len(data)
        ):
            self._handlers[kind](data[HEADER_BYTES + 4 : end])

    def _receive_chunks(self, data: bytes) -> None:
        position, size = HEADER_BYTES, len(data)
        messages: list[Message] = []
        got_data = False
        while position + 4 <= size:
            kind = data[position]
            if kind == 0 and position + DATA_HEADER_BYTES < size:
                _, flags, length, tsn, stream, sequence, protocol = DATA_HEADER.unpack_from(data, position)
                end = position + length
                if length <= DATA_HEADER_BYTES or end > size:
                    raise ValueError("a DATA chunk does not fit into its packet")
                if self._state in _RECEIVING:
                    got_data = True
                    self._receiver.take(
                        flags, tsn, stream, sequence, protocol, data[position + DATA_HEADER_BYTES : end], messages
                    )
            else:
                _, flags, length = wire.CHUNK_HEADER.unpack_from(data, position)
                end = position + length
                if length < 4 or end > size:
                    raise ValueError("a chunk does not fit into its packet")
                if kind == wire.DATA:
                    raise ValueError("a DATA chunk is empty")
                if kind == wire.SACK:
                    self._take_sack(data, position, end)
                elif (handler := self._handlers.get(kind)) is not None:
                    handler(data[position + 4 : end])
                else:
                    if kind & 0x40 and len(self._control) < _MAX_CONTROL:
                        cause = wire.encode_parameter(6, data[position : min(end, position + 128)])
                        self._answer(wire.encode_chunk(wire.ERROR, cause))
                    if not kind & 0x80:
                        break
                if self._state is _S.CLOSED:
                    return
            position = end + (-end & 3)
        if got_data:
            self._receiver.packet_ended(self._now)
            if messages:
                self._deliver(messages)
            if self._resets.waiting:
                self._perform_reset()

    def _deliver(self, messages: list[Message]) -> None:
        events, channels = self._events, self._channels.by_id
        for stream, protocol, data in messages:
            if protocol == PROTOCOL_DCEP:
                self._take_control(stream, data)
                continue
            channel = channels.get(stream)
            if channel is None or (
                channel.state is not ChannelState.OPEN and channel.state is not ChannelState.FLUSHING
            ):
                continue
            if protocol in _BINARY or protocol in _TEXT:
                self._receiver.delivered(len(data))
                events.append(MessageReceived(stream, data, protocol in _TEXT))
            elif protocol in (PROTOCOL_BINARY_EMPTY, PROTOCOL_TEXT_EMPTY):
                events.append(MessageReceived(stream, b"", protocol == PROTOCOL_TEXT_EMPTY))

    def _take_control(self, stream: int, data: bytes) -> None:
        """Take a message of DCEP."""
        if data[0] != 3:
            return
        try:
            label, protocol = parse_open(data)
        except ValueError:
            raise ValueError("a channel's OPEN is malformed") from None
        channel = self._channels.by_id.get(stream)
        if channel is not None:
            if not self._resets.implied(channel):
                return
            self._channels.forget(channel)
            self._channel_closed(channel)
        if self._channels.accept(stream) is not None:
            self._events.append(ChannelOpened(stream, label, protocol))

    def _take_sack(self, packet: bytes, start: int, end: int) -> None:
        if self._state in _SENDING and self._sender.take_sack(packet, start, end, self._now):
            self._events.append(Drained(self._sender.queued))
            if self._state is not _S.ESTABLISHED:
                self._check_shutdown(self._now)

    # control chunks

    def _answer(self, chunk: bytes) -> None:
        if len(self._control) < _MAX_CONTROL:
            self._control.append(chunk)

    def _send_heartbeat(self, now: float) -> None:
        # The RTT is taken from an answer to the first only, so the parameter may name its time.
        body = wire.encode_parameter(1, round(now * 1e6).to_bytes(8, "big"))
        self._answer(wire.encode_chunk(wire.HEARTBEAT, body))
        self._heartbeat_at = now + self._backed_off(self._heartbeat_failures)

    def _take_heartbeat(self, body: bytes) -> None:
        self._answer(wire.encode_chunk(wire.HEARTBEAT_ACK, body))

    def _take_heartbeat_ack(self, body: bytes) -> None:
        self._heartbeat_at = None
        self._heartbeat_failures = 0

    def _take_abort(self, body: bytes) -> None:
        _, reason = wire.parse_causes(body)
        self._end(RemotelyClosedError("the other side ended the session" + (f": {reason}" if reason else "")))

    def _take_error(self, body: bytes) -> None:
        if self._state in (_S.COOKIE_WAIT, _S.COOKIE_ECHOED):
            code, _ = wire.parse_causes(body)
            self._end(PeerError(f"the other side refused the association (cause {code})"))

    def _check_shutdown(self, now: float) -> None:
        if self.queued or self._state not in (_S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED):
            return
        asked_by_peer = self._state is _S.SHUTDOWN_RECEIVED
        self._move(_E.ALL_ACKNOWLEDGED)
        self._shutdown_failures = 0
        self._send_shutdown(now)
        if asked_by_peer:
            self._events.append(Ended(RemotelyClosedError("the other side closed the session")))

    def _send_shutdown(self, now: float) -> None:
        if self._state is _S.SHUTDOWN_SENT:
            self._answer(wire.encode_chunk(wire.SHUTDOWN, (self._receiver.last_tsn & _MASK).to_bytes(4, "big")))
        else:
            self._answer(wire.encode_chunk(wire.SHUTDOWN_ACK))
        self._shutdown_at = now + self._backed_off(self._shutdown_failures)

    def _take_shutdown(self, body: bytes) -> None:
        crossed = self._state is _S.SHUTDOWN_SENT
        if not self._move(_E.SHUTDOWN):
            return
        if crossed:
            self._send_shutdown(self._now)
            self._events.append(Ended(RemotelyClosedError("the other side closed the session")))
        self._check_shutdown(self._now)

    def _take_shutdown_ack(self, body: bytes) -> None:
        ended = self._state is _S.SHUTDOWN_ACK_SENT  # then the owner knows already
        if self._move(_E.SHUTDOWN_ACK):
            self._state = _S.SHUTDOWN_SENT
            self._end(None if ended else LocallyClosedError("this side closed the session"))
            self._control.append(wire.encode_chunk(wire.SHUTDOWN_COMPLETE))

    def _take_shutdown_complete(self, body: bytes) -> None:
        if self._state is _S.SHUTDOWN_ACK_SENT:
            self._end(None)

    def _take_re_config(self, body: bytes) -> None:
        if self._state not in _RECEIVING:
            return
        for kind, content in wire.parse_parameters(body):
            answer = self._resets.take_parameter(kind, content, self._receiver.last_tsn, self._receiver.unwrap)
            if answer:
                self._answer(wire.encode_chunk(wire.RE_CONFIG, answer))
        if self._resets.request is None:
            self._reset_at = None
            self._reset_failures = 0
        elif self._reset_at is not None:
            self._reset_failures = 0  # it answers, if only "not yet"

    def _perform_reset(self) -> None:
        answer = self._resets.perform(self._receiver.last_tsn, self._receiver.unwrap)
        if answer:
            self._answer(wire.encode_chunk(wire.RE_CONFIG, answer))

    def _send_reset(self, now: float) -> None:
        request = self._resets.request
        if request is None:
            self._reset_at = None
            return
        self._answer(wire.encode_chunk(wire.RE_CONFIG, wire.encode_reset_request(request)))
        self._reset_at = now + self._backed_off(self._reset_failures)

    def _channel_closed(self, channel: Channel) -> None:
        self._events.append(ChannelClosed(channel.id))

    # sending

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Give the datagrams that may go now, at most about `BATCH`; while there are more, `get_timer` has passed."""
        self._now = now
        packets, self._raw = self._raw, []
        codec = self._codec_out
        if codec is None:
            return packets
        state = self._state
        if state in _SENDING and self._channels.closing and self._reset_at is None:
            self._reset_failures = 0
            if self._resets.next_request(self._sender.recovery.next_tsn) is not None:
                self._send_reset(now)
        head = self._take_head(codec, packets)
        if state in _SENDING and self._sender.ready:
            head = self._sender.send(now, codec, packets, head)
        if head:
            packets.append(codec.encode(head))
        return packets

    def _take_head(self, codec: PacketCodec, packets: list[bytes]) -> bytes:
        """Give what is not data and goes first, one packet of it; full ones before go to `packets`."""
        room = self._settings.mtu - HEADER_BYTES
        head = b""
        if self._receiver.wants_sack:
            if self._state in _RECEIVING:
                head = self._receiver.take_sack(room)
            else:
                self._receiver.quiet()
        if self._control:
            control, self._control = self._control, []
            for chunk in control:
                if head and len(head) + len(chunk) > room:
                    packets.append(codec.encode(head))
                    head = b""
                head += chunk
        return head
