"""One WebRTC Direct link: an authenticated connection to one peer that carries channels.

`handshake` sets it up: DTLS, SCTP, Noise, which proves both peer ids; nothing else is looked at before. The link is
the thin I/O shell of `core.sctp`: datagrams go in, what the association wants sent goes out in one batch, one timer
is armed. Source: libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial

from OpenSSL import SSL

from kodo.p2p.core import sctp
from kodo.p2p.core.hosts import source_block
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import BrokenSessionError, KodoError, LocallyClosedError, RemotelyClosedError, afresh
from kodo.p2p.net.budget import Budget
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.channels import CLOSING_CHANNELS, EARLY_CHANNELS, LinkChannels
from kodo.p2p.net.dtls import Dtls, record_number
from kodo.p2p.net.handshake import NOISE_CHANNEL, LinkHandshake
from kodo.p2p.net.transport import Channel, ChannelHandler, Limits, LinkHandler
from kodo.p2p.net.turns import for_nobody, line_of, line_of_account
from kodo.p2p.net.unexpected import as_ours, tell
from kodo.p2p.net.waiting_datagrams import WaitingDatagrams
from kodo.p2p.net.ways import OverRelay, Stray, Way

__all__ = ["WebRtcLink"]

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 1.0
_EVENTS_A_LOOK = 16
"""Events delivered between two looks at the clock."""
WRITE_AHEAD_BYTES = 1 << 20
"""Output that one link queues before writers wait. Channels take turns, so it does not delay the others."""
ROUNDS = 4
"""Batches that one link sends before others have their turn."""
TURN_SECONDS = 0.001
"""Time that one link takes for what came before others have their turn; what is left waits, in its own queue."""
TOGETHER = 32
"""Datagrams that are taken before what they say is delivered."""


class WebRtcLink:
    """One WebRTC Direct link. Make it, feed it datagrams, `await authenticate()`, then `start`.

    Args:
        way: carries datagrams to the peer.
        connection: the DTLS connection that passed the cookie gate, if there was one.
        budget: what this link and others may keep together; one of its own if None.
    """

    def __init__(
        self,
        identity: Identity,
        certificate: Certificate,
        limits: Limits,
        way: Way,
        remote_address: tuple[str, int],
        *,
        server: bool,
        route: str,
        connection: SSL.Connection | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.local_peer = identity.peer_id
        self.remote_peer: PeerId
        self.remote_address = remote_address
        self.route = route
        self.dialled = not server
        self.admitted = False
        self.full = False
        self.on_end: Callable[[], None] = lambda: None
        self._limits = limits
        self._way = way
        self._send_datagrams = way.send
        self._loop = asyncio.get_running_loop()
        self._source = source = source_block(remote_address[0])
        self._of_account: str | None = None
        self.context = line_of(self._loop, source) if server else None
        """What is done for a peer that came to us is done in this context: its source waits for its turn."""
        self._later = self.context if server else for_nobody()
        self._last_heard = self._loop.time()
        self._newest = b""  # the number of the newest record that came
        self._dtls = Dtls(certificate, server=server, connection=connection)
        self._sctp = sctp.Association(
            client=not server,
            tag=secrets.randbelow(0xFFFFFFFF) + 1,
            initial_tsn=secrets.randbits(32),
            cookie_secret=os.urandom(32),
            settings=sctp.Settings(
                window=limits.unread_bytes,
                max_channels=limits.streams + 2 * CLOSING_CHANNELS,
                early_channels=1 + EARLY_CHANNELS,
            ),
        )
        self._handshake = LinkHandshake(
            identity,
            certificate,
            self._dtls,
            self._sctp,
            dialled=self.dialled,
            send_datagrams=way.send,
            flush_soon=self._flush_soon,
        )
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._channels = LinkChannels(self, self._sctp, limits, self._authenticate)
        self._drained = asyncio.Event()
        self._drained.set()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Handle | None = None
        self._delivery: asyncio.Handle | None = None
        self._error: Exception | None = None
        self._closing = False
        self._writers: list[Callable[[], None]] = []
        self._waiting = WaitingDatagrams()
        self._kept_by_readers = 0
        self._account = (budget or Budget()).open(source, self._cut)
        self._behind = False
        """Whether the last turn left something of what came for the next."""
        self._farewell: RemotelyClosedError | None = None
        """What ends the link once everything that came before it is delivered."""
        self._delivering = False
        """While events are delivered no flush is scheduled: it comes behind the readers that they wake."""

    # datagrams

    @property
    def last_heard(self) -> float:
        """When the peer was last heard; see `transport.Link`."""
        return self._last_heard

    @property
    def same_process(self) -> bool:
        """Whether the peer is in this process, too; see `transport.Link`."""
        return self._handshake.same_process

    @property
    def account(self) -> str | None:
        """See `transport.Link`."""
        return self._of_account

    @account.setter
    def account(self, account: str | None) -> None:
        if account != self._of_account and self.context is not None:
            self._of_account, turn = account, line_of if account is None else line_of_account
            self.context = self._later = self.context.copy().run(turn, self._loop, account or self._source)

    @property
    def encrypted(self) -> bool:
        """Whether DTLS is over its handshake: the other side has seen what was sent to it."""
        return self._dtls.finished

    @property
    def awaits(self) -> bool:
        """Whether anything may be coming or going: a channel is open, or something is not acknowledged."""
        return len(self._channels) > 0 or self._sctp.queued > 0

    @property
    def settled(self) -> bool:
        """Whether the peer has proved who it is, so that the link may take another path."""
        return self._ready.done() and self._error is None

    def heard(self) -> None:
        """Note a sign of life that is no datagram of the link, such as a consent check."""
        self._last_heard = self._loop.time()

    def datagram_received(self, datagram: bytes, proved: Callable[[], None] = lambda: None) -> None:
        """Take one DTLS datagram, and call `proved` if keys show that it is the peer's; `flush` after a batch."""
        if self._error is not None:
            return
        finished = self._dtls.finished
        if finished or self.context is not None:
            self._waiting.put(datagram, proved, encrypted=finished)
            return
        self._step(datagram)

    def _step(self, datagram: bytes) -> None:
        self._last_heard = self._loop.time()
        try:
            self._handshake.step(datagram)
        except Exception as error:
            self.fail(error)

    def receive_stray(self, datagram: bytes) -> Stray:
        """Take a datagram from elsewhere that may be the peer's; if it is, call `flush` as after any other."""
        number = record_number(datagram)
        if not number or not self.settled:
            return Stray.FOREIGN
        try:
            payload = self._dtls.decrypt(datagram)
            if not payload:
                return Stray.FOREIGN
            self._last_heard = now = self._loop.time()
            self._sctp.receive_datagram(payload, now)
        except Exception as error:
            self.fail(error)
            return Stray.LATE
        before, self._newest = self._newest, max(number, self._newest)
        return Stray.NEWEST if number > before else Stray.LATE

    def moved(self, remote_address: tuple[str, int], route: str) -> None:
        """Note that the way leads elsewhere from now on; what is known of the old path is forgotten."""
        self.remote_address, self.route = remote_address, route
        if self._error is None:
            self._sctp.change_path(self._loop.time(), os.urandom(16))
            self._flush_soon()

    def _take_waiting(self) -> None:
        """Take what came and deliver it, for `TURN_SECONDS` at most; the rest has its turn after the other links."""
        clock, waiting = self._loop.time, self._waiting
        until = (now := clock()) + TURN_SECONDS
        while self._deliver_events(until):
            if self._farewell is not None:
                raise self._farewell
            if not waiting:
                break
            self._take_together(now)
            if (now := clock()) >= until:
                break
        self._behind = bool(waiting) or self._sctp.has_event or self._farewell is not None

    def _take_together(self, now: float) -> None:
        """Take the first `TOGETHER` datagrams of what came."""
        decrypt, rest, waiting = self._dtls.decrypt, self._dtls.rest, self._waiting
        payloads: list[bytes] = []
        try:
            for _ in range(min(len(waiting), TOGETHER)):
                datagram, proved = waiting.take()
                payload = decrypt(datagram)
                if payload:
                    proved()
                    self._newest = max(record_number(datagram), self._newest)
                    while payload:
                        payloads.append(payload)
                        # One that came before the handshake was over is read first, also of other datagrams.
                        payload = rest()
                elif unsent := self._dtls.unsent():
                    self._send_datagrams(unsent)
        except RemotelyClosedError as error:
            self._farewell = error
        if payloads:
            self._last_heard = now
            self._sctp.receive_datagrams(payloads, now)

    def flush(self) -> None:
        """Deliver what came, at once or when it is the source's turn; until then it counts as kept.

        What is sent because of it goes in the next turn of the loop: an answer that its reader gives at once then
        goes in one packet with the acknowledgement of what it answers.
        """
        if self.context is None:
            self._deliver()
            return
        self._count_kept()
        if self._delivery is None and self._error is None:
            self._delivery = self._loop.call_soon(self._deliver, context=self.context)

    def _deliver(self) -> None:
        self._delivery = None
        while self._waiting and not self._dtls.finished:
            self._step(self._waiting.take()[0])
        if not self._dtls.finished:
            self._count_kept()
            self._arm()
            return
        if not self._behind:
            self._delivering = True
            try:
                self._take_waiting()
            except Exception as error:
                self.fail(error)
            finally:
                self._delivering = False
        self._count_kept()
        if self._channels.handler is None:
            self._flush_now()  # nobody reads yet
        else:
            self._flush_soon()

    def _flush_now(self) -> None:
        """Deliver what was left, send what may go, arm the timer."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._error is not None:
            return
        self._write()
        if not self._dtls.finished:
            self._arm()
            return
        try:
            if self._behind:
                self._take_waiting()
            encrypt = self._dtls.encrypt
            if (
                self._way.room() is None
                and (probe := self._sctp.take_probe(self._loop.time()))
                and not self._way.send_whole(encrypt(probe))
            ):
                self._sctp.probe_refused()
            for _ in range(ROUNDS):
                packets = self._sctp.datagrams_to_send(self._loop.time(), self._way.room())
                if not packets:
                    break
                datagrams = [encrypt(packet) for packet in packets]
                if max(map(len, packets)) <= self._sctp.mtu:
                    self._send_datagrams(datagrams)
                else:
                    self._way.send_split(datagrams)
            else:
                self._flush_soon()
            if self._behind:
                self._flush_soon()
        except Exception as error:
            self.fail(error)
        self._count_kept()
        self._arm()

    def _flush_soon(self) -> None:
        """Flush in the next turn of the loop: what is sent until then goes along."""
        if self._flushing is None and self._error is None and not self._delivering:
            self._flushing = self._loop.call_soon(self._flush_now, context=self._later)

    def _arm(self) -> None:
        """Set the timer for when something is due, or earlier: moving it for each packet would cost more."""
        if self._error is not None:
            return
        try:
            due = self._due()
        except Exception as error:
            self.fail(error)
            return
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._timer_due, context=self._later)

    def _due(self) -> float | None:
        if self._dtls.finished:
            return self._sctp.get_timer()
        seconds = self._dtls.timeout()
        return None if seconds is None else self._loop.time() + seconds

    def _timer_due(self) -> None:
        self._timer = None
        if self._error is not None:
            return
        try:
            if self._dtls.finished:
                self._sctp.handle_timer(self._loop.time())
            elif repeated := self._dtls.handle_timeout():
                self._send_datagrams(repeated)
        except Exception as error:
            self.fail(error)
            return
        if self.context is None:
            self._flush_now()
        else:
            self._flush_soon()

    # handshake

    async def authenticate(self, *, expected_digest: bytes | None = None) -> None:
        """Run DTLS, SCTP and Noise. The caller sets the deadline; after an error call `aclose`.

        Raises:
            IdentityError: the other side is somebody else.
            PeerError: it broke the protocol.
            NetworkError: it went away.
        """
        self._handshake.expected_digest = expected_digest
        try:
            self._handshake.step(None)
        except Exception as error:
            self.fail(error)
        self._flush_now()
        await self._ready

    def _begin_authentication(self) -> None:
        self._handshake.authenticate()

    def _authenticate(self, data: bytes) -> None:
        peer = self._handshake.message_received(data)
        if peer is None or self._ready.done():
            return  # who waited for it may have given up
        self.remote_peer = peer
        self._sctp.admit()
        self._ready.set_result(None)
        self._handshake.end()

    # what the association says

    def _deliver_events(self, until: float) -> bool:
        """Deliver what the association says; False when `until` has passed before its end, or the link is over."""
        delivered = 0
        while self._error is None and (event := self._sctp.next_event()) is not None:
            match event:
                case sctp.MessageReceived():
                    self._channels.message(event)
                case sctp.Drained():
                    self._check_drained()
                case sctp.ChannelOpened():
                    self._channels.opened(event.channel_id)
                case sctp.ChannelClosed():
                    self._closed(event.channel_id)
                case sctp.Established():
                    self._begin_authentication()
                case sctp.PathProved():
                    self._way.proved()
                case sctp.Ended():
                    self.fail(event.error)
            delivered += 1
            if not delivered % _EVENTS_A_LOOK and self._loop.time() >= until:
                return False
        return self._error is None

    def _closed(self, channel_id: int) -> None:
        if channel_id == NOISE_CHANNEL:
            self._handshake.forget_channel()
        self._channels.closed(channel_id)

    def fail(self, error: Exception) -> None:
        """End the link because of `error`, ours or a library's, which nobody else learns of; the first one counts."""
        if self._error is not None:
            return
        error = as_ours(error, self.remote_address[0])
        self._end(error)
        if self._channels.handler is not None:
            tell(partial(self._channels.handler.link_lost, error), self.remote_address[0])

    def _count_kept(self) -> None:
        self._account.keeps(self._sctp.kept + self._waiting.bytes + self._kept_by_readers)

    def _cut(self) -> None:
        """End the link because it keeps more than others that keep too much together."""
        if self._error is None:
            kept = self._account.bytes >> 20
            logger.warning("a session with %s is ended: it keeps %d MiB in memory", self.remote_address[0], kept)
            with contextlib.suppress(Exception):
                self._say_goodbye()
            self.fail(BrokenSessionError("the session kept too much in memory beside others, and was ended here"))

    def _end(self, error: Exception) -> None:
        self._error = error
        self._account.close()
        self._waiting.clear()
        self._handshake.forget_channel()
        for handle in (self._timer, self._flushing, self._delivery):
            if handle is not None:
                handle.cancel()
        self._drained.set()
        self._idle.set()
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whoever waits raises it; nobody may wait
        for channel_id in self._channels:
            tell(partial(self._closed, channel_id), self.remote_address[0])
        tell(self.on_end, self.remote_address[0])

    # transport.Link

    def start(self, handler: LinkHandler) -> None:
        """Begin to deliver; see `transport.Link`."""
        self._channels.start(handler)
        if self._error is not None:
            handler.link_lost(self._error)

    def open_channel(self, handler: ChannelHandler) -> Channel:
        """Open a channel; see `transport.Link`."""
        self._raise_error()
        return self._channels.open(handler)

    def send(self, channel_id: int, message: bytes) -> None:
        """Queue one message of a channel."""
        self._raise_error()
        if self._sctp.queued + len(message) > self._limits.queued_out_bytes:
            self.fail(BrokenSessionError("the other side does not read what is sent to it"))
            self._raise_error()
        self._sctp.send(channel_id, message)
        self._check_drained()
        self._flush_soon()

    def drop_queued(self, channel_id: int) -> None:
        """Forget what is queued on a channel and has not gone."""
        if self._error is None:
            self._sctp.drop_queued(channel_id)
            self._check_drained()

    def close_channel(self, channel_id: int) -> None:
        """Close a channel once what is queued has been sent."""
        if self._error is None:
            self._sctp.close_channel(channel_id)
            self._flush_soon()

    @property
    def queued(self) -> int:
        """Bytes given to `send` and not yet acknowledged."""
        return self._sctp.queued

    def _check_drained(self) -> None:
        """Wake writers, or make them wait."""
        queued = self._sctp.queued
        self.full = queued >= WRITE_AHEAD_BYTES
        if self.full:
            self._drained.clear()
        else:
            self._drained.set()
        if not queued:
            self._idle.set()

    def keep(self, change: int) -> None:
        """Count what readers keep of frames that are not whole; see `transport.Link`."""
        self._kept_by_readers += change
        self._count_kept()

    def before_sending(self, write: Callable[[], None]) -> None:
        """Call `write` before anything more is sent; see `transport.Link`."""
        self._writers.append(write)
        self._flush_soon()

    def _write(self) -> None:
        if self._writers:
            writers, self._writers = self._writers, []
            for write in writers:
                try:
                    write()
                except KodoError as error:
                    logger.debug("a stream's output was not sent: %s", error)  # its channel's end tells it
                except Exception as error:
                    self.fail(error)

    async def drained(self) -> None:
        """Wait until there is room; see `transport.Link`."""
        await self._drained.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise afresh(self._error)

    def consumed(self, count: int) -> None:
        """Open the window again for bytes that the application read."""
        self._channels.unread -= count
        if self._error is None:
            try:
                self._sctp.consumed(count)
            except Exception as error:
                self.fail(error)
            self._flush_soon()

    def let_in(self) -> OverRelay | None:
        """Admit the peer beside its relay; see `transport.Link`."""
        return self._way.let_in()

    def probe(self) -> None:
        """Ask for a sign of life; see `transport.Link`."""
        if self._error is None:
            self._sctp.heartbeat(self._loop.time())
            self._flush_soon()

    async def aclose(self) -> None:
        """Close in an orderly way; see `transport.Link`."""
        if self._closing:
            return
        self._closing = True
        self._write()
        try:
            if self._error is None and self._sctp.queued:
                self._idle.clear()
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._idle.wait()
        except TimeoutError:
            logger.debug("closing with %d bytes unacknowledged", self._sctp.queued)
        finally:
            if self._error is None:
                try:
                    self._say_goodbye()
                except Exception as error:
                    logger.debug("a link was closed without a goodbye: %r", error)
                self._end(LocallyClosedError("this side closed the session"))

    def _say_goodbye(self) -> None:
        if self._dtls.finished:
            self._sctp.abort("closed")
            packets = self._sctp.datagrams_to_send(self._loop.time())
            self._send_datagrams([self._dtls.encrypt(packet) for packet in packets])
        self._send_datagrams(self._dtls.close())
