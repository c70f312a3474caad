"""Associations over a simulated network in virtual time: loss, duplicates, reordering, delay, a shared bottleneck."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable

from kodo.p2p.core.sctp import Association, Controller, Event, MessageReceived, Settings


class Path:
    """One direction.

    Args:
        delay: seconds.
        jitter: seconds added at random, which reorders.
        rate: bytes per second of a bottleneck; None for none.
        queue: bytes that wait before it.
        mtu: bytes of the longest packet that is not fragmented; None when fragmenting cannot be forbidden.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        loss: float = 0.0,
        duplicates: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        rate: float | None = None,
        queue: int = 1 << 30,
        mtu: int | None = None,
    ) -> None:
        self.chance = chance
        self.loss = loss
        self.duplicates = duplicates
        self.delay = delay
        self.jitter = jitter
        self.rate = rate
        self.queue = queue
        self.mtu = mtu
        self.drop: Callable[[bytes], bool] = lambda packet: False
        self._free_at = 0.0

    def arrivals(self, packet: bytes, now: float) -> list[float]:
        """When copies of a packet arrive."""
        if self.drop(packet) or self.chance.random() < self.loss:
            return []
        out = now
        if self.rate is not None:
            begin = max(now, self._free_at)
            if (begin - now) * self.rate > self.queue:
                return []
            out = self._free_at = begin + (len(packet) + 60) / self.rate
        copies = 2 if self.chance.random() < self.duplicates else 1
        return [out + self.delay + self.chance.random() * self.jitter for _ in range(copies)]


class Network:
    """Two associations, `client` and `server`, and the time."""

    def __init__(
        self,
        seed: int = 1,
        *,
        settings: Settings | None = None,
        tsn: tuple[int, int] = (1000, 2000),
        controllers: tuple[Controller | None, Controller | None] = (None, None),
        **path: float,
    ) -> None:
        self.now = 100.0
        self.client = Association(
            client=True,
            tag=11,
            initial_tsn=tsn[0],
            cookie_secret=b"c" * 32,
            settings=settings or Settings(),
            controller=controllers[0],
        )
        self.server = Association(
            client=False,
            tag=22,
            initial_tsn=tsn[1],
            cookie_secret=b"s" * 32,
            settings=settings or Settings(),
            controller=controllers[1],
        )
        chance = random.Random(seed)
        self.paths = {id(self.client): Path(chance, **path), id(self.server): Path(chance, **path)}  # type: ignore[arg-type]
        self.events: dict[int, list[Event]] = {id(self.client): [], id(self.server): []}
        self.on_event: Callable[[Association, Event], None] = lambda association, event: self.events[
            id(association)
        ].append(event)
        self.interface: int | None = None
        self.fragments = True
        """Whether routers fragment what may be fragmented; those of IPv6 do not."""
        self.before_sending: Callable[[Association], None] = lambda association: None
        self._order = itertools.count()
        self._flying: list[tuple[float, int, Association, bytes]] = []

    def other(self, association: Association) -> Association:
        return self.server if association is self.client else self.client

    def flush(self, association: Association) -> None:
        """Take the events of one side and send what it has to send."""
        while (event := association.next_event()) is not None:
            self.on_event(association, event)
        self.before_sending(association)
        path = self.paths[id(association)]
        packets = []
        if path.mtu is not None and (probe := association.take_probe(self.now)) is not None:
            if self.interface is not None and len(probe) > self.interface:
                association.probe_refused()
            elif len(probe) <= path.mtu:
                packets.append(probe)
        for packet in association.datagrams_to_send(self.now):
            # What is longer than the association takes the path to carry goes in fragments.
            fragments = self.fragments and len(packet) > association.mtu
            if path.mtu is None or len(packet) <= path.mtu or fragments:
                packets.append(packet)
        for packet in packets:
            for arrival in path.arrivals(packet, self.now):
                heapq.heappush(self._flying, (arrival, next(self._order), self.other(association), packet))

    def next_time(self) -> float | None:
        times = [timer for side in (self.client, self.server) if (timer := side.get_timer()) is not None]
        if self._flying:
            times.append(self._flying[0][0])
        return max(min(times), self.now) if times else None

    def step(self) -> bool:
        """Go to the next thing that happens; False when nothing is going to."""
        time = self.next_time()
        if time is None:
            return False
        self.now = time
        touched: list[Association] = []
        together: dict[int, list[bytes]] = {}
        while self._flying and self._flying[0][0] <= time:
            _, _, side, packet = heapq.heappop(self._flying)
            together.setdefault(id(side), []).append(packet)
            if side not in touched:
                touched.append(side)
        for side in touched:
            side.receive_datagrams(together[id(side)], time)
        for side in (self.client, self.server):
            if (timer := side.get_timer()) is not None and timer <= time:
                side.handle_timer(time)
                if side not in touched:
                    touched.append(side)
        for side in touched:
            self.flush(side)
        return True

    def run(self, until: Callable[[], bool] | None = None, *, seconds: float = 600.0, steps: int = 2_000_000) -> bool:
        """Let things happen until `until` holds or nothing happens any more; False when that took too long."""
        end = self.now + seconds
        for side in (self.client, self.server):
            self.flush(side)
        for _ in range(steps):
            if until is not None and until():
                return True
            if self.now > end:
                return False
            time = self.next_time()
            if time is None or time > end:
                self.now = end if time is not None else self.now
                return until is None or until()
            self.step()
        return False

    def connect(self) -> Network:
        self.client.connect(self.now)
        self.server.connect(self.now)
        assert self.run(lambda: self.client.established and self.server.established)
        return self


class Bulk:
    """Bytes from the client of a network to its server, without end; counts what the server reads."""

    def __init__(self, network: Network, *, ahead: int = 4 << 20) -> None:
        self.network = network
        self.read = 0
        self._ahead = ahead
        self._channel = network.client.open_channel()
        network.on_event, network.before_sending = self._take, self._refill

    def _take(self, side: Association, event: Event) -> None:
        if isinstance(event, MessageReceived):
            self.read += len(event.data)
            side.consumed(len(event.data))

    def _refill(self, side: Association) -> None:
        if side is self.network.client:
            while side.queued < self._ahead:
                side.send(self._channel, bytes(16_000))


def share(
    controllers: list[Controller], *, seconds: float, after: float, gap: float = 3.0, **bottleneck: float
) -> list[float]:
    """Let flows send through one bottleneck, each beginning `gap` seconds after the one before.

    Args:
        seconds: virtual seconds that it lasts.
        after: seconds from which on bytes count.

    Returns:
        Bytes per second that each flow got through.
    """
    bulks: list[Bulk] = []
    shared: Path | None = None
    begin = 200.0
    for number, controller in enumerate(controllers):
        network = Network(number + 3, controllers=(controller, None), **bottleneck).connect()
        network.now = begin + number * gap
        shared = shared or network.paths[id(network.client)]
        network.paths[id(network.client)] = shared
        network.paths[id(network.server)] = Path(random.Random(number), delay=bottleneck["delay"])
        bulks.append(Bulk(network))
    waiting, live = list(bulks), list[Bulk]()
    counted: list[int] | None = None
    while True:
        while waiting and (not live or waiting[0].network.now <= min(bulk.network.now for bulk in live)):
            live.append(waiting.pop(0))
            live[-1].network.flush(live[-1].network.client)
        following = min(live, key=lambda bulk: bulk.network.next_time() or math.inf).network
        now = following.next_time() or math.inf
        if counted is None and now >= begin + after:
            counted = [bulk.read for bulk in bulks]
        if now >= begin + seconds:
            break
        following.step()
    assert counted is not None
    return [(bulk.read - before) / (seconds - after) for bulk, before in zip(bulks, counted, strict=True)]
