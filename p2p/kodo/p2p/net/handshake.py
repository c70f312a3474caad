"""How a link is set up: DTLS, then SCTP, then Noise XX on channel 0, which proves both peer ids.

Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from kodo.p2p.core import sctp
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import IdentityError
from kodo.p2p.net.authentication import Authentication
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.dtls import Dtls

__all__ = ["NOISE_CHANNEL", "LinkHandshake"]

NOISE_CHANNEL = 0
NOISE_END_SECONDS = 5.0
"""When a listener closes the handshake's channel if the dialer has not."""


class LinkHandshake:
    """The handshake of one link.

    Args:
        dialled: whether this side dialled; the other one is the DTLS server.
        send_datagrams: sends datagrams to the peer.
        flush_soon: has what the association wants sent go soon.
    """

    def __init__(
        self,
        identity: Identity,
        certificate: Certificate,
        dtls: Dtls,
        association: sctp.Association,
        *,
        dialled: bool,
        send_datagrams: Callable[[list[bytes]], None],
        flush_soon: Callable[[], None],
    ) -> None:
        self.expected_digest: bytes | None = None
        """SHA-256 that the peer's DTLS certificate has to have, `bytes[32]`; None: anything."""
        self.same_process = False
        """Whether the peer, once proved, is in this process, too."""
        self._identity = identity
        self._certificate = certificate
        self._dtls = dtls
        self._sctp = association
        self._dialled = dialled
        self._send_datagrams = send_datagrams
        self._flush_soon = flush_soon
        self._loop = asyncio.get_running_loop()
        self._authentication: Authentication | None = None
        self._noise_end: asyncio.TimerHandle | None = None

    def step(self, datagram: bytes | None) -> None:
        """Take a datagram of the DTLS handshake, or begin it; once that is over the association connects.

        Raises:
            IdentityError: the peer's certificate is not the expected one.
        """
        if self._dtls.finished:
            return
        if answers := self._dtls.step(datagram):
            self._send_datagrams(answers)
        if self._dtls.finished:
            expected = self.expected_digest
            if expected is not None and not hmac.compare_digest(self._dtls.remote_digest, expected):
                raise IdentityError("the DTLS certificate is not the one that the address names")
            self._sctp.open_channel(channel_id=NOISE_CHANNEL, negotiated=True)
            self._sctp.connect(self._loop.time())

    def authenticate(self) -> None:
        """Begin Noise: the association is established."""
        self._authentication = Authentication(
            self._identity,
            server=not self._dialled,
            local_digest=self._certificate.digest,
            remote_digest=self._dtls.remote_digest,
        )
        for message in self._authentication.begin():
            self._sctp.send(NOISE_CHANNEL, message)

    def message_received(self, data: bytes) -> PeerId | None:
        """Take bytes of the handshake's channel; return the peer id that they proved, once.

        Raises:
            PeerError: the other side broke the handshake off, or its rules.
        """
        handshake = self._authentication
        if handshake is None:
            return None
        for message in handshake.feed(data):
            self._sctp.send(NOISE_CHANNEL, message)
        peer = handshake.proved()
        if peer is not None:
            self.same_process = handshake.same_process
            self._authentication = None
        return peer

    def end(self) -> None:
        """Close the handshake's channel, whose id streams need: the link is open."""
        if self._dialled:
            self._sctp.close_channel(NOISE_CHANNEL)
        else:
            # Closed at once, the channel's end may overtake the last handshake message inside the other side.
            self._noise_end = self._loop.call_later(NOISE_END_SECONDS, self._close_channel)

    def _close_channel(self) -> None:
        self._noise_end = None
        self._sctp.close_channel(NOISE_CHANNEL)
        self._flush_soon()

    def forget_channel(self) -> None:
        """Leave channel 0 alone: it is closed, and its id free for a stream, or the link is over."""
        if self._noise_end is not None:
            self._noise_end.cancel()
            self._noise_end = None
