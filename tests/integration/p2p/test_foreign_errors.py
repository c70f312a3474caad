"""An error that nobody expects, wherever a datagram leads, ends the link that it came on and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kodo.p2p.core.sctp import Association
from kodo.p2p.errors import KodoError
from kodo.p2p.net import listener as listener_module
from kodo.p2p.net.authentication import Authentication
from kodo.p2p.net.calls import request
from kodo.p2p.net.certificate import CookieGate
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.dtls import Dtls
from kodo.p2p.net.host import Host
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.session import Session
from kodo.p2p.net.stream import Stream
from kodo.p2p.net.transport import Limits
from tests.support.peers import STRANGER, Pair, make_pair

ERRORS = (ValueError, OSError, MemoryError, AssertionError)
BEGINNING = [
    (Dtls, "step"),
    (Dtls, "timeout"),
    (Dtls, "decrypt"),
    (Dtls, "encrypt"),
    (Association, "receive_datagrams"),
    (Dtls, "rest"),
    (Association, "receive_datagram"),
    (Association, "next_event"),
    (Association, "datagrams_to_send"),
    (Association, "get_timer"),
    (Association, "connect"),
    (Authentication, "begin"),
    (Authentication, "feed"),
    (Authentication, "proved"),
    (CookieGate, "feed"),
    (WebRtcLink, "flush"),
    (WebRtcLink, "datagram_received"),
]
"""What a datagram may lead to before the peer is known, by class and method."""
LATER = [
    (Dtls, "decrypt"),
    (Dtls, "encrypt"),
    (Association, "receive_datagrams"),
    (Dtls, "rest"),
    (Association, "receive_datagram"),
    (Association, "next_event"),
    (Association, "datagrams_to_send"),
    (Association, "get_timer"),
    (Association, "take_probe"),
    (Association, "consumed"),
    (Stream, "message_received"),
    (Stream, "_send_outbox"),
    (Session, "channel_opened"),
    (WebRtcLink, "flush"),
]
"""The same in a session."""


class Guarded:
    """A pair with an honest session, in which what is not the honest session's may be made to fail."""

    def __init__(self, pair: Pair, honest: Session) -> None:
        self.pair = pair
        self.honest = honest
        self.escaped: list[dict[str, Any]] = []
        self.raised = 0
        [server] = pair.server.sessions
        listeners: Any = pair.server._listeners
        self._contexts = [listeners[0]._certificate.context, listeners[0]._gate._context]
        self._safe: set[int] = set()
        self.spare(server, honest)

    def spare(self, *sessions: Session) -> None:
        for session in sessions:
            link: Any = session._link
            self._safe |= {id(session), id(link), id(link._dtls), id(link._sctp)}

    def fail(self, patch: pytest.MonkeyPatch, owner: type, name: str, error: type[Exception]) -> None:
        """Let `owner.name` raise, but for the honest session and whoever dials."""
        real = getattr(owner, name)

        def failing(this: Any, *arguments: Any, **named: Any) -> Any:
            parts = [this, getattr(this, "session", None), getattr(getattr(this, "session", None), "_link", None)]
            server = getattr(this, "_server", not getattr(this, "dialled", False))
            if any(id(part) in self._safe for part in parts) or self._dials(this) or not server:
                return real(this, *arguments, **named)
            self.raised += 1
            raise error("not expected")

        patch.setattr(owner, name, failing)

    def _dials(self, this: Any) -> bool:
        if isinstance(this, Association):
            return this._channels._fresh % 2 == 0
        return isinstance(this, Dtls) and this._connection.get_context() not in self._contexts


@pytest.fixture
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[Guarded]:
    limits = Limits(cookies_above=getattr(request, "param", 32), handshake_s=1.0)
    async with asyncio.timeout(60), make_pair("webrtc", server_limits=limits) as pair:
        honest = await pair.client.connect(pair.addresses)
        guarded = Guarded(pair, honest)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: guarded.escaped.append(context))
        yield guarded
        loop.set_exception_handler(None)


async def works(guarded: Guarded) -> None:
    assert await request_of(guarded.honest) == {"a": 1}
    assert guarded.escaped == []


async def request_of(session: Session) -> Any:
    return await request(session, "echo", {"a": 1})


@pytest.mark.parametrize(
    ("guarded", "owner", "name"),
    [(0 if owner is CookieGate else 32, owner, name) for owner, name in BEGINNING],
    ids=[f"{owner.__name__}.{name}" for owner, name in BEGINNING],
    indirect=["guarded"],
)
async def test_an_error_in_a_handshake_ends_it_and_nothing_else(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    with monkeypatch.context() as patch:
        guarded.fail(patch, owner, name, ERRORS[BEGINNING.index((owner, name)) % len(ERRORS)])
        async with Host(STRANGER, WebRtcTransport()) as stranger:
            with contextlib.suppress(KodoError):
                await stranger.connect(guarded.pair.addresses[:1], timeout=0.2)
            await works(guarded)
    async with Host(STRANGER, WebRtcTransport()) as stranger:
        assert await request_of(await stranger.connect(guarded.pair.addresses[:1], timeout=20)) == {"a": 1}
    await works(guarded)


@pytest.mark.parametrize(("owner", "name"), LATER, ids=[f"{owner.__name__}.{name}" for owner, name in LATER])
async def test_an_error_in_a_session_ends_it_and_nothing_else(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    async with Host(STRANGER, WebRtcTransport()) as stranger:
        session = await stranger.connect(guarded.pair.addresses[:1], timeout=20)
        assert await request_of(session) == {"a": 1}
        guarded.spare(session)
        with monkeypatch.context() as patch:
            guarded.fail(patch, owner, name, RuntimeError)
            with contextlib.suppress(KodoError):
                await request(session, "echo", {"a": 2}, timeout=0.2)
            await works(guarded)
            assert guarded.raised
        await works(guarded)


@pytest.mark.parametrize("name", ["read_binding_request", "binding_response", "is_stun"])
async def test_an_error_over_a_datagram_of_nobody_is_passed_over(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def failing(*arguments: Any, **named: Any) -> Any:
        raise IndexError("not expected")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(listener_module.stun, name, failing)
        async with Host(STRANGER, WebRtcTransport()) as stranger:
            with contextlib.suppress(KodoError):
                await stranger.connect(guarded.pair.addresses[:1], timeout=0.2)
        await works(guarded)
    assert "IndexError was not expected" in caplog.text
