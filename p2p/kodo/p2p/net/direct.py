"""WebRTC Direct as a transport: listens for links and dials them over plain UDP.

The dialer proves its way with one STUN binding request, then runs DTLS, SCTP and Noise on a connected socket; there
is no offer, no answer and no candidate, for the address says it all. A listener that is a full ICE agent checks the
dialer in turn, and is answered. Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable

from kodo.p2p.core import stun
from kodo.p2p.core.hosts import plain_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, UnreachableError
from kodo.p2p.net import udp
from kodo.p2p.net.budget import shared_budget
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.listener import WebRtcListener
from kodo.p2p.net.transport import Limits, Link

__all__ = ["WebRtcTransport"]

_HELLO_SECONDS = (0.15, 0.45)
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 1.0
_HOST_PRIORITY = (126 << 24) | (65535 << 8) | 255
"""ICE's priority of a host candidate (RFC 8445, 5.1.2)."""


class WebRtcTransport:
    """Dials and listens.

    Args:
        certificate: what listeners show; dialers show one of their own that lives as long as the process, so that
            a passive watcher cannot tell a user by it.
        admits: whether packets from an IP address are answered at all.
    """

    def __init__(self, certificate: Certificate | None = None, *, admits: Callable[[str], bool] = lambda host: True):
        self._certificate = certificate or Certificate.generate()
        self._dialling_certificate = Certificate.generate()
        self._admits = admits

    def address_for(self, host: str, port: int) -> Multiaddr:
        """Return the address at which a listener on this host and port is reached."""
        return Multiaddr.webrtc_direct(host, port, self._certificate.digest)

    async def listen(
        self, host: str, port: int, identity: Identity, limits: Limits, accept: Callable[[Link], None]
    ) -> WebRtcListener:
        """Listen on one address; see `transport.Transport`."""
        listener = WebRtcListener(
            identity,
            self._certificate,
            limits,
            accept,
            self._admits,
            budget=shared_budget(limits.kept_bytes, limits.kept_bytes_per_source),
        )
        await listener.open(host, port)
        return listener

    async def dial(self, address: Multiaddr, identity: Identity, limits: Limits) -> Link:
        """Dial one address; see `transport.Transport`."""
        where = f"{address.host} port {address.port}"
        try:
            host = await _resolve(address)
            sock = udp.connected(host, address.port)
        except OSError as error:
            raise UnreachableError(f"{where} cannot be reached: {error.strerror or error}") from error
        dialling = _Dialling(sock)
        link: WebRtcLink | None = None
        try:
            await self._check(dialling, where)
            link = WebRtcLink(
                identity,
                self._dialling_certificate,
                limits,
                dialling,
                (plain_host(host), address.port),
                server=False,
                route=udp.route_to(host),
                budget=shared_budget(limits.kept_bytes, limits.kept_bytes_per_source),
            )
            dialling.link = link
            await link.authenticate(expected_digest=address.certhash)
            if address.peer_id is not None and link.remote_peer != address.peer_id:
                raise IdentityError(f"{where} is {link.remote_peer}, not {address.peer_id} as its address says")
        except BaseException:
            if link is not None:
                await link.aclose()
            dialling.close()
            raise
        link.on_end = dialling.close
        return link

    async def _check(self, dialling: _Dialling, where: str) -> None:
        """Send binding requests until one is answered; the caller's deadline ends it."""
        password = secrets.token_hex(16)  # letters and digits, as ICE wants them
        # One ufrag for both sides: a listener that is a full ICE agent expects the dialer's to be its own.
        ufrag = stun.UFRAG_PREFIXES[1] + password
        transaction = secrets.token_bytes(12)
        request = stun.binding_request(
            ufrag,
            ufrag,
            transaction,
            tie_breaker=int.from_bytes(secrets.token_bytes(8), "big"),
            priority=_HOST_PRIORITY,
        )
        wait = _FIRST_RETRY_SECONDS
        while True:
            dialling.endpoint.send([request])
            try:
                async with asyncio.timeout(wait):
                    while True:
                        answer = await dialling.inbox.get()
                        if isinstance(answer, Exception):
                            raise UnreachableError(f"nobody listens at {where}")
                        try:
                            stun.read_binding_response(answer, transaction, ufrag)
                            return
                        except ValueError:
                            continue
            except TimeoutError:
                wait = min(2 * wait, _LAST_RETRY_SECONDS)


class _Dialling:
    """The socket of one link, from the first binding request to the end.

    It repeats the first DTLS datagram until something is heard: a busy listener ignores a ClientHello, and OpenSSL
    would repeat it after 1, 2, 4 … seconds, all dialers in step.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.inbox: asyncio.Queue[bytes | Exception] = asyncio.Queue(16)
        self.link: WebRtcLink | None = None
        self.endpoint = Endpoint(sock, self._received, self._batch_ended, self._failed)
        self._loop = asyncio.get_running_loop()
        self._hello: list[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _received(self, data: bytes, source: Source) -> None:
        if stun.is_binding_request(data):
            self._answer(data, source)
        elif self.link is None:
            if not self.inbox.full():
                self.inbox.put_nowait(data)
        elif stun.is_dtls(data):
            self._stop_repeating()
            self.link.datagram_received(data)

    def _answer(self, data: bytes, source: Source) -> None:
        """Answer the check of a listener that is a full ICE agent, as js-libp2p's is."""
        try:
            answer = stun.binding_response(stun.read_binding_request(data), source)
        except ValueError:
            return
        self.endpoint.send([answer])
        if self.link is not None:
            self.link.heard()

    def _batch_ended(self) -> None:
        if self.link is not None:
            self.link.flush()

    def _failed(self, error: OSError) -> None:
        if self.link is None and not self.inbox.full():
            self.inbox.put_nowait(error)

    def send(self, datagrams: list[bytes]) -> None:
        """Send a batch of the link."""
        self.endpoint.send(datagrams)
        if self._hello is None:
            self._hello = datagrams
            self._repeat_later()

    def send_whole(self, datagram: bytes) -> bool:
        """Send a datagram of the link that is not to be fragmented."""
        return self.endpoint.send_whole(datagram)

    def send_split(self, datagrams: list[bytes]) -> None:
        """Send datagrams of the link that may be fragmented."""
        self.endpoint.send_split(datagrams)

    def _repeat_later(self) -> None:
        self._timer = self._loop.call_later(random.uniform(*_HELLO_SECONDS), self._repeat)

    def _repeat(self) -> None:
        self.endpoint.send(self._hello or [])
        self._repeat_later()

    def _stop_repeating(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._stop_repeating()
        self.endpoint.close()


async def _resolve(address: Multiaddr) -> str:
    if address.family != "dns4":
        return address.host
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    return str(found[0][4][0])
