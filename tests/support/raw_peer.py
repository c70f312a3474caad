"""A listener whose links carry bare data channels, for partners that do not speak libp2p: it echoes what it gets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.net import listener as listener_module
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.listener import WebRtcListener
from kodo.p2p.net.transport import Channel, Limits, Link


class RawLink(WebRtcLink):
    """A link that is ready when its association is: no Noise."""

    def _begin_noise(self) -> None:
        self.remote_peer = self.local_peer
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
async def echo_server(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[EchoServer, WebRtcListener, Certificate]]:
    """Run one on loopback."""
    monkeypatch.setattr(listener_module, "WebRtcLink", RawLink)
    server, certificate = EchoServer(), Certificate.generate()
    identity = Identity.from_seed(b"e" * 32)
    listener = WebRtcListener(identity, certificate, Limits(queued_out_bytes=64 << 20), server.accept, lambda _: True)
    await listener.open("127.0.0.1", 0)
    try:
        yield server, listener, certificate
    finally:
        for link in server.links:
            await link.aclose()
        await listener.aclose()
