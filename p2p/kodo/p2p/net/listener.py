"""The WebRTC Direct listener: one UDP socket, many sessions, nothing kept for who has not proved its address.

A source is first known by a STUN binding request with a valid username and integrity, answered without state but
the username; then a DTLS record from that source makes a handshake, within the bounds of `Limits`; then Noise
proves the peer, and the link is handed on. What exceeds a bound is ignored: DTLS and STUN repeat themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from kodo.p2p.core import stun
from kodo.p2p.core.hosts import plain_host, source_block
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import KodoError
from kodo.p2p.net import udp
from kodo.p2p.net.budget import Budget
from kodo.p2p.net.certificate import Certificate, CookieGate
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.transport import Limits, Link

__all__ = ["WebRtcListener"]

logger = logging.getLogger(__name__)

AMPLIFICATION = 3
"""Until a source has shown that it hears us, at most this many times the bytes it sent are sent to it (as in
RFC 9000, 8.1). It has by echoing a cookie, or by finishing DTLS, for which it must have seen our part of it."""


class _Source:
    """What is known of a source that has passed STUN: its username, and a budget until its address is proved."""

    __slots__ = ("budget", "checked_at", "link", "proved", "task", "username")

    def __init__(self, username: str, now: float) -> None:
        self.username = username
        self.checked_at = now
        self.budget = 0
        self.proved = False
        self.link: WebRtcLink | None = None
        self.task: asyncio.Task[None] | None = None


class _Way:
    """The way to one source; see `datachannel.Way`."""

    def __init__(self, listener: WebRtcListener, known: _Source, source: Source) -> None:
        self._listener = listener
        self._known = known
        self._source = source

    def _admitted(self, size: int) -> bool:
        """Whether so many bytes may go now; they are taken from the budget."""
        known = self._known
        if not known.proved:
            if known.link is not None and known.link.encrypted:
                known.proved = True
            elif known.budget < size:
                return False
            else:
                known.budget -= size
        return True

    def send(self, datagrams: list[bytes]) -> None:
        endpoint = self._listener.endpoint
        if endpoint is not None and (self._known.proved or self._admitted(sum(map(len, datagrams)))):
            endpoint.send(datagrams, self._source)

    def send_whole(self, datagram: bytes) -> bool:
        endpoint = self._listener.endpoint
        return endpoint is None or (self._admitted(len(datagram)) and endpoint.send_whole(datagram, self._source))

    def send_split(self, datagrams: list[bytes]) -> None:
        endpoint = self._listener.endpoint
        if endpoint is not None and self._admitted(sum(map(len, datagrams))):
            endpoint.send_split(datagrams, self._source)


class WebRtcListener:
    """Listens on one UDP socket; made by `WebRtcTransport.listen`."""

    def __init__(
        self,
        identity: Identity,
        certificate: Certificate,
        limits: Limits,
        accept: Callable[[Link], None],
        admits: Callable[[str], bool],
        *,
        budget: Budget | None = None,
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
        self._live: Counter[str] = Counter()
        self._handshaking: Counter[str] = Counter()
        self._links: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address: Source = ("", 0)

    async def open(self, host: str, port: int) -> None:
        """Bind and begin.

        Raises:
            UsageError: when the address cannot be bound.
        """
        self.endpoint = Endpoint(udp.bind(host, port), self._datagram_received, self._batch_ended)
        self.address = self.endpoint.address

    async def aclose(self) -> None:
        """Stop accepting, end handshakes; the socket stays for the links that live, and closes with the last."""
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
        known = self._sources.get(source)
        if known is not None and (link := known.link) is not None and stun.is_dtls(data):
            known.budget += AMPLIFICATION * len(data)
            link.datagram_received(data)
            self._touched.add(link)
        elif stun.is_stun(data):
            self._check(data, source)
        elif known is not None and known.link is None and stun.is_dtls_handshake(data):
            known.budget += AMPLIFICATION * len(data)
            self._begin(known, source, data)

    def _batch_ended(self) -> None:
        touched, self._touched = self._touched, set()
        for link in touched:
            try:
                link.flush()
            except Exception as error:
                link.fail(error)

    def _send(self, datagrams: list[bytes], source: Source) -> None:
        if self.endpoint is not None:
            self.endpoint.send(datagrams, source)

    def _check(self, data: bytes, source: Source) -> None:
        if not self._admits(plain_host(source[0])):
            return
        try:
            request = stun.read_binding_request(data)
        except ValueError:
            return
        now = self._loop.time()
        username = request.username
        if username not in self._live:
            first = self._first_seen.setdefault(username, now)
            if now - first > self._limits.username_s:
                return
            while len(self._first_seen) > self._limits.usernames:
                self._first_seen.popitem(last=False)
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source(username, now)
            self._forget_sources()
        elif known.link is None:
            known.username, known.checked_at = username, now
        elif known.username == username:
            known.link.heard()
        known.budget += AMPLIFICATION * len(data)
        answer = stun.binding_response(request, source)
        known.budget -= len(answer)
        self._send([answer], source)

    def _forget_sources(self) -> None:
        for source in list(self._sources)[: max(0, len(self._sources) - self._limits.usernames)]:
            if self._sources[source].link is None:
                del self._sources[source]

    # handshakes

    def _begin(self, known: _Source, source: Source, data: bytes) -> None:
        """Begin a handshake, or ignore its first record when there are too many, or too many sessions."""
        block = source_block(source[0])
        if self._links.total() >= self._limits.sessions or self._links[block] >= self._limits.sessions_per_source:
            return
        in_progress = self._handshaking.total()
        if in_progress >= self._limits.handshakes or self._handshaking[block] >= self._limits.handshakes_per_source:
            return
        connection = None
        if in_progress >= self._limits.cookies_above:
            connection, answer = self._gate.feed(source, data)
            if connection is None:
                if answer and known.budget >= len(answer):
                    known.budget -= len(answer)
                    self._send([answer], source)
                return
            known.proved = True

        link = WebRtcLink(
            self._identity,
            self._certificate,
            self._limits,
            _Way(self, known, source),
            (plain_host(source[0]), source[1]),
            server=True,
            route=udp.route_to(source[0]),
            connection=connection,
            budget=self._budget,
        )
        known.link = link
        self._live[known.username] += 1
        self._links[block] += 1
        self._handshaking[block] += 1
        link.on_end = lambda: self._ended(known, source, link)
        if connection is None:
            link.datagram_received(data)
        task = self._loop.create_task(self._handshake(link, block))
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

    def _ended(self, known: _Source, source: Source, link: WebRtcLink) -> None:
        if known.link is not link:
            return
        # The username is not live any more and was first seen long ago: the peer's consent checks go unanswered.
        known.link = None
        self._live[known.username] -= 1
        if self._live[known.username] <= 0:
            del self._live[known.username]
        block = source_block(source[0])
        self._links[block] -= 1
        if self._links[block] <= 0:
            del self._links[block]
        if self._sources.get(source) is known:
            del self._sources[source]
