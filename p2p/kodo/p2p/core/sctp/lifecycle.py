"""How an association begins, stays alive and ends; the state, the control chunks and their timers.

Source: RFC 9260, 5 (handshake), 8.3 (heartbeats), 9 (the end); RFC 8841 (both sides connect).
"""

from __future__ import annotations

from collections import deque
from struct import pack
from typing import Final

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.channels import Channel, Channels, Resets
from kodo.p2p.core.sctp.congestion import Controller
from kodo.p2p.core.sctp.cookie import make_cookie, read_cookie
from kodo.p2p.core.sctp.pathmtu import LIBWEBRTC, ORDINARY
from kodo.p2p.core.sctp.receiver import Receiver
from kodo.p2p.core.sctp.sender import Sender
from kodo.p2p.core.sctp.settings import ChannelClosed, Ended, Established, Event, PathProved, Settings
from kodo.p2p.core.sctp.states import AssociationEvent, AssociationState, next_association_state
from kodo.p2p.core.sctp.wire import Init, PacketCodec
from kodo.p2p.errors import BrokenSessionError, KodoError, LocallyClosedError, PeerError, RemotelyClosedError

__all__ = ["MAX_CONTROL", "RECEIVING", "SENDING", "Lifecycle"]

MAX_CONTROL: Final = 64
"""Answers that wait to be sent; more are dropped, as a network would."""
_USUAL_SACK_EVERY: Final = 2
"""Packets after which a peer is acknowledged that is not known to bear more (RFC 9260, 6.2)."""
_DCSCTP_WINDOW: Final = 5 << 20
"""What dcsctp, the SCTP of browsers, says that it keeps; no other that names FORWARD TSN keeps as much."""
_MASK: Final = 0xFFFFFFFF
_S, _E = AssociationState, AssociationEvent
SENDING: Final = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED})
RECEIVING: Final = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_SENT})


class Lifecycle:
    """What `association.Association` is apart from its data; see there."""

    def __init__(
        self,
        *,
        client: bool,
        tag: int,
        initial_tsn: int,
        cookie_secret: bytes,
        settings: Settings,
        controller: Controller,
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
        self._sender = Sender(settings, initial_tsn, controller)
        self._receiver = Receiver(settings)
        self._channels = Channels(
            self._sender.outbound, client=client, streams=settings.streams, most=settings.max_channels
        )
        self._channels.early = settings.early_channels
        self._resets = Resets(self._channels, initial_tsn, 0, self._channel_closed, self._receiver.reset)
        self._control: list[bytes] = []
        self._raw: list[bytes] = []
        self._acknowledges_apart = False
        """Whether the peer may be one that sends a few packets for each SACK, however much it covers (libwebrtc)."""
        self.may_be_pion = False
        """Whether the peer names neither PAD nor FORWARD TSN, as pion and webrtc-rs; kodo and browsers do."""
        self._handshake_chunk = b""
        self._handshake_at: float | None = None
        self._handshake_failures = 0
        self._handshake_sent_at = 0.0
        self._shutdown_at: float | None = None
        self._shutdown_failures = 0
        self._heartbeat_at: float | None = None
        self._heartbeat_failures = 0
        self._heartbeat_body = b""
        self._heartbeat_sent_at = 0.0
        self._path_probe = b""
        self._short_probe = b""
        self._challenge = b""
        self._challenge_at: float | None = None
        self._challenge_failures = 0
        self._challenge_sent_at = 0.0
        self._reset_at: float | None = None

    @property
    def queued(self) -> int:
        """Bytes of all channels that are queued or not acknowledged."""
        return self._sender.queued

    @property
    def kept(self) -> int:
        """Bytes that are kept both ways: what is queued or not acknowledged, put together, or not read."""
        return self._sender.queued + self._receiver.used

    @property
    def established(self) -> bool:
        """Whether the handshake is over and the association has not begun to end."""
        return self._state is _S.ESTABLISHED

    @property
    def state(self) -> AssociationState:
        """Where the association stands."""
        return self._state

    @property
    def has_event(self) -> bool:
        """Whether `next_event` has something to give."""
        return bool(self._events)

    def next_event(self) -> Event | None:
        """Return the oldest event that was not given yet."""
        return self._events.popleft() if self._events else None

    def connect(self, now: float) -> None:
        """Begin the handshake. Both sides do."""
        if self._move(_E.CONNECT):
            chunk = wire.encode_init(wire.INIT, self._init())
            self._begin_handshake_step(PacketCodec(self._settings.port, 0).encode(chunk), now)

    def heartbeat(self, now: float) -> None:
        """Ask for a sign of life; without an answer it is repeated, and in the end the association is over."""
        if self._state in SENDING and self._heartbeat_at is None:
            self._heartbeat_failures = 0
            self._send_heartbeat(now)

    def change_path(self, now: float, challenge: bytes) -> None:
        """Go on over another path, of whose rate, round trip and MTU nothing is known.

        `challenge`, bytes[16] that nobody can guess, goes there in a HEARTBEAT; `PathProved` tells when it came back,
        so that who echoed it has received it there.
        """
        if self._state not in SENDING:
            return
        self._now = now
        self._sender.change_path(now)
        self._path_probe = self._short_probe = b""
        self._challenge = wire.encode_parameter(1, challenge)
        self._challenge_failures = 0
        self._challenge_sent_at = now
        self._send_challenge(now)

    def _send_challenge(self, now: float) -> None:
        self._answer(wire.encode_chunk(wire.HEARTBEAT, self._challenge))
        self._challenge_at = now + self._backed_off(self._challenge_failures)

    def _probe_shortly(self, now: float) -> None:
        """Nothing comes back for long packets: find out whether a short one passes."""
        if not self._sender.waited():
            why = "the path carries only shorter packets than before: begin another session"
            self._end(BrokenSessionError(why), wire.CAUSE_USER_ABORT, "the path has shrunk")
            return
        if self._sender.suspects_length:
            self._short_probe = body = wire.encode_parameter(1, pack(">dI", now, self._tag))
            self._answer(wire.encode_chunk(wire.HEARTBEAT, body))

    def abort(self, reason: str = "") -> None:
        """End at once: the next `datagrams_to_send` gives an ABORT, no event follows."""
        self._events.clear()
        self._end(None, wire.CAUSE_USER_ABORT, reason)

    def shutdown(self, now: float) -> None:
        """End in order: what is queued is still sent; `Ended` with a LocallyClosedError tells that it is over."""
        if not self._move(_E.SHUT_DOWN) and self._state in (_S.NEW, _S.COOKIE_WAIT, _S.COOKIE_ECHOED):
            self._end(LocallyClosedError("this side closed the session"), wire.CAUSE_USER_ABORT)
        self._check_shutdown(now)

    def _init(self, cookie: bytes = b"", unrecognized: bytes = b"") -> Init:
        streams = self._settings.streams
        return Init(
            self._tag, self._settings.window, streams, streams, self._initial_tsn, True, True, cookie, unrecognized
        )

    def _move(self, event: AssociationEvent) -> bool:
        state = next_association_state(self._state, event)
        if state is None:
            return False
        self._state = state
        return True

    def _raise_ended(self) -> None:
        if self._state is _S.CLOSED:
            raise BrokenSessionError("the session has ended")

    def _begin_handshake_step(self, packet: bytes, now: float) -> None:
        self._handshake_chunk = packet
        self._handshake_failures = 0
        self._handshake_sent_at = now
        self._handshake_at = now + self._sender.recovery.rto
        self._send_handshake_step()

    def _send_handshake_step(self) -> None:
        if len(self._raw) < MAX_CONTROL:
            self._raw.append(self._handshake_chunk)

    def _take_init(self, body: bytes) -> None:
        """Answer an INIT; nothing is kept until its cookie comes back."""
        init = wire.parse_init(body)
        if self._peer_tag and init.tag != self._peer_tag:
            self._end(PeerError("the other side has started its association again"))
            return
        cookie = make_cookie(init, self._now, self._secret)
        chunk = wire.encode_init(wire.INIT_ACK, self._init(cookie, init.unrecognized))
        if len(self._raw) < MAX_CONTROL:
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
        self.may_be_pion = not (init.pads or init.forwards)
        if not init.pads:
            is_dcsctp = init.forwards and init.window >= _DCSCTP_WINDOW
            self._sender.path.keep_below(LIBWEBRTC if is_dcsctp else ORDINARY)
            self._acknowledges_apart = True
            self._receiver.sack_every = min(self._settings.sack_every, _USUAL_SACK_EVERY)
        return codec

    def _establish(self) -> None:
        self._handshake_at = None
        self._handshake_chunk = b""
        self._events.append(Established())

    def _answer(self, chunk: bytes) -> None:
        if len(self._control) < MAX_CONTROL:
            self._control.append(chunk)

    def _send_heartbeat(self, now: float) -> None:
        self._heartbeat_body = body = wire.encode_parameter(1, pack(">d", now))
        self._heartbeat_sent_at = now
        self._answer(wire.encode_chunk(wire.HEARTBEAT, body))
        self._heartbeat_at = now + self._backed_off(self._heartbeat_failures)

    def _take_heartbeat(self, body: bytes) -> None:
        self._answer(wire.encode_chunk(wire.HEARTBEAT_ACK, body))

    def _take_heartbeat_ack(self, body: bytes) -> None:
        if body == self._path_probe and body:
            self._sender.path.passed()
            self._sender.resize()
            return
        if body == self._short_probe and body:
            self._short_probe = b""
            self._sender.short_passed()
            return
        if body == self._challenge and body:
            self._challenge, self._challenge_at = b"", None
            if not self._challenge_failures:
                self._sender.recovery.measured(max(self._now - self._challenge_sent_at, 1e-6))
            self._events.append(PathProved())
            return
        # The time in it makes each its own, so the answer to a lost one is not taken for that to a later one.
        if self._heartbeat_at is not None and body == self._heartbeat_body:
            self._heartbeat_at = None
            self._heartbeat_failures = 0
            self._sender.recovery.measured(max(self._now - self._heartbeat_sent_at, 1e-6))

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
        self._handshake_at = self._shutdown_at = self._reset_at = self._heartbeat_at = self._challenge_at = None
        self._channels.by_id.clear()
        self._channels.closing.clear()
        if error is not None:
            self._events.append(Ended(error))

    def _break(self, why: str) -> None:
        self._end(PeerError(f"the other side broke the rules of SCTP: {why}"), wire.CAUSE_PROTOCOL_VIOLATION, why)

    def _backed_off(self, failures: int) -> float:
        return float(min(self._sender.recovery.rto * 2.0 ** min(failures, 16), self._settings.rto_max))

    def _channel_closed(self, channel: Channel) -> None:
        self._events.append(ChannelClosed(channel.id))

    def _take_control_timers(self, now: float) -> bool:
        """Repeat what is due; give whether something was repeated too often."""
        most, failed = self._settings.max_retransmits, False
        if self._handshake_at is not None and now >= self._handshake_at:
            self._handshake_failures += 1
            failed = self._handshake_failures > most
            self._handshake_at = now + self._backed_off(self._handshake_failures)
            self._send_handshake_step()
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_failures += 1
            failed = failed or self._heartbeat_failures > most
            self._send_heartbeat(now)
        if self._challenge_at is not None and now >= self._challenge_at:
            self._challenge_failures += 1
            # Who never answers is found out by everything else that it does not answer.
            self._challenge_at = None
            if self._challenge_failures <= most:
                self._send_challenge(now)
        if self._shutdown_at is not None and now >= self._shutdown_at:
            self._shutdown_failures += 1
            failed = failed or self._shutdown_failures > most
            self._send_shutdown(now)
        return failed
