"""Datagrams over a connection that carries messages: how a relay is reached where UDP is blocked.

What a connection does not take is dropped, as a network would: nothing waits for a slow reader without bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from kodo.p2p.core import stun
from kodo.p2p.core.batches import pack_batch, read_batch
from kodo.p2p.core.hosts import plain_host
from kodo.p2p.core.paths import Target
from kodo.p2p.errors import KodoError
from kodo.p2p.net.endpoint import Source
from kodo.p2p.net.names import look_up

__all__ = ["Carrier", "Leg", "Receive", "Room", "Send", "Standby"]

logger = logging.getLogger(__name__)

QUEUED_BYTES = 256 << 10
"""What waits on one leg for its connection."""
OWN_BYTES = 32 << 10
"""Of that, what each leg may have whatever the others have; the rest comes from the room that they share."""
SHARED_BYTES, SHARED_PER_SOURCE_BYTES = 64 << 20, 4 << 20
"""That room, of all legs of one relay, and of those of one source."""
DATAGRAM_BYTES = 64
"""What a datagram that waits counts beside its bytes: about what Python keeps for it."""
BATCH_BYTES = 16 << 10
"""What goes in one message: it arrives whole, so a long one would keep its first datagram waiting."""
SEND_SECONDS = 10.0
"""How long the other end may take none of what is sent."""
SHORT_COST, CHECK_COST, MESSAGE_COST = 512, 4096, 512
"""Bytes as which a datagram counts at least, a check, and a message beside its datagrams: each is work."""
MOST_SECONDS = 2.0
"""For so long one message may keep the next one waiting; who sends one that costs more is left."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.25, 15.0
LOOK_UP_SECONDS = 0.5
LASTED_SECONDS = 10.0
"""After so long a connection counts as good: when it ends, the next is tried at once."""

Send = Callable[[bytes], Awaitable[None]]
Receive = Callable[[], Awaitable[bytes | None]]


class Room:
    """What may wait on several legs beyond their own, in all and for each source."""

    def __init__(self, size: int = SHARED_BYTES, share: int = SHARED_PER_SOURCE_BYTES) -> None:
        self.left = size
        self._share = share
        self._of: Counter[str] = Counter()

    def take(self, amount: int, source: str) -> bool:
        """Take room for a source; return whether there is that much."""
        if amount > min(self.left, self._share - self._of[source]):
            return False
        self.left -= amount
        self._of[source] += amount
        return True

    def give(self, amount: int, source: str) -> None:
        """Free room that was taken."""
        self.left += amount
        self._of[source] -= amount
        if not self._of[source]:
            del self._of[source]


class Leg:
    """This side of one connection; sends as an `Endpoint` does.

    Args:
        received: gets each datagram.
        batch_ended: is called after those of one message.
        changed: is called with True once datagrams can go, and with False when that is over.
        room: what may wait on this and other legs beyond their own.
        source: who is at the other end, for his share of that.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        batch_ended: Callable[[], None],
        changed: Callable[[bool], None] = lambda is_open: None,
        room: Room | None = None,
        source: str = "",
    ) -> None:
        self._received = received
        self._batch_ended = batch_ended
        self._changed = changed
        self._room = room or Room()
        self._source = source
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ready = asyncio.Event()
        self._closed = asyncio.Event()
        self.is_open = False
        self.opened_at: float | None = None
        self.dropped = 0
        """Bytes."""

    def close(self) -> None:
        """End the connection; idempotent."""
        self._closed.set()

    def send(self, datagrams: Sequence[bytes], to: Source | None = None) -> None:
        """Send datagrams; what finds no room is dropped."""
        for data in datagrams:
            if self.is_open and self._has_room(DATAGRAM_BYTES + len(data)):
                self._queue.append(data)
            else:
                self.dropped += len(data)
        if self._queue:
            self._ready.set()

    def _has_room(self, amount: int) -> bool:
        """Take room for a datagram; return whether there is that much."""
        queued = self._queued + amount
        shared = _shared(queued) - _shared(self._queued)
        if queued > QUEUED_BYTES or (shared and not self._room.take(shared, self._source)):
            return False
        self._queued = queued
        return True

    def _leave_room(self, amount: int) -> None:
        shared = _shared(self._queued) - _shared(self._queued - amount)
        self._queued -= amount
        if shared:
            self._room.give(shared, self._source)

    def send_split(self, datagrams: Sequence[bytes], to: Source | None = None) -> None:
        """Send datagrams that are too long for a path by UDP."""
        self.send(datagrams)

    def send_whole(self, datagram: bytes, to: Source | None = None) -> bool:
        """Return False: beyond the relay it may be fragmented."""
        return False

    async def carry(self, send: Send, receive: Receive, *, rate: Callable[[], float] | None = None) -> None:
        """Go over a connection until it ends. Cancelling is safe.

        Args:
            send: sends a message.
            receive: gives the next one; None at the end.
            rate: gives the bytes a second that are taken from there, as datagrams and messages count; what is more
                has to wait.

        Raises:
            ValueError: the other side sends something else than batches of datagrams, or one of far too many.
            TimeoutError: it takes nothing.
            OSError: the connection broke.
        """
        tasks = [
            asyncio.ensure_future(self._read(receive, rate)),
            asyncio.ensure_future(self._write(send)),
            asyncio.ensure_future(self._closed.wait()),
        ]
        self.is_open, self.opened_at = True, asyncio.get_running_loop().time()
        try:
            self._changed(True)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks[:2]:
                if task.done():
                    task.result()
        finally:
            self.is_open = False
            self._queue.clear()
            self._leave_room(self._queued)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._changed(False)

    async def _read(self, receive: Receive, rate: Callable[[], float] | None) -> None:
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        while (message := await receive()) is not None:
            datagrams = read_batch(message)
            cost = MESSAGE_COST + sum(map(_cost, datagrams))
            if rate is not None and cost > MOST_SECONDS * rate():
                raise ValueError(f"a batch of {len(datagrams)} datagrams is too much work: send fewer in one message")
            for data in datagrams:
                self._received(data)
            self._batch_ended()
            if rate is not None:
                now = loop.time()
                free_at = max(free_at, now - 1.0) + cost / rate()
                if free_at > now:
                    await asyncio.sleep(free_at - now)
            # Messages that are there already keep nobody else waiting.
            await asyncio.sleep(0)

    async def _write(self, send: Send) -> None:
        while True:
            await self._ready.wait()
            batch: list[bytes] = []
            size = 0
            while self._queue and (not batch or size + len(self._queue[0]) <= BATCH_BYTES):
                batch.append(self._queue.popleft())
                size += len(batch[-1])
            if not self._queue:
                self._ready.clear()
            async with asyncio.timeout(SEND_SECONDS):
                await send(pack_batch(batch))
            self._leave_room(size + DATAGRAM_BYTES * len(batch))


def _shared(queued: int) -> int:
    """Return how much of what waits on a leg is beyond its own."""
    return max(0, queued - OWN_BYTES)


def _cost(datagram: bytes) -> int:
    return CHECK_COST if stun.is_stun(datagram) else max(len(datagram), SHORT_COST)


@dataclass(frozen=True, slots=True)
class Carrier:
    """What connects to one relay.

    Attributes:
        host: name or IP address of the relay.
        carry: connects and lets a leg go over the connection until that ends; the text is the tag of the node that
            is dialled, None for a node that attaches. Raises `KodoError` or `OSError` where it could not connect.
    """

    host: str
    carry: Callable[[Leg, str | None], Awaitable[None]]


class Standby:
    """Connects to a relay while that is needed, anew when a connection ends. `close` it.

    Args:
        places: addresses of which one may be the relay's; of a node that attaches it is the first.
        tag: of the node that is dialled; None for a node that attaches.
        make: makes the leg of each connection, from the relay's address.
        failed: called when no connection could be made.
    """

    def __init__(
        self,
        carrier: Carrier,
        places: Sequence[Target],
        tag: str | None,
        make: Callable[[Target], Leg],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._carrier = carrier
        self._places = places
        self._make = make
        self._tag = tag
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self.has_failed = False
        """Whether the last try to connect failed."""

    @property
    def is_needed(self) -> bool:
        """Whether it is connected, or connecting."""
        return self._task is not None

    def need(self) -> None:
        """Connect, unless that is being done."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End the connection until it is needed again; idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        relay = await self._relay()
        if relay is None:
            self.has_failed = True
            self._failed()
            return
        while True:
            leg = self._make(relay)
            try:
                await self._carrier.carry(leg, self._tag)
            except (KodoError, OSError, ValueError) as error:
                logger.info("a connection to the relay of %s ended: %s", self._carrier.host, error)
            self.has_failed = leg.opened_at is None
            if leg.opened_at is None:
                self._failed()
            elif loop.time() - leg.opened_at >= LASTED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    async def _relay(self) -> Target | None:
        """Return the relay's address; None when it is not among the places."""
        if self._tag is None:
            return self._places[0]
        hosts = {self._carrier.host}
        with contextlib.suppress(ValueError):
            plain_host(self._carrier.host)
            return next((place for place in self._places if place.host in hosts), None)
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                hosts = {plain_host(str(name[0])) for *_, name in await look_up(self._carrier.host, 0, server=True)}
        except (OSError, TimeoutError):
            # Perhaps only a proxy can look it up. A node tells the addresses that it has at relays last.
            return self._places[-1] if self._places else None
        return next((place for place in self._places if place.host in hosts), None)
