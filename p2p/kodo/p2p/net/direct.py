"""WebRTC Direct as a transport: listens for links and dials them over plain UDP.

The dialer proves its way with one STUN binding request, then runs DTLS, SCTP and Noise on a connected socket; there
is no offer, no answer and no candidate, for the address says it all. Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import string
from collections.abc import Callable

from kodo.p2p.core import stun
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, UnreachableError
from kodo.p2p.net import udp
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.listener import WebRtcListener
from kodo.p2p.net.transport import Limits, Link

__all__ = ["WebRtcTransport"]

_ICE_CHARACTERS = string.ascii_letters + string.digits
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
        """Give the address at which a listener on this host and port is reached."""
        return Multiaddr.webrtc_direct(host, port, self._certificate.digest)

    async def listen(
        self, host: str, port: int, identity: Identity, limits: Limits, accept: Callable[[Link], None]
    ) -> WebRtcListener:
        """Listen on one address; see `transport.Transport`."""
        listener = WebRtcListener(identity, self._certificate, limits, accept, self._admits)
        await listener.open(host, port)
        return listener

    async def dial(self, address: Multiaddr, identity: Identity, limits: Limits) -> Link:
        """Dial one address; see `transport.Transport`."""
        loop = asyncio.get_running_loop()
        where = f"{address.host} port {address.port}"
        try:
            host = await _resolve(address)
            sock = udp.connected(host, address.port)
        except OSError as error:
            raise UnreachableError(f"there is no way to {where}: {error.strerror or error}") from error
        inbox: asyncio.Queue[bytes | Exception] = asyncio.Queue(16)

        def before_link(data: bytes | Exception) -> None:
            if not inbox.full():
                inbox.put_nowait(data)

        endpoint = udp.Endpoint(lambda data, _: receive(data), before_link)
        receive: Callable[[bytes], None] = before_link
        transport, _ = await loop.create_datagram_endpoint(lambda: endpoint, sock=sock)
        hello = _Hello(transport.sendto)
        link: WebRtcLink | None = None
        try:
            await self._check(transport, inbox, where)
            link = WebRtcLink(
                identity,
                self._dialling_certificate,
                limits,
                hello.send,
                (udp.plain_host(host), address.port),
                server=False,
                route=udp.route_to(host),
            )
            receive = _demultiplexer(link, hello)
            await link.authenticate(expected_digest=address.certhash)
            if address.peer_id is not None and link.remote_peer != address.peer_id:
                raise IdentityError(f"{where} is {link.remote_peer}, not {address.peer_id} as its address says")
        except BaseException:
            if link is not None:
                await link.aclose()
            transport.close()
            raise
        finally:
            hello.heard()
        link.on_end = transport.close
        return link

    async def _check(
        self, transport: asyncio.DatagramTransport, inbox: asyncio.Queue[bytes | Exception], where: str
    ) -> None:
        """Send binding requests until one is answered; the caller's deadline ends it."""
        password = "".join(secrets.choice(_ICE_CHARACTERS) for _ in range(24))
        client_ufrag = "".join(secrets.choice(_ICE_CHARACTERS) for _ in range(8))
        server_ufrag = stun.UFRAG_PREFIXES[1] + password
        transaction = secrets.token_bytes(12)
        request = stun.binding_request(
            server_ufrag,
            client_ufrag,
            transaction,
            tie_breaker=int.from_bytes(secrets.token_bytes(8), "big"),
            priority=_HOST_PRIORITY,
        )
        wait = _FIRST_RETRY_SECONDS
        while True:
            transport.sendto(request)
            try:
                async with asyncio.timeout(wait):
                    while True:
                        answer = await inbox.get()
                        if isinstance(answer, Exception):
                            raise UnreachableError(f"nobody listens at {where}")
                        try:
                            stun.read_binding_response(answer, transaction, server_ufrag)
                            return
                        except ValueError:
                            continue
            except TimeoutError:
                wait = min(2 * wait, _LAST_RETRY_SECONDS)


class _Hello:
    """Repeats the first datagram until something is heard.

    A busy listener ignores a ClientHello; OpenSSL would repeat it after 1, 2, 4 … seconds, all dialers in step.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._first: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> None:
        self._send(data)
        if self._first is None:
            self._first = data
            self._arm()

    def _arm(self) -> None:
        wait = random.uniform(*_HELLO_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(wait, self._repeat)

    def _repeat(self) -> None:
        self._send(self._first or b"")
        self._arm()

    def heard(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _demultiplexer(link: WebRtcLink, hello: _Hello) -> Callable[[bytes], None]:
    def receive(data: bytes) -> None:
        if stun.is_dtls(data):
            hello.heard()
            link.datagram_received(data)

    return receive


async def _resolve(address: Multiaddr) -> str:
    if address.family != "dns4":
        return address.host
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    return str(found[0][4][0])
