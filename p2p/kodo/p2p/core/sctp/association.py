"""One SCTP association with data channels: datagrams and `now` in; datagrams, events and the next deadline out.

Nothing here reads a clock, a socket or a source of randomness; the owner calls

* `receive_datagram` for each datagram of DTLS, or `receive_datagrams` for those that came together, then takes the
  events with `next_event`;
* `datagrams_to_send` after that, after `send` and the like, and after `handle_timer`;
* `handle_timer` at `get_timer`;
* `take_probe`, when it can send a datagram that is not fragmented, to find out how long packets may be.

`datagrams_to_send` gives at most `BATCH` packets, so that the owner may do something else in between; while more
could go at once, `get_timer` names a time that has passed.

Source: RFC 9260, 8261, 8831, 8832, 8841, 6525, 7053.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import pack
from typing import Final

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.channels import (
    PROTOCOL_BINARY,
    PROTOCOL_BINARY_EMPTY,
    PROTOCOL_DCEP,
    PROTOCOL_TEXT,
    PROTOCOL_TEXT_EMPTY,
    parse_open,
)
from kodo.p2p.core.sctp.congestion import Controller, RateController
from kodo.p2p.core.sctp.lifecycle import MAX_CONTROL, RECEIVING, SENDING, Lifecycle
from kodo.p2p.core.sctp.reassembly import Message
from kodo.p2p.core.sctp.sender import BATCH
from kodo.p2p.core.sctp.settings import (
    ChannelOpened,
    Drained,
    MessageReceived,
    Settings,
)
from kodo.p2p.core.sctp.states import AssociationState, ChannelState
from kodo.p2p.core.sctp.wire import DATA_HEADER, DATA_HEADER_BYTES, HEADER_BYTES, PacketCodec
from kodo.p2p.errors import (
    BrokenSessionError,
    UsageError,
)

__all__ = ["BATCH", "Association"]

_S = AssociationState
_WORTH_SEARCHING: Final = 32 << 10
"""Bytes queued from which on longer packets are worth looking for."""
_TEXT = frozenset({PROTOCOL_TEXT, 54})
_BINARY = frozenset({PROTOCOL_BINARY, 52})


class Association(Lifecycle):
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
        settings: Settings | None = None,
        controller: Controller | None = None,
    ) -> None:
        settings = settings or Settings()
        super().__init__(
            client=client,
            tag=tag,
            initial_tsn=initial_tsn,
            cookie_secret=cookie_secret,
            settings=settings,
            controller=controller or RateController(settings.mtu),
        )
        self._reset_failures = 0

    def admit(self) -> None:
        """Note that the owner knows who the peer is: it may open as many channels as anybody."""
        self._channels.early = None

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

    def drop_queued(self, channel_id: int) -> None:
        """Forget what is queued on a channel and has not gone; a message that is half out is still ended."""
        channel = self._channels.by_id.get(channel_id)
        if channel is not None:
            self._sender.outbound.drop(channel.stream)

    def close_channel(self, channel_id: int) -> None:
        """Close a channel once what is queued on it was sent; what still arrives on it is thrown away."""
        channel = self._channels.by_id.get(channel_id)
        if channel is not None:
            self._channels.close(channel)

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
                self._sender.path.due_at,
                self._handshake_at,
                self._reset_at,
                self._heartbeat_at,
                self._challenge_at,
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
                if sender.peer_window:
                    self._probe_shortly(now)
        elif recovery.probe_at is not None and now >= recovery.probe_at:
            if sender.peer_window:
                recovery.probe()
                self._probe_shortly(now)
            else:
                recovery.probe_at = None  # what probes a closed window is repeated by T3, ever more slowly
        if sender.path.due_at is not None and now >= sender.path.due_at:
            sender.path.timed_out()
        if self._reset_at is not None and now >= self._reset_at:
            self._reset_failures += 1
            failed = failed or self._reset_failures > settings.max_retransmits
            self._send_reset(now)
        if self._take_control_timers(now) or failed:
            self._end(BrokenSessionError("the other side does not answer any more"), wire.CAUSE_USER_ABORT)

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

    def receive_datagrams(self, batch: Iterable[bytes], now: float) -> None:
        """Take datagrams that came together, in their order, each as `receive_datagram` does.

        Of SACKs that follow each other only the last is looked at, for it says all that the others do. A browser
        sends one for every two packets, and for each one behind a gap.
        """
        latest = b""
        for data in batch:
            if wire.is_lone_sack(data):
                if not latest or wire.follows(latest, data):
                    latest = data
                continue
            if latest:
                self.receive_datagram(latest, now)
                latest = b""
            self.receive_datagram(data, now)
        if latest:
            self.receive_datagram(latest, now)

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
            _HANDLERS[kind](self, data[HEADER_BYTES + 4 : end])

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
                if self._state in RECEIVING:
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
                elif (handler := _HANDLERS.get(kind)) is not None:
                    handler(self, data[position + 4 : end])
                else:
                    if kind & 0x40 and len(self._control) < MAX_CONTROL:
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
            if self._acknowledges_apart and self._receiver.sack_now and len(self._raw) < BATCH:
                self._acknowledge()

    def _acknowledge(self) -> None:
        """Send a SACK in a packet of its own, before more of what came is taken."""
        if self._codec_out is not None and self._state in RECEIVING:
            self._raw.append(self._codec_out.encode(self._receiver.take_sack(self._settings.mtu - HEADER_BYTES)))

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
        if self._state in SENDING and self._sender.take_sack(packet, start, end, self._now):
            self._events.append(Drained(self._sender.queued))
            if self._state is not _S.ESTABLISHED:
                self._check_shutdown(self._now)

    def _take_re_config(self, body: bytes) -> None:
        if self._state not in RECEIVING:
            return
        for kind, content in wire.parse_parameters(body, wire.MAX_RE_CONFIG_PARAMETERS):
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
        request = self._resets.request_to_send()
        if request is None:
            self._reset_at = None
            return
        self._answer(wire.encode_chunk(wire.RE_CONFIG, wire.encode_reset_request(request)))
        self._reset_at = now + self._backed_off(self._reset_failures)

    def datagrams_to_send(self, now: float, most: int | None = None) -> list[bytes]:
        """Return the datagrams to send now, about `BATCH` at most; while there are more, `get_timer` has passed.

        Args:
            most: bytes of the datagrams beyond which no data goes, DTLS counted; None for no such bound.
        """
        self._now = now
        packets, self._raw = self._raw, []
        codec = self._codec_out
        if codec is None:
            return packets
        state = self._state
        if state in SENDING and self._channels.closing and self._reset_at is None:
            self._reset_failures = 0
            recovery = self._sender.recovery
            if self._resets.next_request(recovery.next_tsn, recovery.acknowledged) is not None:
                self._send_reset(now)
        head = self._take_head(codec, packets)
        if state in SENDING and self._sender.ready:
            head = self._sender.send(now, codec, packets, head, most)
        if head:
            packets.append(codec.encode(head))
        return packets

    @property
    def mtu(self) -> int:
        """Bytes of the longest packet that the path is known to carry; a longer one may be fragmented on its way."""
        return self._sender.path.size

    def take_probe(self, now: float) -> bytes | None:
        """Return a packet that is to be sent unfragmented or not at all; None if nothing is to be found out now.

        An owner who cannot forbid fragmenting does not call this, and packets stay as short as `Settings.mtu`.
        """
        codec, sender = self._codec_out, self._sender
        if codec is None or self._state not in SENDING or sender.outbound.queued < _WORTH_SEARCHING:
            return None
        size = sender.path.next_probe(now)
        if not size:
            return None
        self._path_probe = body = wire.encode_parameter(1, pack(">II", size, self._tag))
        beat = wire.encode_chunk(wire.HEARTBEAT, body)
        return codec.encode(beat + wire.encode_chunk(wire.PAD, bytes(size - HEADER_BYTES - len(beat) - 4)))

    def probe_refused(self) -> None:
        """Note that this machine's own interface does not take a packet as long as the last probe."""
        self._sender.path.refused()

    def _take_head(self, codec: PacketCodec, packets: list[bytes]) -> bytes:
        """Return what is not data and goes first, one packet of it; full ones before go to `packets`."""
        room = self._settings.mtu - HEADER_BYTES
        head = b""
        if self._receiver.wants_sack:
            if self._state in RECEIVING:
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


_HANDLERS: Mapping[int, Callable[[Association, bytes], None]] = {
    wire.INIT_ACK: Association._take_init_ack,
    wire.COOKIE_ECHO: Association._take_cookie_echo,
    wire.COOKIE_ACK: Association._take_cookie_ack,
    wire.HEARTBEAT: Association._take_heartbeat,
    wire.HEARTBEAT_ACK: Association._take_heartbeat_ack,
    wire.ABORT: Association._take_abort,
    wire.ERROR: Association._take_error,
    wire.SHUTDOWN: Association._take_shutdown,
    wire.SHUTDOWN_ACK: Association._take_shutdown_ack,
    wire.SHUTDOWN_COMPLETE: Association._take_shutdown_complete,
    wire.RE_CONFIG: Association._take_re_config,
}
"""What takes a chunk of each kind; one table for all associations."""
