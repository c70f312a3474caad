"""The WebRTC Direct listener: one UDP socket, many sessions, nothing kept for who has not proved its address.

A source is first known by a STUN binding request with a valid username and integrity, answered without state but
the username; then a DTLS record from that source makes a handshake, within the bounds of `Limits`; then Noise
proves the peer, and the link is handed on. What exceeds a bound is ignored: DTLS and STUN repeat themselves.

A link follows its peer: when a DTLS record that is authentic and newer than all before comes from another source that
has passed STUN with the link's username, the link goes on there. Until the peer has echoed what was sent there, which
only who receives it can, at most `AMPLIFICATION` times the bytes that came from there are sent. So who replays or
forwards records, or writes somebody else's address on them, can neither have them flooded nor keep the link.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import islice

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.hosts import is_link_local, is_loopback, may_be_sent_to, plain_host, source_block
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import KodoError
from kodo.p2p.net import udp
from kodo.p2p.net.attachment import Attachment, Detour
from kodo.p2p.net.budget import Budget
from kodo.p2p.net.certificate import Certificate, CookieGate
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.openings import ALL_THE_WAY, Openings
from kodo.p2p.net.transport import Limits, Link, Punch
from kodo.p2p.net.ways import OverRelay, Stray

__all__ = ["LiveLinks", "WebRtcListener"]

logger = logging.getLogger(__name__)

AMPLIFICATION = 3
"""Until a source has shown that it hears us, at most this many times the bytes it sent are sent to it (as in
RFC 9000, 8.1). It has by echoing a cookie, or by finishing DTLS, for which it must have seen our part of it."""
PRFLX_PRIORITY = (110 << 24) | (65535 << 8) | 255
"""ICE's priority of an address that is learnt by a check (RFC 8445, 5.1.2): better than any relay's."""
FOLLOW_TRIES = 4
"""Links of one username that a record from elsewhere is tried on; a dialler's own username has one."""
FOLLOW_SECONDS = 0.1
"""A link follows its peer at most this often: each time it forgets what it knows of the path."""


class _Source:
    """What is known of a source that has passed STUN: its username, and a budget until its address is proved."""

    __slots__ = ("budget", "link", "proved", "username")

    def __init__(self, username: str) -> None:
        self.username = username
        self.budget = 0
        self.proved = False
        self.link: WebRtcLink | None = None


class _SourceWay:
    """The way to the source that a link's peer has now; see `ways.Way`."""

    def __init__(self, listener: WebRtcListener, known: _Source, source: Source) -> None:
        self.listener = listener
        self.known = known
        self.source = self.proved_source = source
        self.moved_at: float | None = None

    def follow(self, listener: WebRtcListener, known: _Source, source: Source, now: float) -> None:
        """Lead to another source, which has to prove its address, whatever it or another there has proved before."""
        known.link, self.known.link = self.known.link, None
        known.proved = self.known.proved = False
        self.known.budget = 0  # what came while nothing was counted buys nothing later
        self.listener, self.known, self.source, self.moved_at = listener, known, source, now

    def proved(self) -> None:
        self.known.proved = True
        self.proved_source = self.source

    def may_follow(self, now: float) -> bool:
        return self.moved_at is None or now - self.moved_at >= FOLLOW_SECONDS

    def room(self) -> int | None:
        return None if self.is_proved() else max(self.known.budget, 0)

    def is_proved(self) -> bool:
        known = self.known
        if not known.proved and self.moved_at is None and known.link is not None and known.link.encrypted:
            known.proved = True  # of the first source DTLS proves the address
        return known.proved

    def _admitted(self, size: int) -> bool:
        """Whether so many bytes may go now; they are taken from the budget."""
        if self.is_proved():
            return True
        if self.known.budget < size:
            return False
        self.known.budget -= size
        return True

    def send(self, datagrams: list[bytes]) -> None:
        if self.known.proved or self._admitted(sum(map(len, datagrams))):
            self.listener.send(datagrams, self.source)

    def send_whole(self, datagram: bytes) -> bool:
        endpoint = self.listener.endpoint
        if self.source.via is not None:
            return False  # a relay would let it be fragmented, beyond itself
        return endpoint is None or (self._admitted(len(datagram)) and endpoint.send_whole(datagram, self.source))

    def send_split(self, datagrams: list[bytes]) -> None:
        if self._admitted(sum(map(len, datagrams))):
            self.listener.send(datagrams, self.source, split=True)

    def let_in(self) -> OverRelay | None:
        via = self.source.via
        if via is None:
            return None
        username = self.known.username
        server_ufrag, client_ufrag = username.split(":")
        request = stun.BindingRequest(os.urandom(12), username, server_ufrag, client_ufrag, controlling=True)
        own = self.listener.open_way(self.source, request)
        return OverRelay((via.relay.host, via.relay.port), own)


class LiveLinks:
    """The links of all listeners of one node: a peer may go on at another one, as where it changes to IPv6."""

    def __init__(self) -> None:
        self.by_username: dict[str, list[WebRtcLink]] = {}
        self.ways: dict[WebRtcLink, _SourceWay] = {}


class WebRtcListener:
    """Listens on one UDP socket; made by `WebRtcTransport.listen`."""

    def __init__(
        self,
        identity: Identity,
        certificate: Certificate,
        limits: Limits,
        accept: Callable[[Link], None],
        admits: Callable[[str | None], bool],
        *,
        budget: Budget | None = None,
        live: LiveLinks | None = None,
        punch: Punch = "early",
    ) -> None:
        self._identity = identity
        self._certificate = certificate
        self._limits = limits
        self._accept = accept
        self._admits = admits
        self._budget = budget
        self._gate = CookieGate(certificate)
        self._loop = asyncio.get_running_loop()
        self.endpoint: Endpoint | None = None
        self._touched: set[WebRtcLink] = set()
        self._sources: OrderedDict[Source, _Source] = OrderedDict()
        self._first_seen: OrderedDict[str, float] = OrderedDict()
        live = live or LiveLinks()
        self._live, self._ways = live.by_username, live.ways
        self._punch = punch
        self._openings = Openings()
        self._attachments: dict[tuple[str, int], Attachment] = {}
        self._left: set[tuple[str, int]] = set()
        """Relays that carry nothing and are of no use here."""
        self._handshaking: Counter[str] = Counter()
        self._links: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ("", 0)

    async def open(self, host: str, port: int) -> None:
        """Bind and begin.

        Raises:
            UsageError: when the address cannot be bound.
        """
        self.endpoint = Endpoint(udp.bind(host, port), self._datagram_received, self._batch_ended)
        self.address = self.endpoint.address[:2]

    def attach(
        self,
        relay: tuple[str, int],
        token: str,
        changed: Callable[[], None],
        carrier: Carrier | None = None,
        carries: bool = True,
    ) -> Attachment | None:
        """Attach to a relay; see `transport.Listener`."""
        if (":" in relay[0]) != (":" in self.address[0]):
            return None
        if not carries and self._punch != "early":
            told = (
                "no peer is introduced by the registry at %s, which relays nothing: with punch=%s none may know where"
            )
            # Once: it is offered again with each new connection to the registry, which a proxy may cut every minute.
            level = logging.DEBUG if relay in self._left else logging.WARNING
            told += " this node is before it has logged in over a relay; early lets them"
            logger.log(level, told, relay[0], self._punch)
            self.detach(relay)
            self._left.add(relay)
            return None
        self._left.discard(relay)
        attachment = self._attachments.get(relay)
        if attachment is not None and attachment.carries != carries:
            # The registry was started anew: one that only introduced is reached by no connection, one that relays is.
            self.detach(relay)
            attachment = None
        if attachment is None:
            tag = relay_wire.tag_of(self._identity.peer_id)
            detour = None
            if carrier is not None:
                detour = Detour(carrier, relay, tag, token, self._datagram_received, self._batch_ended, changed)
            attachment = Attachment(relay, tag, token, lambda data, to: self.send([data], to), changed, detour)
            self._attachments[relay] = attachment
        else:
            attachment.renew(token)
        attachment.carries = carries
        return attachment

    def detach(self, relay: tuple[str, int]) -> None:
        """Attach to a relay no longer; see `transport.Listener`."""
        self._left.discard(relay)
        attachment = self._attachments.pop(relay, None)
        if attachment is not None:
            attachment.close()

    async def aclose(self) -> None:
        """Stop accepting, end handshakes; the socket stays for the links that live, and closes with the last."""
        for relay in list(self._attachments):
            self.detach(relay)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.handshake_s)
        self._accept = lambda link: None
        links = [source.link for source in self._sources.values() if source.link is not None]
        for link in links:
            await link.aclose()
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None

    # datagrams

    def _datagram_received(self, data: bytes, source: Source) -> None:
        if relay_wire.is_frame(data):
            self._take_frame(data, source)
            return
        known = self._sources.get(source)
        if known is not None and (link := known.link) is not None and stun.is_dtls(data):
            known.budget += AMPLIFICATION * len(data)
            link.datagram_received(data)
            self._touched.add(link)
        elif stun.is_binding_request(data):
            self._check(data, source)
        elif stun.is_stun(data):
            attachment = self._attachments.get((source.host, source.port))
            if attachment is not None:
                attachment.answered(data)
        elif known is not None and known.link is None and stun.is_dtls(data):
            known.budget += AMPLIFICATION * len(data)
            if stun.is_dtls_plain(data):
                if stun.is_dtls_handshake(data):
                    self._begin(known, source, data)
            else:
                self._take_stray(known, source, data)

    def _batch_ended(self) -> None:
        touched, self._touched = self._touched, set()
        for link in touched:
            try:
                link.flush()
            except Exception as error:
                link.fail(error)

    def send(self, datagrams: list[bytes], source: Source, *, split: bool = False) -> None:
        """Send to a source, through the relay if it is there.

        Args:
            split: whether the network may have to fragment them.
        """
        if self.endpoint is None:
            return
        if (via := source.via) is not None:
            source, datagrams = via.relay, relay_wire.frame(via.channel, datagrams)
            attachment = self._attachments.get((source.host, source.port))
            detour = None if attachment is None else attachment.detour
            if detour is not None and detour.is_attached:
                detour.send(datagrams)
                return
        if split:
            self.endpoint.send_split(datagrams, source)
        else:
            self.endpoint.send(datagrams, source)

    def _take_frame(self, data: bytes, source: Source) -> None:
        """Take what a relay passes on as if it came from the dialler itself, as another one of its addresses."""
        attachment = self._attachments.get((source.host, source.port)) if source.via is None else None
        relayed = attachment.read(data, source) if attachment is not None else None
        if relayed is not None:
            self._datagram_received(*relayed)

    def _check(self, data: bytes, source: Source) -> None:
        if not self._answers(source):
            return
        try:
            request = stun.read_binding_request(data)
        except ValueError:
            return
        if relay_wire.is_question(request):
            return
        now = self._loop.time()
        username = request.username
        if username not in self._live:
            first = self._first_seen.setdefault(username, now)
            if now - first > self._limits.username_s:
                return
            while len(self._first_seen) > self._limits.usernames:
                self._first_seen.popitem(last=False)
        # A page reads no answers to checks but asks for the way; until then no packet is to get to its router.
        reads = relay_wire.password_of(request) == request.server_ufrag
        if not self._is_carried(source):
            if reads and (own := self.open_way(source, request)) is not None:
                self.send([stun.alternate_response(request, (source.host, source.port), own)], source)
            return
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source(username)
            self._forget_sources()
        elif known.link is None:
            known.username = username
            self._return(known, source, now)
        elif known.username == username:
            known.link.heard()
        known.budget += AMPLIFICATION * len(data)
        relayed = source.via is not None
        if not relayed:
            self._openings.came((source.host, source.port))
        own = self.open_way(source, request) if relayed and reads else None
        answer = stun.binding_response(request, (source.host, source.port), relayed=relayed, own=own)
        known.budget -= len(answer)
        self.send([answer], source)

    def _is_carried(self, source: Source) -> bool:
        """Whether sessions with a source are carried: else it comes through a relay that only introduces it."""
        if source.via is None:
            return True
        attachment = self._attachments.get((source.via.relay.host, source.via.relay.port))
        return attachment is not None and attachment.carries

    def _answers(self, source: Source) -> bool:
        """Whether a source is answered. Where a dialer is that comes through a relay, nobody but the relay says."""
        if source.via is None:
            return self._admits(plain_host(source.host))
        if (is_loopback(source.host) or is_link_local(source.host)) and not is_loopback(source.via.relay.host):
            return False  # nobody elsewhere sees such an address, and some are counted as this machine
        return self._admits(None)

    def open_way(self, source: Source, request: stun.BindingRequest) -> tuple[str, int] | None:
        """Open the NAT before this machine for a relayed dialler; return where that is, if it may know.

        One packet towards the dialer, never longer than the check that came, does that; see `openings`.
        """
        if source.via is None or self.endpoint is None or not self._may_tell(request.username):
            return None
        attachment = self._attachments.get((source.via.relay.host, source.via.relay.port))
        own = None if attachment is None else attachment.address
        if attachment is None or own is None or (":" in source.host) != (":" in own[0]):
            return None
        relay = source.via.relay.host
        if not may_be_sent_to(source.host, source.port, because_of=relay) or not relay_wire.names_dialler(request):
            return None
        dialler = Source(source.host, source.port)
        # Over a relay that only introduces nobody proves anything: who comes again has not got in by what was done.
        proved = not attachment.carries or self._is_proved(request.username, source)
        hops = self._openings.next_hops((source.host, source.port), own, relay, self._loop.time(), proved=proved)
        if hops < ALL_THE_WAY:
            self.endpoint.send_near(stun.plain_request(request.transaction_id), dialler, hops)
        else:
            self.endpoint.send([relay_wire.question(request, request.transaction_id, PRFLX_PRIORITY)], dialler)
        return own

    def _may_tell(self, username: str) -> bool:
        """Whether a dialer may know where this machine is."""
        if self._punch == "after-login":
            return any(link.admitted for link in self._live.get(username, [])[:FOLLOW_TRIES])
        return self._punch == "early"

    def _is_proved(self, username: str, source: Source) -> bool:
        """Whether a dialer receives what is sent to a source: it has finished a handshake by that way."""
        ways = (self._ways.get(link) for link in self._live.get(username, [])[:FOLLOW_TRIES])
        return any(way is not None and way.source == source and way.is_proved() for way in ways)

    def _route_to(self, source: Source) -> str:
        if source.via is not None:
            return "relay"
        return "punched" if (source.host, source.port) in self._openings else udp.route_to(source.host)

    def _forget_sources(self) -> None:
        excess = max(0, len(self._sources) - self._limits.usernames)
        for source in list(islice(self._sources, excess)):
            if self._sources[source].link is None:
                del self._sources[source]
            else:
                self._sources.move_to_end(source)

    # links that follow their peer

    def _take_stray(self, known: _Source, source: Source, data: bytes) -> None:
        """Take a record from a source without a link: it may be the new one of a link with the same username."""
        now = self._loop.time()
        for link in self._live.get(known.username, [])[:FOLLOW_TRIES]:
            stray = link.receive_stray(data)
            if stray is Stray.FOREIGN:
                continue
            self._touched.add(link)
            way = self._ways.get(link)
            if stray is Stray.NEWEST and way is not None and way.may_follow(now):
                self._follow(link, way, known, source, now)
            return

    def _return(self, known: _Source, source: Source, now: float) -> None:
        """Take a check from a source without a link: where a peer was last heard to receive, it is again, or still.

        Else who forwards one record from elsewhere would keep the link from a peer that has nothing to send.
        """
        for link in self._live.get(known.username, [])[:FOLLOW_TRIES]:
            way = self._ways.get(link)
            if way is not None and way.proved_source == source and not way.is_proved() and way.may_follow(now):
                self._follow(link, way, known, source, now)

    def _follow(self, link: WebRtcLink, way: _SourceWay, known: _Source, source: Source, now: float) -> None:
        way.follow(self, known, source, now)
        link.moved((plain_host(source.host), source.port), self._route_to(source))

    # handshakes

    def _begin(self, known: _Source, source: Source, data: bytes) -> None:
        """Begin a handshake, or ignore its first record when there are too many, or too many sessions."""
        block = source_block(source.host)
        if self._links.total() >= self._limits.sessions or self._links[block] >= self._limits.sessions_per_source:
            return
        in_progress = self._handshaking.total()
        if in_progress >= self._limits.handshakes or self._handshaking[block] >= self._limits.handshakes_per_source:
            return
        connection = None
        if in_progress >= self._limits.cookies_above:
            connection, answer = self._gate.feed((source.host, source.port), data)
            if connection is None:
                if answer and known.budget >= len(answer):
                    known.budget -= len(answer)
                    self.send([answer], source)
                return
            known.proved = True

        way = _SourceWay(self, known, source)
        link = WebRtcLink(
            self._identity,
            self._certificate,
            self._limits,
            way,
            (plain_host(source.host), source.port),
            server=True,
            route=self._route_to(source),
            connection=connection,
            budget=self._budget,
        )
        known.link = link
        self._live.setdefault(known.username, []).append(link)
        self._ways[link] = way
        self._links[block] += 1
        self._handshaking[block] += 1
        link.on_end = partial(self._ended, link, known.username, block)
        if connection is None:
            link.datagram_received(data)
            self._touched.add(link)
        task = self._loop.create_task(self._handshake(link, block), context=link.context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handshake(self, link: WebRtcLink, block: str) -> None:
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                await link.authenticate()
            self._accept(link)
        except (KodoError, TimeoutError) as error:
            logger.debug("a handshake from %s failed: %s", block, error)
            await link.aclose()
        except BaseException:
            await link.aclose()
            raise
        finally:
            self._handshaking[block] -= 1
            if not self._handshaking[block]:
                del self._handshaking[block]

    def _ended(self, link: WebRtcLink, username: str, block: str) -> None:
        way = self._ways.pop(link, None)
        if way is None:
            return
        # The username is not live any more and was first seen long ago: the peer's consent checks go unanswered.
        links = self._live[username]
        links.remove(link)
        if not links:
            del self._live[username]
        self._links[block] -= 1
        if self._links[block] <= 0:
            del self._links[block]
        way.known.link = None
        sources = way.listener._sources
        if sources.get(way.source) is way.known:
            del sources[way.source]
