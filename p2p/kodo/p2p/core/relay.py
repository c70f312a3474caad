"""A relay between diallers and nodes that are attached to it: who is attached, who talks to whom, how much. Pure.

`relay_wire` says what the packets are. To a node goes only what names it by its tag, or came on a channel that such a
check has opened. To a dialler goes only what its node sends; and until it has answered a check of the relay's own,
which only whoever receives at its address can, at most `AMPLIFICATION` times what came from there. So nobody is sent
anything because somebody else has written his address on a packet. What the relay carries it can neither read nor
change: DTLS and Noise end at the node.

A relay that carries nothing (no `rate`) only introduces: it passes on checks, and a node's word where else to ask (a
binding error response), which is no way for a dialler. After its first check a dialler has to show that it receives.

Where UDP is blocked, a dialler or a node comes by a connection instead of from an address (`Stream`): it shows by
itself that who is at its other end receives. All else is the same.
"""

from __future__ import annotations

import hmac
import struct
from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.hosts import plain_host, source_block
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.joined import Joined
from kodo.p2p.core.relay_bounds import Bucket, RelayBounds
from kodo.p2p.errors import CapacityError

__all__ = ["AMPLIFICATION", "Address", "Relay", "RelayBounds", "Stream"]

AMPLIFICATION: Final = 3
"""As in RFC 9000, 8.1."""
NONCE_SECONDS: Final = 60.0
"""A nonce is taken for this long at least, and for twice as long at most."""
STAY_SECONDS: Final = 60.0
"""How long a node stays attached after its last request, and after its registry has lost sight of it."""
UNPROVED_SECONDS: Final = 5.0
"""How long a dialler that has not shown that it receives keeps its channel without a further check."""
_MAX_DATAGRAM = 4096
"""Longer ones are dropped: a link's datagrams are a third of that."""
_BY_STREAM = 0
"""Where a node's legs by UDP have the family of their address."""
_FRAME, _FRAME_BYTES = struct.Struct("!HH"), 4
"""Before the data of a frame: channel and length."""


class Address(Hashable, Protocol):
    """Where a datagram comes from, or goes."""

    @property
    def host(self) -> str:
        """IP address."""
        ...

    @property
    def port(self) -> int:
        """UDP."""
        ...


class Stream:
    """The end of a connection, in place of an address: whoever is there receives. No two are equal.

    Args:
        number: no other stream of this relay has it.
    """

    __slots__ = ("host", "number", "port")

    def __init__(self, host: str, number: int) -> None:
        self.host, self.number, self.port = host, number, relay_wire.NO_UDP_PORT


_RECORDS = bytes(range(20, 64))


def _are_records(firsts: bytes) -> bool:
    """Whether datagrams are DTLS by their first bytes (RFC 7983, section 7)."""
    return not firsts.translate(None, _RECORDS)


@dataclass(slots=True, eq=False)
class _Leg:
    """From where a node is attached, in one address family."""

    address: Address
    attached_at: float
    number: int


class _Node:
    """A node that is admitted, and attached if it has legs."""

    __slots__ = ("channels", "left_at", "legs", "new", "next", "rate", "tag", "token")

    def __init__(self, tag: str, token: str, bounds: RelayBounds, now: float) -> None:
        self.tag, self.token = tag, token
        self.legs: dict[int, _Leg] = {}
        self.channels: dict[int, _Channel] = {}
        self.new = Bucket(bounds.new_per_s, bounds.new_per_s, now)
        self.rate = Bucket(bounds.rate_per_node, bounds.burst, now)
        self.next = relay_wire.FIRST_CHANNEL
        self.left_at: float | None = None


class _Channel:
    """What one dialler and one node say to each other."""

    __slots__ = (
        "budget", "dialler", "heard_at", "inbound", "leg", "node", "number", "outbound", "proved", "rate",
    )  # fmt: skip

    def __init__(self, number: int, node: _Node, dialler: Address, bounds: RelayBounds, now: float) -> None:
        self.number, self.node, self.dialler = number, node, dialler
        self.leg: _Leg | None = None
        self.budget = 0
        self.proved = False
        self.heard_at = now
        self.rate = Bucket(bounds.rate_per_channel, bounds.burst, now)
        self.inbound: list[Joined] = []
        """Frames to the node that wait for the end of the batch."""
        self.outbound: list[Joined] = []
        """Datagrams to the dialler, likewise."""


class _Asked(NamedTuple):
    """A dialler that was asked to show that it receives, and the check because of which it was."""

    source: Address
    tag: str
    password: str
    check: bytes
    at: float


class Relay:
    """One relay. Give it what comes, `take` what goes after each batch, call `expire` every few seconds.

    Args:
        secret: nobody else's, bytes[32].
    """

    def __init__(self, secret: bytes, bounds: RelayBounds, now: float) -> None:
        self.bounds = bounds
        self.relayed = self.dropped = 0
        """Bytes, since the beginning."""
        self._secret = secret
        self._nodes: dict[str, _Node] = {}
        self._at: dict[Address, _Node] = {}
        self._channels: dict[Address, _Channel] = {}
        self._sources: Counter[str] = Counter()
        self._asked: OrderedDict[bytes, _Asked] = OrderedDict()
        """By transaction id; who was asked last is last."""
        self._carries = bounds.rate is not None
        self._rate = Bucket(bounds.introducing if bounds.rate is None else bounds.rate, bounds.burst, now)
        self._busy: dict[_Channel, None] = {}
        self._answers: list[tuple[Address, bytes]] = []

    # who may attach

    def admit(self, peer_id: PeerId, token: str, now: float) -> None:
        """Admit a node by a token, which replaces the one that it had.

        Raises:
            CapacityError: too many nodes are attached.
        """
        tag = relay_wire.tag_of(peer_id)
        node = self._nodes.get(tag)
        if node is None:
            if len(self._nodes) >= self.bounds.nodes:
                raise CapacityError("too many nodes are attached to this relay")
            self._nodes[tag] = _Node(tag, token, self.bounds, now)
            return
        node.token, node.left_at = token, None
        for leg in node.legs.values():
            leg.number = 0

    def dismiss(self, peer_id: PeerId, token: str, now: float) -> None:
        """Forget a node in `STAY_SECONDS`, unless it was admitted anew with another token."""
        node = self._nodes.get(relay_wire.tag_of(peer_id))
        if node is not None and node.token == token:
            node.left_at = now

    @property
    def attached(self) -> int:
        """How many nodes are attached."""
        return sum(bool(node.legs) for node in self._nodes.values())

    @property
    def channels(self) -> int:
        """How many diallers are connected to nodes."""
        return len(self._channels)

    def serves(self, stream: Stream) -> bool:
        """Return whether a stream is of use: a node is attached by it, or a dialler has a channel."""
        return stream in self._channels or stream in self._at

    def rate_of(self, stream: Stream) -> int:
        """Return how many bytes a second are taken from a stream."""
        return self.bounds.rate_per_node if stream in self._at else self.bounds.rate_per_channel

    def reaches(self, tag: str) -> bool:
        """Return whether streams are carried to the node that a tag names."""
        node = self._nodes.get(tag)
        return self._carries and node is not None and bool(node.legs)

    def ended(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        channel, node = self._channels.get(stream), self._at.pop(stream, None)
        if channel is not None:
            self._end(channel)
        if node is not None:
            self._detach(node, stream)

    # what comes

    def received(self, data: bytes, source: Address, now: float) -> None:
        """Take one datagram. What is not understood is passed over."""
        if not data or len(data) > _MAX_DATAGRAM:
            return
        if data[0] >= 64:
            node = self._at.get(source)
            if node is not None and len(data) > _FRAME_BYTES and data[_FRAME_BYTES] < 64:  # DTLS or STUN
                self._from_node(node, data[:_FRAME_BYTES], [data[_FRAME_BYTES:]])
        elif data[0] >= 20:
            channel = self._channels.get(source)
            if channel is not None:
                self._to_node(channel, [data], now)
        elif stun.is_stun(data):
            try:
                self._take_stun(data, source, now)
            except ValueError:
                return

    def received_block(self, block: bytes, size: int, source: Address, now: float) -> None:
        """Take datagrams of one source that are equally long, one behind the other; the last may be shorter.

        It is the same as to take one after the other, at a fraction of the work.
        """
        if not self._takes_alike(block, size, source, now):
            for begin in range(0, len(block), size):
                self.received(block[begin : begin + size], source, now)

    def _takes_alike(self, block: bytes, size: int, source: Address, now: float) -> bool:
        """Take records of a dialler, or frames of one channel of a node; return whether they are that."""
        count, last = divmod(len(block), size)
        if not _FRAME_BYTES < size <= _MAX_DATAGRAM or not count:
            return False
        starts = range(0, len(block), size)
        if block[0] < 64:
            channel = self._channels.get(source)
            if channel is None or not _are_records(block[::size]):
                return False
            self._to_node(channel, [block[begin : begin + size] for begin in starts], now)
            return True
        node, even = self._at.get(source), count * size
        if node is None or 0 < last <= _FRAME_BYTES or not _are_records(block[_FRAME_BYTES::size]):
            return False
        head = block[:_FRAME_BYTES]
        if any(block[at:even:size] != head[at : at + 1] * count for at in range(_FRAME_BYTES)):
            return False
        if last and block[even : even + _FRAME_BYTES] != head[:2] + (last - _FRAME_BYTES).to_bytes(2, "big"):
            return False
        self._from_node(node, head, [block[begin + _FRAME_BYTES : begin + size] for begin in starts])
        return True

    def _from_node(self, node: _Node, head: bytes, payloads: list[bytes]) -> None:
        """Take what comes in frames of one channel, the first of which has this head; the last may be shorter."""
        number, size = _FRAME.unpack(head)
        channel = node.channels.get(number)
        if channel is None or size != len(payloads[0]):
            return
        if not self._carries:
            payloads = [payload for payload in payloads if stun.is_binding_error(payload)]
        if not channel.proved:
            payloads = self._within_budget(channel, payloads)
        if not payloads:
            return
        channel.outbound.append(Joined(payloads[0] if len(payloads) == 1 else b"".join(payloads), size))
        self._busy[channel] = None

    def _within_budget(self, channel: _Channel, payloads: list[bytes]) -> list[bytes]:
        """Return what may be sent to a dialler that has not shown that it receives."""
        sent = []
        for payload in payloads:
            if channel.budget < len(payload):
                self.dropped += len(payload)
            else:
                channel.budget -= len(payload)
                sent.append(payload)
        return sent

    def _to_node(self, channel: _Channel, datagrams: list[bytes], now: float) -> None:
        """Pass on what comes from a dialler: datagrams that are equally long, but the last may be shorter."""
        if not self._carries:
            return
        channel.heard_at = now
        if not channel.proved:
            channel.budget += AMPLIFICATION * sum(map(len, datagrams))
        size, last = len(datagrams[0]), datagrams[-1]
        head = _FRAME.pack(channel.number, size)
        if len(last) == size:
            frames = head + head.join(datagrams)
        else:
            frames = b"".join((head, head.join(datagrams[:-1]), _FRAME.pack(channel.number, len(last)), last))
        channel.inbound.append(Joined(frames, size + _FRAME_BYTES))
        self._busy[channel] = None

    def _take_stun(self, data: bytes, source: Address, now: float) -> None:
        if not stun.is_binding_request(data):
            asked, channel = self._asked.get(data[8:20]), self._channels.get(source)
            if asked is not None and asked.source == source:
                stun.read_binding_response(data, data[8:20], asked.password)
                self._answered(asked, now)
            elif channel is not None:
                self._to_node(channel, [data], now)
            return
        message = stun.parse_message(data, stun.BINDING_REQUEST)
        username = stun.read_username(message)
        if not username:
            if isinstance(source, Stream):
                return  # it has no address that anybody could want to know
            mapped = stun.pack_address((source.host, source.port), message.transaction_id)
            attributes: stun.Attributes = [(stun.XOR_MAPPED_ADDRESS, mapped)]
            answer = stun.pack_message(stun.BINDING_SUCCESS, message.transaction_id, attributes, None)
            self._answers.append((source, answer))
        elif username.startswith(relay_wire.ATTACH_PREFIX):
            self._attach(message, username.removeprefix(relay_wire.ATTACH_PREFIX), source, now)
        else:
            request = stun.read_binding_request(data)
            tag = relay_wire.tag_in(request.server_ufrag)
            # What is not a dialler's is another relay's challenge: two relays would ask each other for ever.
            if tag is not None and request.controlling and relay_wire.names_dialler(request):
                self._check(request, tag, data, source, now)

    # nodes

    def _attach(self, message: stun.Message, tag: str, source: Address, now: float) -> None:
        node = self._nodes.get(tag)
        if node is None or not message.is_made_with(node.token):
            return
        turn = int(now // NONCE_SECONDS)
        nonce = message.attributes.get(stun.NONCE, b"")
        if not any(hmac.compare_digest(nonce, self._nonce(source, each)) for each in (turn, turn - 1)):
            fresh = self._nonce(source, turn)
            self._answers.append((source, relay_wire.unattached_answer(message.transaction_id, fresh, node.token)))
            return
        number, family = int.from_bytes(message.transaction_id, "big"), 6 if ":" in plain_host(source.host) else 4
        if isinstance(source, Stream):
            family = _BY_STREAM
        leg = node.legs.get(family)
        # A stream's nonce is good for that stream alone, and each has its own numbers.
        again = leg is not None and (leg.address == source or family != _BY_STREAM)
        if leg is not None and again and number <= leg.number:
            return
        if leg is None:
            leg = node.legs[family] = _Leg(source, now, number)
        elif leg.address != source:
            self._at.pop(leg.address, None)
        leg.address, leg.attached_at, leg.number = source, now, number
        before = self._at.get(source)
        if before is not None and before is not node:
            self._detach(before, source)
        self._at[source] = node
        answer = relay_wire.attached_answer(message.transaction_id, (source.host, source.port), node.token)
        self._answers.append((source, answer))

    def _nonce(self, source: Address, turn: int) -> bytes:
        port = f"stream {source.number}" if isinstance(source, Stream) else source.port
        text = f"nonce {source.host} {port} {turn}"
        return hmac.digest(self._secret, text.encode(), "sha256")[:16].hex().encode("ascii")

    def _detach(self, node: _Node, address: Address) -> None:
        node.legs = {family: leg for family, leg in node.legs.items() if leg.address != address}

    # diallers

    def _check(self, request: stun.BindingRequest, tag: str, data: bytes, source: Address, now: float) -> None:
        node = self._nodes.get(tag)
        if node is None or not node.legs:
            return
        channel = self._channel(source, node)
        if channel is not None and channel.node is not node:
            return
        if isinstance(source, Stream):
            if not self._carries:
                return
            if channel is None:
                self._answered(_Asked(source, tag, relay_wire.password_of(request), data, now), now)
            else:
                self._introduce(channel, data, now)
            return
        is_new = channel is None and self._has_room(node, source) and node.new.has(1, now)
        if is_new:
            node.new.level -= 1
            channel = self._open(node, source, now)
        budget = AMPLIFICATION * len(data)
        if channel is not None:
            if self._carries or is_new or channel.proved:
                self._introduce(channel, data, now)
            if channel.proved:
                return
            channel.budget += budget
            budget = channel.budget
        asked = self._challenge(request, source, now)
        if len(asked) > budget:
            return
        if channel is not None:
            channel.budget -= len(asked)
        transaction = asked[8:20]
        self._asked[transaction] = _Asked(source, tag, relay_wire.password_of(request), data, now)
        self._asked.move_to_end(transaction)
        if len(self._asked) > self.bounds.asked:
            self._asked.popitem(last=False)
        self._answers.append((source, asked))

    def _challenge(self, request: stun.BindingRequest, source: Address, now: float) -> bytes:
        """Return what asks a dialler to show that it receives; it answers as to any check."""
        text = f"challenge {source.host} {source.port} {request.username} {int(now // NONCE_SECONDS)}"
        return relay_wire.question(request, hmac.digest(self._secret, text.encode(), "sha256")[:12])

    def _answered(self, asked: _Asked, now: float) -> None:
        """A dialler has shown that it receives: it gets a channel even where those who have not are left waiting."""
        node = self._nodes.get(asked.tag)
        if node is None:
            return
        channel = self._channel(asked.source, node)
        if channel is None:
            if not self._make_room(node, asked.source):
                return
            channel = self._open(node, asked.source, now)
            self._introduce(channel, asked.check, now)
        elif channel.node is not node:
            return
        channel.heard_at = now
        channel.proved = True

    def _channel(self, source: Address, node: _Node) -> _Channel | None:
        """Return a dialler's channel, whichever node it leads to if it is proved, else only if it leads to `node`.

        Somebody else may have written the dialler's address on a check to another node.
        """
        channel = self._channels.get(source)
        if channel is not None and channel.node is not node and not channel.proved:
            self._end(channel)
            return None
        return channel

    def _introduce(self, channel: _Channel, check: bytes, now: float) -> None:
        """Pass a check on to the node."""
        channel.heard_at = now
        dialler = channel.dialler
        address = (dialler.host, dialler.port)
        frame = relay_wire.frame_of_check(channel.number, address, check, channel.node.token)
        channel.inbound.append(Joined(frame, len(frame)))
        self._busy[channel] = None

    def _has_room(self, node: _Node, source: Address) -> bool:
        bounds = self.bounds
        return (
            len(self._channels) < bounds.channels
            and self._sources[source_block(source.host)] < bounds.channels_per_source
            and len(node.channels) < bounds.channels_each
        )

    def _make_room(self, node: _Node, source: Address) -> bool:
        """Return whether there is room for a dialler that receives where it says.

        At a node that has all its channels one ends for it: of those who have shown nothing, else of the source that
        has most if this one has fewer, so that nobody shuts others out. It is the one that has been silent longest.
        """
        bounds, block = self.bounds, source_block(source.host)
        if self._sources[block] >= bounds.channels_per_source:
            return False
        if len(node.channels) < bounds.channels_each:
            return len(self._channels) < bounds.channels
        ending = [channel for channel in node.channels.values() if not channel.proved]
        if not ending:
            held: dict[str, list[_Channel]] = {}
            for channel in node.channels.values():
                held.setdefault(source_block(channel.dialler.host), []).append(channel)
            ending = max(held.values(), key=len)
            if len(ending) < len(held.get(block, ())) + 2:
                return False
        self._end(min(ending, key=lambda channel: channel.heard_at))
        return True

    def _open(self, node: _Node, source: Address, now: float) -> _Channel:
        """Return a new channel, for which there is room."""
        # Numbers are used anew as late as possible: what is under way on an old one reaches nobody else.
        while node.next in node.channels:
            node.next = self._after(node.next)
        channel = _Channel(node.next, node, source, self.bounds, now)
        node.next = self._after(node.next)
        node.channels[channel.number] = self._channels[source] = channel
        self._sources[source_block(source.host)] += 1
        return channel

    @staticmethod
    def _after(number: int) -> int:
        return number + 1 if number < relay_wire.LAST_CHANNEL else relay_wire.FIRST_CHANNEL

    def _end(self, channel: _Channel) -> None:
        channel.node.channels.pop(channel.number, None)
        if self._channels.pop(channel.dialler, None) is not None:
            block = source_block(channel.dialler.host)
            self._sources[block] -= 1
            if self._sources[block] <= 0:
                del self._sources[block]
        self._busy.pop(channel, None)

    # what goes

    def take(self, now: float) -> list[tuple[Address, list[Joined]]]:
        """Return what is to be sent, by receiver; what is over a rate is dropped."""
        going: dict[Address, list[Joined]] = {}
        answers, self._answers = self._answers, []
        for address, answer in answers:
            going.setdefault(address, []).append(Joined(answer, len(answer)))
        busy, self._busy = self._busy, {}
        for channel in busy:
            inbound, channel.inbound = channel.inbound, []
            outbound, channel.outbound = channel.outbound, []
            leg = self._leg(channel)
            if inbound and leg is not None and (admitted := self._admitted(channel, inbound, now)):
                going.setdefault(leg.address, []).extend(admitted)
            if outbound and (admitted := self._admitted(channel, outbound, now)):
                going.setdefault(channel.dialler, []).extend(admitted)
        return list(going.items())

    @staticmethod
    def _leg(channel: _Channel) -> _Leg | None:
        """Return by which leg a dialler reaches its node: one that the node still has, of its family if possible.

        A node has a stream only while its UDP does not get here.
        """
        legs = channel.node.legs
        if (stream := legs.get(_BY_STREAM)) is not None:
            return stream
        if channel.leg is None or channel.leg not in legs.values():
            family = 6 if ":" in plain_host(channel.dialler.host) else 4
            channel.leg = legs.get(family) or next(iter(legs.values()), None)
        return channel.leg

    def _admitted(self, channel: _Channel, pieces: list[Joined], now: float) -> list[Joined]:
        buckets = first, second, third = channel.rate, channel.node.rate, self._rate
        size = len(pieces[0].data) if len(pieces) == 1 else sum(len(piece.data) for piece in pieces)
        if not (first.has(size, now) and second.has(size, now) and third.has(size, now)):
            room = min(bucket.level for bucket in buckets)
            kept, size, dropped = [], 0, 0
            for data in (data for piece in pieces for data in piece.datagrams()):
                if size + len(data) <= room:
                    kept.append(Joined(data, len(data)))
                    size += len(data)
                else:
                    dropped += len(data)
            pieces = kept
            self.dropped += dropped
        for bucket in buckets:
            bucket.level -= size
        self.relayed += size
        return pieces

    def expire(self, now: float) -> None:
        """Forget who has said nothing for long."""
        while self._asked and now - next(iter(self._asked.values())).at >= UNPROVED_SECONDS:
            self._asked.popitem(last=False)
        for channel in list(self._channels.values()):
            if now - channel.heard_at >= (self.bounds.idle_s if channel.proved else UNPROVED_SECONDS):
                self._end(channel)
        for node in list(self._nodes.values()):
            for family, leg in list(node.legs.items()):
                if now - leg.attached_at >= STAY_SECONDS:
                    del node.legs[family]
                    if self._at.get(leg.address) is node:
                        del self._at[leg.address]
            if node.left_at is not None and now - node.left_at >= STAY_SECONDS:
                for channel in list(node.channels.values()):
                    self._end(channel)
                for leg in node.legs.values():
                    if self._at.get(leg.address) is node:
                        del self._at[leg.address]
                del self._nodes[node.tag]
