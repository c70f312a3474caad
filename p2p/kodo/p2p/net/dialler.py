"""The dialling end of one link: an unconnected UDP socket per address family, and the path that is taken now.

`core.paths` says what is checked when and which path is best; here are the sockets, the one timer and the packets.
The sockets are bound to no address, so a link outlives its machine's change of network; a better path, or one that
is left when another fails, replaces the current one under a live session. Where nothing answers by UDP, the relays
among the addresses are reached by connections.

Source: libp2p/specs webrtc/webrtc-direct.md, RFC 8445.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from kodo.p2p.core import stun
from kodo.p2p.core.hosts import may_be_sent_to, plain_host
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.paths import Candidate, Change, Paths, Rank, Target
from kodo.p2p.core.relay_wire import tag_of
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.interfaces import on_networks_changed
from kodo.p2p.net.leg import Carrier, Leg, Standby
from kodo.p2p.net.link import WebRtcLink

__all__ = ["Dialler"]

HELLO_SECONDS = (0.15, 0.45)
CHECKS_UNDER_WAY = 64
"""Checks whose answers are waited for; older ones are forgotten."""
HEAD_START_SECONDS = 1.0
"""How long UDP is given before relays are reached by connections."""
LINGER_SECONDS = 5.0
"""How long those are kept once there is a better path."""
INTRODUCED_SECONDS = 5.0
"""How long packets may take to come through after a registry that relays nothing has introduced this dialler."""
NOT_THROUGH = (
    "the node's registry has introduced this machine and relays nothing, and the NATs between let no packet through. "
    "It can be reached over a registry that relays (koco registry --relay 40MB), or if its UDP port is forwarded"
)
ADDRESSES_TOLD = 4
"""Addresses that are tried because a peer tells them through a relay."""
_HOST_PRIORITY = (126 << 24) | (65535 << 8) | 255
"""ICE's priority of a host candidate (RFC 8445, 5.1.2)."""
_TRANSACTION_BYTES = 12


class Dialler:
    """Finds a path to one listener and carries a link over it; a `ways.Way`. `close` it, or let the link's end.

    It repeats the first DTLS datagram until something is heard: a busy listener ignores a ClientHello, and OpenSSL
    would repeat it after 1, 2, 4 … seconds, all dialers in step.

    Args:
        peer: whom it looks for, if that is known: a relay among the addresses has to be told.
    """

    def __init__(self, candidates: Sequence[Candidate] = (), peer: PeerId | None = None) -> None:
        self.link: WebRtcLink | None = None
        self.resolving = 0
        """Names whose addresses are still being looked up."""
        self._loop = asyncio.get_running_loop()
        self._paths = Paths((), self._loop.time())
        self._endpoints: dict[socket.AddressFamily, Endpoint | None] = {}
        self._standbys: list[Standby] = []
        self._legs: dict[int, Leg] = {}
        """Connections that are open, by their number."""
        self._connections = 0
        self._later: asyncio.TimerHandle | None = None
        """Opens connections, or closes them."""
        self._out: Endpoint | Leg | None = None
        self._to = Source("", 0)
        # One ufrag for both sides: a listener that is a full ICE agent expects the dialer's to be its own.
        self._ufrag = stun.UFRAG_PREFIXES[1] + secrets.token_hex(16)
        self._tag = None if peer is None else tag_of(peer)
        if peer is not None:
            self._ufrag += f"/{self._tag}"
        self._tie_breaker = int.from_bytes(secrets.token_bytes(8), "big")
        self._under_way: OrderedDict[bytes, tuple[Target, float]] = OrderedDict()
        self._found: asyncio.Future[None] = self._loop.create_future()
        self._hello: list[bytes] | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calm = False
        """Whether the timer was set for checks while nothing is awaited."""
        self._introducer: Target | None = None
        """A relay that carries nothing and has told where the peer is."""
        self._told = 0
        """How many addresses the peer has told that were tried."""
        self._giving_up: asyncio.TimerHandle | None = None
        self._closed = False
        self._reason: OSError | None = None
        self._forget_networks = on_networks_changed(self._networks_changed)
        self.add(candidates)

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Check these addresses too."""
        for candidate in candidates:
            self._paths.add(candidate, self._loop.time())
        self._check_due()

    def stand_by(self, carrier: Carrier, addresses: Sequence[Target], *, at_once: bool = False) -> None:
        """Reach a relay by a connection where nothing answers by UDP, if one of these addresses is the relay's.

        Args:
            at_once: whether UDP is not given time first: it is known to be blocked.
        """
        standby = Standby(carrier, addresses, self._tag, self._make_leg, self.check_refused)
        self._standbys.append(standby)
        if at_once:
            standby.need()
        elif self._later is None:
            self._later = self._loop.call_later(HEAD_START_SECONDS, self._connect)

    def settled(self) -> None:
        """Take a better path from now on: the link's peer has proved who it is."""
        self._check_due()

    async def found(self) -> None:
        """Wait until an address answers; the caller's deadline ends it. Cancelling is safe.

        Raises:
            UnreachableError: the network says of every address that nobody is there.
        """
        self.check_refused()
        await self._found

    @property
    def targets(self) -> set[Target]:
        """All that is checked."""
        return set(self._paths.targets)

    @property
    def target(self) -> Target:
        """Where the path leads that is taken."""
        return Target(self._to.host, self._to.port, self._to.interface)

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the path that is taken."""
        return plain_host(self._to.host), self._to.port

    @property
    def route(self) -> str:
        """Name the path that is taken: `lan`, `direct`, `punched` or `relay`."""
        match self._rank:
            case Rank.NEAR:
                return "lan"
            case Rank.PUNCHED:
                return "punched"
            case Rank.RELAYED:
                return "relay"
            case Rank.STREAMED:
                return "relay"
        return udp.route_to(self._to.host)

    @property
    def by_connection(self) -> bool:
        """Whether the path that is taken goes to its relay by a connection, for UDP does not."""
        return self._rank is Rank.STREAMED

    @property
    def _rank(self) -> Rank | None:
        current = self._paths.current
        return None if current is None else self._paths.rank_of(current)

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self._closed = True
        self._forget_networks()
        for standby in self._standbys:
            standby.close()
        for timer in (self._timer, self._hello_timer, self._later, self._giving_up):
            if timer is not None:
                timer.cancel()
        for endpoint in self._endpoints.values():
            if endpoint is not None:
                endpoint.close()
        if not self._found.done():
            self._found.cancel()

    # connections to relays

    def _make_leg(self, relay: Target) -> Leg:
        self._connections += 1
        target = Target(relay.host, relay.port, connection=self._connections)

        def changed(is_open: bool) -> None:
            self._connection_changed(target, leg, is_open)

        leg = Leg(partial(self._take, target), self._batch_ended, changed)
        return leg

    def _tend_connections(self) -> None:
        """Open the connections when the path is lost, and close them some time after there is one by UDP again."""
        if not self._standbys or self._later is not None:
            return
        if self._paths.lost:
            self._connect()
        elif self._has_udp and any(standby.is_needed for standby in self._standbys):
            self._later = self._loop.call_later(LINGER_SECONDS, self._disconnect)

    @property
    def _has_udp(self) -> bool:
        rank = self._rank
        return rank is not None and rank > Rank.STREAMED and not self._paths.lost

    def _connect(self) -> None:
        """Open the connections unless there is a path by UDP."""
        self._later = None
        if self._closed or self._has_udp:
            return
        for standby in self._standbys:
            standby.need()

    def _disconnect(self) -> None:
        """Close the connections, unless they are the path again."""
        self._later = None
        if self._has_udp:
            for standby in self._standbys:
                standby.close()

    def _connection_changed(self, target: Target, leg: Leg, is_open: bool) -> None:
        now = self._loop.time()
        if is_open:
            self._legs[target.connection] = leg
            self._paths.add(Candidate(target, Rank.STREAMED), now)
        else:
            self._legs.pop(target.connection, None)
            self._paths.gone(target, now)
            self.check_refused()
        self._check_due()

    # checks

    def _endpoint_to(self, target: Target) -> Endpoint | Leg | None:
        """Return what sends to a target; None on a machine without its family, or when its connection has ended."""
        if target.connection:
            return self._legs.get(target.connection)
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        if family not in self._endpoints:
            self._endpoints[family] = None
            with contextlib.suppress(OSError):
                sock = udp.unconnected(family)
                self._endpoints[family] = Endpoint(sock, self._received, self._batch_ended, self._failed)
        return self._endpoints[family]

    def _check_due(self) -> None:
        """Send the checks that are due, and arm the timer for the next."""
        if self._closed:
            return
        self._update()
        for target in self._paths.take_due(self._loop.time()):
            self._check(target)
        self._tend_connections()
        self._arm()

    def _update(self) -> None:
        link = self.link
        if link is not None:
            if link.settled:
                self._paths.settle(self._loop.time())
            self._paths.awaiting = link.awaits
            self._calm = not link.awaits

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._paths.get_timer()
        if due is not None and not self._closed:
            self._timer = self._loop.call_at(due, self._check_due)

    def _check(self, target: Target) -> None:
        endpoint = self._endpoint_to(target)
        if endpoint is None:
            self._paths.drop(target)
            self.check_refused()
            return
        transaction = secrets.token_bytes(_TRANSACTION_BYTES)
        self._under_way[transaction] = (target, self._loop.time())
        if len(self._under_way) > CHECKS_UNDER_WAY:
            self._under_way.popitem(last=False)
        request = stun.binding_request(
            self._ufrag, self._ufrag, transaction, tie_breaker=self._tie_breaker, priority=_HOST_PRIORITY
        )
        endpoint.send([request], Source(target.host, target.port, "", target.interface))

    def _networks_changed(self) -> None:
        self._paths.networks_changed(self._loop.time())
        self._check_due()

    # what comes

    def _received(self, data: bytes, source: Source) -> None:
        self._take(Target(source.host, source.port, source.interface), data, source)

    def _take(self, target: Target, data: bytes, source: Source | None = None) -> None:
        if target not in self._paths:
            if source is not None:
                self._take_opening(data, source)
            return
        if stun.is_dtls(data):
            link = self.link
            # Until DTLS proves who sent it, only what comes from where the handshake goes counts.
            current = target == self._paths.current
            if link is not None and (link.encrypted or current):
                self._stop_repeating()
                if not link.encrypted:
                    self._heard()
                link.datagram_received(data, self._heard if current else lambda: None)
        elif stun.is_binding_request(data):
            if source is not None:
                self._answer(data, source)
        elif stun.is_stun(data):
            self._take_answer(data, target)

    def _heard(self) -> None:
        self._paths.heard(self._loop.time())

    def _take_answer(self, data: bytes, target: Target) -> None:
        transaction = data[8:20]
        asked = self._under_way.get(transaction)
        if asked is None or asked[0] != target:
            return
        if stun.is_binding_error(data):
            self._take_introduction(data, target)
            return
        try:
            answer = stun.read_binding_response(data, transaction, self._ufrag)
        except ValueError:
            return
        del self._under_way[transaction]
        now = self._loop.time()
        self._update()
        change = self._paths.answered(target, answer.address, now, now - asked[1], relayed=answer.relayed)
        if change is Change.MOVED:
            self._out = self._endpoint_to(target)
            self._to = Source(target.host, target.port, "", target.interface)
            if not self._found.done():
                self._found.set_result(None)
        link = self.link
        if link is not None:
            link.heard()
            if change is not Change.NOTHING:
                link.moved(self.remote_address, self.route)
        if answer.relayed and answer.own is not None:
            self._try_own(answer.own, target)
        self._arm()

    def _take_introduction(self, data: bytes, target: Target) -> None:
        """Take the answer of a peer through a relay that carries nothing: it is elsewhere, and lets us in there."""
        transaction = data[8:20]
        try:
            answer = stun.read_alternate_response(data, transaction, self._ufrag)
        except ValueError:
            return
        del self._under_way[transaction]
        self._paths.introduced(target)
        self._introducer = target
        if self._giving_up is None:
            self._giving_up = self._loop.call_later(INTRODUCED_SECONDS, self._give_up)
        if answer.own is not None:
            self._try_own(answer.own, target)
        self._check_due()

    def _give_up(self) -> None:
        """Fail `found`: a registry has introduced this dialler for long, and no packet has come through."""
        if not self._found.done() and not self.resolving and not self._closed:
            self._fail(UnreachableError(NOT_THROUGH))

    def _take_opening(self, data: bytes, source: Source) -> None:
        """Take the check of a peer that a relay leads to: its NAT may let our packets in by this address."""
        relay = self.target if self._rank is Rank.RELAYED else self._introducer
        if relay is None or self._rank not in (None, Rank.RELAYED) or not stun.is_binding_request(data):
            return
        try:
            request = stun.read_binding_request(data)
        except ValueError:
            return
        if request.server_ufrag == self._ufrag and not request.controlling:
            self._try_own((source.host, source.port), relay)
            self._check_due()

    def _try_own(self, address: tuple[str, int], relay: Target) -> None:
        """Check where a peer that answers through a relay seems to be itself: it lets our packets in now."""
        target = Target(*address)
        if target in self._paths or self._told >= ADDRESSES_TOLD:
            return
        if may_be_sent_to(*address, because_of=relay.host):
            self._told += 1
            self._paths.add(Candidate(target, Rank.PUNCHED), self._loop.time())

    def _answer(self, data: bytes, source: Source) -> None:
        """Answer the check of a listener that is a full ICE agent, as js-libp2p's is."""
        endpoint = self._endpoint_to(Target(source.host, source.port, source.interface))
        try:
            request = stun.read_binding_request(data)
        except ValueError:
            return
        if endpoint is not None and request.server_ufrag == self._ufrag:
            endpoint.send([stun.binding_response(request, (source.host, source.port))], source)
            if self.link is not None:
                self.link.heard()

    def _batch_ended(self) -> None:
        if self.link is not None:
            self.link.flush()

    def _failed(self, error: OSError, to: Source | None) -> None:
        if to is not None and self._paths.current is None:
            self._reason = error
            self._paths.refused(Target(to.host, to.port, to.interface))
            self.check_refused()
            if not self._closed:
                self._loop.call_soon(self._check_due)

    def check_refused(self) -> None:
        """Fail `found` when nothing is left that could answer."""
        if not self._found.done() and not self.resolving and self._paths.all_refused and not self._closed:
            for standby in self._standbys:
                standby.need()
            if not all(standby.has_failed for standby in self._standbys):
                return
            error = UnreachableError((self._reason and self._reason.strerror) or "this machine has no way there")
            error.__cause__ = self._reason
            self._fail(error)

    def _fail(self, error: UnreachableError) -> None:
        self._found.set_exception(error)
        self._found.exception()  # whoever waits raises it; nobody may wait

    # the link's way

    def send(self, datagrams: list[bytes]) -> None:
        """Send a batch of the link."""
        if self._out is not None:
            self._out.send(datagrams, self._to)
        if self._hello is None:
            self._hello = datagrams
            self._repeat_later()
        elif self._calm and self.link is not None and self.link.awaits:
            # Something is awaited again, perhaps from another network than before: ask at once.
            self._calm = False
            self._loop.call_soon(self._check_due)

    def send_whole(self, datagram: bytes) -> bool:
        """Send a datagram of the link that is not to be fragmented; a relay would let it be, beyond itself."""
        if self._rank in (Rank.RELAYED, Rank.STREAMED):
            return False
        return self._out is None or self._out.send_whole(datagram, self._to)

    def send_split(self, datagrams: list[bytes]) -> None:
        """Send datagrams of the link that may be fragmented."""
        if self._out is not None:
            self._out.send_split(datagrams, self._to)

    def room(self) -> int | None:
        """Return None: whoever answers our checks receives what we send."""
        return None

    def proved(self) -> None:
        """Take note of nothing: see `room`."""

    def let_in(self) -> None:
        """Return None: who is dialled comes over nothing."""

    def _repeat_later(self) -> None:
        self._hello_timer = self._loop.call_later(random.uniform(*HELLO_SECONDS), self._repeat)

    def _repeat(self) -> None:
        if self._out is not None:
            self._out.send(self._hello or [], self._to)
        self._repeat_later()

    def _stop_repeating(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None
