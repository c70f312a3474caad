"""A session: the authenticated, encrypted connection between two peers, and the streams in it.

Alive means that something was heard: any packet counts. After `ping_after_s` of silence the other side is asked for
a sign of life, after `silence_s` the session is over. What one side does to its streams cannot end the process:
a bad frame ends its stream, a bad packet its session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import BrokenSessionError, CapacityError, KodoError, LocallyClosedError, afresh
from kodo.p2p.net.stream import Stream, StreamHandler
from kodo.p2p.net.transport import Channel, ChannelHandler, Limits, Link
from kodo.p2p.net.turns import for_nobody
from kodo.p2p.net.unexpected import note
from kodo.p2p.net.ways import OverRelay

__all__ = ["Session"]

logger = logging.getLogger(__name__)

NEGOTIATE_SECONDS = 10.0
"""How long an opened stream may take to name its protocol."""
FIN_ACK_SECONDS = 10.0
"""How long a closed stream waits for the other side to say that it got all (js-libp2p's figure)."""
WATCH_SECONDS = 1.0


class Session:
    """A session to one peer; made by `Host`.

    Attributes:
        local_peer, remote_peer: the two peer ids, both proved.
        same_process: whether the peer is in this process, too.
        bindings: what upper layers remember of this session; gone with it.
        error: why the session is over; None while it lives.
    """

    def __init__(
        self,
        link: Link,
        handlers: Mapping[str, StreamHandler],
        limits: Limits,
        ended: Callable[[Session], None],
    ) -> None:
        self.local_peer: PeerId = link.local_peer
        self.remote_peer: PeerId = link.remote_peer
        self.dialled = link.dialled
        self.same_process = link.same_process
        self.bindings: dict[str, Any] = {}
        self.error: KodoError | None = None
        self.now = asyncio.get_running_loop().time
        self._link = link
        self.admitted = True
        self._handlers = handlers
        self._limits = limits
        self._on_end = ended
        self._streams: set[Stream] = set()
        self._over = asyncio.Event()
        self._closed = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # life

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin, as a task of `group`; the host calls it once."""
        self._task = group.create_task(self._run(), context=for_nobody() if self.dialled else None)

    def cancel(self) -> None:
        """End without any ceremony."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    self._link.start(self)
                    self._watch_later()
                    await self._over.wait()
                    for task in self._serving:
                        task.cancel()
                finally:
                    self._group = None  # on its way out it takes no tasks
        except Exception:
            # The host's group is that of all sessions: what fails in one ends this one.
            logger.exception("the session with %s failed", self.remote_peer)
            self.error = self.error or BrokenSessionError("the session ended because of an unexpected error")
        finally:
            self._over.set()
            if self._timer is not None:
                self._timer.cancel()
            self.error = self.error or LocallyClosedError("this session was closed here")
            await self._link.aclose()
            for stream in list(self._streams):
                try:
                    stream.channel_closed()
                except Exception:
                    logger.exception("the end of a %s stream was not taken", stream.protocol)
            self._streams.clear()
            self._closed.set()
            self._on_end(self)

    def _watch_later(self) -> None:
        """Look after silence and overdue streams when there may be any: thousands of sessions are idle at once."""
        seconds = WATCH_SECONDS
        if not self._streams:
            seconds = max(seconds, self._limits.ping_after_s - (self.now() - self._link.last_heard))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._watch)

    def _watch(self) -> None:
        if not self.closed:
            self._check_alive()
            self._check_streams()
            self._watch_later()

    def _add(self, stream: Stream) -> None:
        first = not self._streams
        self._streams.add(stream)
        if first and not self.closed:
            self._watch_later()

    def _check_alive(self) -> None:
        silence = self.now() - self._link.last_heard
        if silence > self._limits.silence_s:
            self.link_lost(BrokenSessionError(f"nothing was heard from {self.remote_peer} for {silence:.0f} s"))
        elif silence > self._limits.ping_after_s:
            self._link.probe()

    def _check_streams(self) -> None:
        now = self.now()
        for stream in list(self._streams):
            if stream.negotiating and now - stream.opened_at > NEGOTIATE_SECONDS:
                stream.expire("the stream named no protocol in time")
            elif (
                stream.unacknowledged_since is not None
                and now - stream.unacknowledged_since > FIN_ACK_SECONDS
                and not self._link.queued
            ):
                stream.expire("the end of the stream was not acknowledged")

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the peer now; it may move."""
        return self._link.remote_address

    @property
    def admitted(self) -> bool:
        """Whether the peer has shown any business here; until then it may open `Limits.early_streams`."""
        return self._link.admitted

    @admitted.setter
    def admitted(self, admitted: bool) -> None:
        self._link.admitted = admitted
        if not admitted:
            self._link.account = None

    @property
    def account(self) -> str | None:
        """The admitted account in whose line the work for this session waits; None: the line of its source."""
        return self._link.account

    @account.setter
    def account(self, account: str | None) -> None:
        self._link.account = account

    @property
    def route(self) -> str:
        """The way that packets take now: `lan`, `direct`, `punched`, `relay` or `memory`."""
        return self._link.route

    def let_in(self) -> OverRelay | None:
        """Admit the peer beside the relay that it comes over; see `transport.Link`."""
        return self._link.let_in()

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self._over.is_set()

    async def wait_closed(self) -> None:
        """Wait until the session is over; `error` then says why. Cancelling is safe."""
        await self._closed.wait()

    async def aclose(self) -> None:
        """Close in an orderly way; idempotent, bounded to a few seconds."""
        if not self.closed:
            self.error = LocallyClosedError("this session was closed here")
            self._over.set()
        await self._closed.wait()

    # streams

    async def open_stream(self, protocol: str) -> Stream:
        """Open a stream; the protocol's name travels with the first bytes that are written.

        Raises:
            CapacityError: too many streams are open.
            NetworkError: the session is over.
        """
        self._raise_error()
        if len(self._streams) >= self._limits.streams:
            raise CapacityError(f"{len(self._streams)} streams are open in this session already")
        stream = Stream(self, protocol)
        stream.attach(self._link.open_channel(stream))
        self._add(stream)
        return stream

    def keep(self, change: int) -> None:
        """Count bytes that readers of streams keep more, or fewer."""
        self._link.keep(change)

    @property
    def full(self) -> bool:
        """Whether a writer should wait with `drained`."""
        return self._link.full

    def before_sending(self, write: Callable[[], None]) -> None:
        """Call `write` once, soon, before anything more is sent."""
        self._link.before_sending(write)

    async def drained(self) -> None:
        """Wait until there is room for more output."""
        await self._link.drained()

    def _raise_error(self) -> None:
        if self.error is not None:
            raise afresh(self.error)

    def stream_ended(self, stream: Stream) -> None:
        """Forget a stream that is over in both directions."""
        self._streams.discard(stream)

    def stream_accepted(self, stream: Stream) -> None:
        """Pass a stream that has named its protocol to the protocol's handler."""
        if self._group is None or self.closed:
            stream.reset()
            return
        task = self._group.create_task(self._serve(stream, self._handlers[stream.protocol]))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, stream: Stream, handler: StreamHandler) -> None:
        try:
            await handler(stream)
        except KodoError as error:
            logger.debug("a %s stream ended: %s", stream.protocol, error)
            self._reset(stream)
        except Exception:
            logger.exception("the handler of %s failed", stream.protocol)
            self._reset(stream)
        except BaseException:
            self._reset(stream)
            raise
        else:
            if stream.ended:
                self._reset(stream)  # what is left of it nobody reads any more

    def _reset(self, stream: Stream) -> None:
        """Abandon a stream; an error in that ends no other stream of the session."""
        try:
            stream.reset()
        except Exception as error:
            note(f"a {stream.protocol} stream was not reset", error)

    # the link's handler

    def channel_opened(self, channel: Channel) -> ChannelHandler | None:
        """Take a channel that the peer opened, or refuse it."""
        if len(self._streams) >= (self._limits.streams if self.admitted else self._limits.early_streams):
            return None
        stream = Stream(self, None, self._handlers)
        stream.attach(channel)
        self._add(stream)
        return stream

    def link_lost(self, error: Exception) -> None:
        """Take the end of the link."""
        if not self.closed:
            self.error = error if isinstance(error, KodoError) else BrokenSessionError(str(error))
            self._over.set()
