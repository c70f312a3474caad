"""Links that carry bare data channels, for partners that speak WebRTC and not libp2p, in either role.

We are an ICE-lite agent whose ufrag is its password, so that a partner needs nothing of us but an answer that the
test writes; the partner offers. As DTLS server (`echo_server`) we echo what comes on the partner's channels, as DTLS
client (`RawDialler`) we open channels to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from kodo.p2p.core import stun
from kodo.p2p.core.identity import Identity
from kodo.p2p.net import listener as listener_module
from kodo.p2p.net import udp
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.listener import WebRtcListener
from kodo.p2p.net.transport import Channel, Limits, Link


class RawLink(WebRtcLink):
    """A link that is ready when its association is: no Noise."""

    def _begin_authentication(self) -> None:
        self.remote_peer = self.local_peer
        self._sctp.admit()
        if not self._ready.done():  # who waited for it may have given up
            self._ready.set_result(None)


class Echo:
    """Sends back every message of one channel, as fast as it is taken."""

    def __init__(self, channel: Channel, messages: list[int]) -> None:
        self._channel = channel
        self._messages = messages

    def message_received(self, message: bytes) -> None:
        self._messages.append(len(message))
        self._channel.send(message)
        self._channel.consumed(len(message))

    def channel_closed(self) -> None:
        self._messages.append(-1)


class Measured:
    """One channel of a browser's that measures (`interop/bench.html`): sends or takes as it says."""

    def __init__(self, link: WebRtcLink, channel: Channel) -> None:
        self._link = link
        self._channel = channel
        self._left = 0
        self._sending: asyncio.Task[None] | None = None

    def message_received(self, message: bytes) -> None:
        self._channel.consumed(len(message))
        if len(message) == 9:
            count, size = int.from_bytes(message[1:5], "big"), int.from_bytes(message[5:], "big")
            if message[:1] == b"G":
                self._sending = asyncio.ensure_future(self._send(count, size))
            else:
                self._left = count
        elif self._left == 1:
            self._left = 0
            self._channel.send(b"done")
        else:
            self._left -= 1

    async def _send(self, count: int, size: int) -> None:
        data = bytes(size)
        for _ in range(count):
            await self._link.drained()
            self._channel.send(data)

    def channel_closed(self) -> None:
        if self._sending is not None:
            self._sending.cancel()


class MeasuredServer:
    """Takes the links of one listener, whose channels all measure."""

    def accept(self, link: Link) -> None:
        assert isinstance(link, WebRtcLink)
        self._link = link
        link.start(self)

    def channel_opened(self, channel: Channel) -> Measured:
        return Measured(self._link, channel)

    def link_lost(self, error: Exception) -> None:
        pass


class EchoServer:
    """Takes the links of one listener. `messages` holds the size of each, -1 for the end of a channel."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.lost: list[Exception] = []
        self.messages: list[int] = []

    def accept(self, link: Link) -> None:
        self.links.append(link)
        link.start(self)

    def channel_opened(self, channel: Channel) -> Echo:
        return Echo(channel, self.messages)

    def link_lost(self, error: Exception) -> None:
        self.lost.append(error)


@contextlib.asynccontextmanager
async def raw_listener(
    patch: pytest.MonkeyPatch, accept: Callable[[Link], None]
) -> AsyncIterator[tuple[WebRtcListener, Certificate]]:
    """Listen on loopback for links without Noise."""
    patch.setattr(listener_module, "WebRtcLink", RawLink)
    certificate = Certificate.generate()
    identity = Identity.from_seed(b"e" * 32)
    listener = WebRtcListener(identity, certificate, Limits(queued_out_bytes=64 << 20), accept, lambda _: True)
    await listener.open("127.0.0.1", 0)
    try:
        yield listener, certificate
    finally:
        await listener.aclose()


@contextlib.asynccontextmanager
async def echo_server(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[EchoServer, WebRtcListener, Certificate]]:
    """Run one on loopback."""
    server = EchoServer()
    async with raw_listener(monkeypatch, server.accept) as (listener, certificate):
        yield server, listener, certificate


def answer_to_offer(port: int, certificate: Certificate, *, client: bool) -> str:
    """Write the SDP of an ICE-lite agent at 127.0.0.1; `client` says what we are to DTLS."""
    ufrag = stun.UFRAG_PREFIXES[1] + "a" * 24
    fingerprint = certificate.digest.hex(":").upper()
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=ice-lite",
        "a=group:BUNDLE 0",
        f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 127.0.0.1",
        "a=mid:0",
        "a=ice-options:ice2",
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{ufrag}",
        f"a=fingerprint:sha-256 {fingerprint}",
        f"a=setup:{'active' if client else 'passive'}",
        "a=sctp-port:5000",
        "a=max-message-size:16384",
        f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host",
        "a=end-of-candidates",
        "",
    ]
    return "\r\n".join(lines)


class _Way:
    """The way to one source; see `datachannel.Way`."""

    def __init__(self, endpoint: Endpoint, source: Source) -> None:
        self._endpoint = endpoint
        self._source = source

    def send(self, datagrams: list[bytes]) -> None:
        self._endpoint.send(datagrams, self._source)

    def let_in(self) -> None:
        """Return None: there is no relay."""

    def send_whole(self, datagram: bytes) -> bool:
        return self._endpoint.send_whole(datagram, self._source)

    def send_split(self, datagrams: list[bytes]) -> None:
        self._endpoint.send_split(datagrams, self._source)

    def room(self) -> int | None:
        return None

    def proved(self) -> None:
        pass


class RawDialler:
    """Waits for the partner's first check, then is its DTLS client. `link` is there once it is ready."""

    def __init__(self, certificate: Certificate, limits: Limits) -> None:
        self.link: asyncio.Future[RawLink] = asyncio.get_running_loop().create_future()
        self._identity = Identity.from_seed(b"d" * 32)
        self._certificate = certificate
        self._limits = limits
        self._link: RawLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._endpoint = Endpoint(udp.bind("127.0.0.1", 0), self._received, self._batch_ended)

    @property
    def port(self) -> int:
        return self._endpoint.address[1]

    def _received(self, data: bytes, source: Source) -> None:
        if self._link is not None and stun.is_dtls(data):
            self._link.datagram_received(data)
        elif stun.is_binding_request(data):
            self._endpoint.send([stun.binding_response(stun.read_binding_request(data), source[:2])], source)
            if self._task is None:
                self._task = asyncio.ensure_future(self._connect(source))

    async def _connect(self, source: Source) -> None:
        self._link = RawLink(
            self._identity,
            self._certificate,
            self._limits,
            _Way(self._endpoint, source),
            source[:2],
            server=False,
            route="lan",
        )
        await self._link.authenticate()
        self.link.set_result(self._link)

    def _batch_ended(self) -> None:
        if self._link is not None:
            self._link.flush()

    async def aclose(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._link is not None:
            await self._link.aclose()
        self._endpoint.close()


@contextlib.asynccontextmanager
async def raw_dialler() -> AsyncIterator[tuple[RawDialler, Certificate]]:
    """Run one on loopback."""
    certificate = Certificate.generate()
    dialler = RawDialler(certificate, Limits(queued_out_bytes=64 << 20))
    try:
        yield dialler, certificate
    finally:
        await dialler.aclose()


class Ping:
    """Sends random messages on a channel of its own, takes back what is echoed, and closes the channel."""

    def __init__(self, link: WebRtcLink, seed: int) -> None:
        self._link = link
        self._chance = random.Random(seed)
        self._back: list[bytes] = []
        self._changed = asyncio.Event()
        self.closed = False

    def message_received(self, message: bytes) -> None:
        self._back.append(message)
        self._channel.consumed(len(message))
        self._changed.set()

    def channel_closed(self) -> None:
        self.closed = True
        self._changed.set()

    async def run(self, count: int, size: int) -> tuple[int, int, str, str]:
        """Give the channel's id, the bytes that came back, and the SHA-256 of what went and of what came."""
        self._channel = self._link.open_channel(self)
        sent = hashlib.sha256()
        for _ in range(count):
            data = self._chance.randbytes(size)
            sent.update(data)
            await self._link.drained()
            self._channel.send(data)
        while len(self._back) < count and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        back = b"".join(self._back)
        self._channel.close()
        while not self.closed:
            self._changed.clear()
            await self._changed.wait()
        return self._channel.id, len(back), sent.hexdigest(), hashlib.sha256(back).hexdigest()
