"""Data channels over streams: opening (DCEP), closing (stream reset), and the ids that become free again.

The DTLS client opens channels with even ids, the server with odd ones. An OPEN travels as the first message of its
stream, so messages may follow it at once (RFC 8832, 6). Which streams a reset request names and how it was answered
is remembered by channel, not by id: an id may be in use again when a late answer comes.

Ids that became free wait behind `_ID_REST` others before they are used again: the peer may hear of the end of the
old channel only after the new one's OPEN.

Source: RFC 8831, 6; RFC 8832; RFC 6525, 4 and 5.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from struct import Struct
from typing import Final

from kodo.p2p.core.sctp.outbound import Outbound, OutboundStream
from kodo.p2p.core.sctp.states import ChannelState, ChannelStep, next_channel_state
from kodo.p2p.core.sctp.wire import (
    PARAMETER_ADD_STREAMS,
    PARAMETER_RESET_INCOMING,
    PARAMETER_RESET_OUTGOING,
    PARAMETER_RESET_RESPONSE,
    PARAMETER_RESET_TSN,
    PROTOCOL_DCEP,
    ResetRequest,
    encode_parameter,
    parse_reset_request,
)
from kodo.p2p.errors import BrokenSessionError, CapacityError, UsageError

__all__ = [
    "PROTOCOL_BINARY",
    "PROTOCOL_BINARY_EMPTY",
    "PROTOCOL_DCEP",
    "PROTOCOL_TEXT",
    "PROTOCOL_TEXT_EMPTY",
    "Channel",
    "Channels",
    "Resets",
    "encode_open",
    "parse_open",
]

PROTOCOL_TEXT: Final = 51
PROTOCOL_BINARY: Final = 53
PROTOCOL_TEXT_EMPTY: Final = 56
PROTOCOL_BINARY_EMPTY: Final = 57

_OPEN: Final = Struct(">BBHIHH")
_OPEN_TYPE: Final = 3
_ACK: Final = b"\x02"
_RESPONSE: Final = Struct(">II")
_MASK: Final = 0xFFFFFFFF
_ID_REST: Final = 64
_DEFERRED_REQUESTS: Final = 16
_STREAMS_PER_REQUEST: Final = 128

_NOTHING_TO_DO, _PERFORMED, _DENIED, _BUSY, _BAD_SEQUENCE, _IN_PROGRESS = 0, 1, 2, 4, 5, 6


def encode_open(label: str, protocol: str) -> bytes:
    """Return a DATA_CHANNEL_OPEN for a reliable, ordered channel."""
    name, sub = label.encode(), protocol.encode()
    return _OPEN.pack(_OPEN_TYPE, 0, 256, 0, len(name), len(sub)) + name + sub


def parse_open(data: bytes) -> tuple[str, str]:
    """Return label and protocol of a DATA_CHANNEL_OPEN.

    What it says about reliability and order binds its sender's messages, which arrive as they were sent; ours are
    always reliable and ordered, which is more than was asked for.

    Raises:
        ValueError: when it is malformed.
    """
    if len(data) < _OPEN.size:
        raise ValueError("an OPEN is too short")
    *_, name, sub = _OPEN.unpack_from(data)
    if len(data) < _OPEN.size + name + sub:
        raise ValueError("an OPEN does not fit into its message")
    text = data[_OPEN.size :]
    return text[:name].decode("utf-8"), text[name : name + sub].decode("utf-8")


@dataclass(eq=False, slots=True)
class Channel:
    """A channel.

    Attributes:
        id: its stream, both ways.
        stream: what it has queued.
        state: see `states`.
        last_tsn: once it is closed and all of it was sent: no TSN behind this is its own.
    """

    id: int
    stream: OutboundStream
    state: ChannelState = ChannelState.OPEN
    last_tsn: int | None = None

    def step(self, step: ChannelStep) -> bool:
        """Take a step; False if it is not possible now."""
        state = next_channel_state(self.state, step)
        if state is None:
            return False
        self.state = state
        return True


class Channels:
    """The channels of one association."""

    def __init__(self, outbound: Outbound, *, client: bool, streams: int, most: int) -> None:
        self.by_id: dict[int, Channel] = {}
        self.inbound: dict[int, Channel] = {}
        """Those whose stream the peer has not reset: a request to reset all costs each of them once."""
        self.closing: OrderedDict[int, Channel] = OrderedDict()
        """Those that still have a reset to ask for; who was looked at in vain goes to the end."""
        self.early: int | None = None
        """Channels that may exist while the owner does not know the peer; None when it does."""
        self.streams = streams
        self._outbound = outbound
        self._most = most
        self._fresh = 0 if client else 1
        self._rested: deque[int] = deque()

    @property
    def queued(self) -> int:
        """Bytes of all channels that no packet has carried yet."""
        return self._outbound.queued

    def create(self, label: str, protocol: str, channel_id: int | None, *, negotiated: bool) -> Channel:
        """Open a channel.

        Raises:
            UsageError: the id is in use, or a negotiated channel names none.
            CapacityError: there are too many, or the peer has no stream left.
        """
        if channel_id is None:
            if negotiated:
                raise UsageError("a negotiated channel needs an id that both sides know")
            channel_id = self._free_id()
        elif channel_id in self.by_id or not 0 <= channel_id < self.streams:
            raise UsageError(f"channel {channel_id} is in use or out of range")
        elif len(self.by_id) >= self._most:
            raise CapacityError(f"{self._most} channels are open already")
        channel = self._add(channel_id)
        if not negotiated:
            self._outbound.put(channel.stream, PROTOCOL_DCEP, encode_open(label, protocol))
        return channel

    def _free_id(self) -> int:
        if len(self.by_id) >= self._most:
            raise CapacityError(f"{self._most} channels are open already")
        while self._fresh in self.by_id:
            self._fresh += 2
        if self._rested and (len(self._rested) > _ID_REST or self._fresh >= self.streams):
            channel_id = self._rested.popleft()
            return channel_id if channel_id not in self.by_id else self._free_id()
        if self._fresh >= self.streams:
            raise CapacityError("the other side has no stream left")
        self._fresh += 2
        return self._fresh - 2

    def _add(self, channel_id: int) -> Channel:
        channel = Channel(channel_id, OutboundStream(channel_id))
        self.by_id[channel_id] = self.inbound[channel_id] = channel
        return channel

    def accept(self, channel_id: int) -> Channel | None:
        """Take a channel that the peer opened and acknowledge it; None if there are too many.

        Raises:
            ValueError: there are too many for a peer that is not known yet.
        """
        if self.early is not None and len(self.by_id) >= self.early:
            raise ValueError("too many channels before the peer was authenticated")
        if len(self.by_id) >= 2 * self._most or channel_id >= self.streams:
            return None
        channel = self._add(channel_id)
        self._outbound.put(channel.stream, PROTOCOL_DCEP, _ACK)
        if len(self.by_id) > self._most:
            self.close(channel)
            return None
        return channel

    def get_open(self, channel_id: int) -> Channel:
        """Return a channel that messages may be sent on.

        Raises:
            BrokenSessionError: when there is no such channel.
        """
        channel = self.by_id.get(channel_id)
        if channel is None or channel.state is not ChannelState.OPEN:
            raise BrokenSessionError("the stream's channel is closed")
        return channel

    def close(self, channel: Channel) -> None:
        """Close it once its queue is empty."""
        if channel.step(ChannelStep.CLOSE):
            self.closing[channel.id] = channel

    def peer_reset(self, channel: Channel) -> bool:
        """Note that the peer's stream was reset; True if the channel is closed by it."""
        self.inbound.pop(channel.id, None)
        channel.step(ChannelStep.PEER_RESET)
        if channel.state is ChannelState.FLUSHING:
            self.closing[channel.id] = channel
        return channel.state is ChannelState.CLOSED

    def forget(self, channel: Channel) -> None:
        """Free the id of a closed channel."""
        channel.state = ChannelState.CLOSED
        if self.by_id.get(channel.id) is channel:
            del self.by_id[channel.id]
            self.inbound.pop(channel.id, None)
            self.closing.pop(channel.id, None)
            if channel.id & 1 == self._fresh & 1 and channel.id < self._fresh:
                self._rested.append(channel.id)


@dataclass(slots=True)
class Resets:
    """Stream resets, both ways (RFC 6525).

    Attributes:
        channels: the registry.
        sequence: the number of our next request.
        peer_sequence: the number that the peer's next request must have.
        closed: told of each channel that is closed on both sides.
        reset_inbound: told to begin a stream anew.
    """

    channels: Channels
    sequence: int
    peer_sequence: int
    closed: Callable[[Channel], None]
    reset_inbound: Callable[[int], None]
    supported: bool = True
    request: ResetRequest | None = None
    _asked: list[Channel] = field(default_factory=list)
    _renumber: bool = False
    _deferred: list[ResetRequest] = field(default_factory=list)
    _late: ResetRequest | None = None
    """The last request that was answered "in progress": it may come again under a new number."""
    _last_result: int = _PERFORMED
    _looked: tuple[int, int, int] = (0, 0, 0)
    _vain: int = 0
    """Channels in `closing` that were looked at, and were not due, since anything was sent or acknowledged."""

    def next_request(self, next_tsn: int, acknowledged: int) -> ResetRequest | None:
        """Ask for the resets that are due; None if there are none, or a request is out already.

        A channel is due when the peer has all that was sent on it: a request that had to wait for data of others
        makes usrsctp hold back what comes behind it, at times for ever. As many are looked at as one request may
        name, in turn: a peer that acknowledges nothing can make thousands wait.

        Args:
            next_tsn: what is sent next.
            acknowledged: the peer has everything up to this.
        """
        if self.request is not None or not self.channels.closing:
            return None
        closing, due = self.channels.closing, list[Channel]()
        looked = (next_tsn, acknowledged, self.channels.queued)
        if looked != self._looked:
            self._looked, self._vain = looked, 0
        for channel in list(islice(closing.values(), max(0, min(_STREAMS_PER_REQUEST, len(closing) - self._vain)))):
            if not channel.stream.messages and channel.last_tsn is None:
                channel.last_tsn = next_tsn - 1
            if channel.last_tsn is not None and channel.last_tsn <= acknowledged:
                due.append(channel)
                del closing[channel.id]
                channel.step(ChannelStep.FLUSHED)
            else:
                closing.move_to_end(channel.id)
                self._vain += 1
        if not due:
            return None
        if not self.supported:
            for channel in due:
                self.channels.forget(channel)
                self.closed(channel)
            return None
        self._asked = due
        self._renumber = False
        self.request = ResetRequest(
            self.sequence, (self.peer_sequence - 1) & _MASK, acknowledged, tuple(channel.id for channel in due)
        )
        self.sequence = (self.sequence + 1) & _MASK
        return self.request

    def request_to_send(self) -> ResetRequest | None:
        """Return the request that is out, for sending it (again).

        One that was answered "in progress" gets a new number: to the old one usrsctp repeats that answer for ever,
        also when it is done.
        """
        if self.request is not None and self._renumber:
            self._renumber = False
            self.request = replace(self.request, sequence=self.sequence, response=(self.peer_sequence - 1) & _MASK)
            self.sequence = (self.sequence + 1) & _MASK
        return self.request

    def implied(self, channel: Channel) -> bool:
        """Return whether the peer's use of the id for a new channel shows that both ways of this one were reset."""
        return channel.state is ChannelState.RESETTING

    def take_parameter(self, kind: int, body: bytes, last_tsn: int, unwrap: Callable[[int], int]) -> bytes:
        """Take one parameter of a RE-CONFIG; give the parameter that answers it, b"" for none.

        Raises:
            ValueError: when it is malformed.
        """
        if kind == PARAMETER_RESET_RESPONSE:
            self._take_response(body)
            return b""
        if kind == PARAMETER_RESET_OUTGOING:
            request = parse_reset_request(body)
            if request.sequence == self.peer_sequence and len(self._deferred) < _DEFERRED_REQUESTS:
                self.peer_sequence = (self.peer_sequence + 1) & _MASK
                if not self._asked_again(request):
                    self._deferred.append(request)
                self._last_result = _IN_PROGRESS if self._deferred else _PERFORMED
                answer = self.perform(last_tsn, unwrap)
                if self._deferred:
                    self._late = request
                return answer or self._answer(request.sequence)
            if request.sequence == (self.peer_sequence - 1) & _MASK:
                return self._answer(request.sequence)
            return encode_parameter(PARAMETER_RESET_RESPONSE, _RESPONSE.pack(request.sequence, _BAD_SEQUENCE))
        if kind in (PARAMETER_RESET_INCOMING, PARAMETER_RESET_TSN, PARAMETER_ADD_STREAMS, PARAMETER_ADD_STREAMS + 1):
            if len(body) < 4:
                raise ValueError("a request is too short")
            number = int.from_bytes(body[:4], "big")
            if number == self.peer_sequence:
                self.peer_sequence = (self.peer_sequence + 1) & _MASK
                # All streams that there can be are accepted from the beginning.
                self._last_result = _PERFORMED if kind == PARAMETER_ADD_STREAMS else _DENIED
            return self._answer(number)
        return b""

    def _asked_again(self, request: ResetRequest) -> bool:
        late = self._late
        return late is not None and (late.last_tsn, late.streams) == (request.last_tsn, request.streams)

    def _answer(self, sequence: int) -> bytes:
        return encode_parameter(PARAMETER_RESET_RESPONSE, _RESPONSE.pack(sequence, self._last_result))

    def perform(self, last_tsn: int, unwrap: Callable[[int], int]) -> bytes:
        """Perform the peer's requests of which all that was sent before has arrived; give the answer, b"" for none.

        usrsctp makes a new request while its last one is still answered "in progress", so there may be several.
        """
        answer = b""
        while self._deferred and last_tsn >= unwrap(self._deferred[0].last_tsn):
            request = self._deferred.pop(0)
            self._last_result = _PERFORMED
            for stream in request.streams or tuple(self.channels.inbound):
                self.reset_inbound(stream)
                channel = self.channels.inbound.get(stream)
                if channel is not None and self.channels.peer_reset(channel):
                    self.channels.forget(channel)
                    self.closed(channel)
            answer = self._answer(request.sequence)
        return answer

    @property
    def waiting(self) -> bool:
        """Whether a request of the peer waits for data that was sent before it."""
        return bool(self._deferred)

    def _take_response(self, body: bytes) -> None:
        if len(body) < _RESPONSE.size:
            raise ValueError("a response is too short")
        sequence, result = _RESPONSE.unpack_from(body)
        request = self.request
        if request is None or sequence != request.sequence:
            return
        if result in (_IN_PROGRESS, _BUSY):
            self._renumber = True
            return
        asked, self._asked, self.request = self._asked, [], None
        for channel in asked:
            # A peer that refuses has no use for the stream either: there is nothing left to do with it.
            if channel.step(ChannelStep.CONFIRMED) and channel.state is ChannelState.CLOSED:
                self.channels.forget(channel)
                self.closed(channel)
