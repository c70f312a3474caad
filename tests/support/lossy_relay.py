"""A seeded UDP relay: what a bad network does to datagrams, on loopback, in batches.

In a process of its own: `python -m tests.support.lossy_relay HOST PORT '{"seed": 1, "loss": 0.01}'` prints its port
and relays until its stdin ends; then it prints what each way passed and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import random
import sys
from collections.abc import AsyncIterator, Callable

from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source

HEADERS_BYTES = 28
"""IPv4 and UDP: what a datagram takes of a link beside its payload."""


class _Way:
    """One direction, shared by all who use the relay: a bottleneck with a queue, then a delay line."""

    def __init__(self, relay: LossyRelay) -> None:
        self._relay = relay
        self._flying: list[tuple[float, int, bytes, Endpoint, Source]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._free_at = 0.0
        self.passed = self.lost = self.dropped = 0

    def take(self, data: bytes, out: Endpoint, to: Source) -> None:
        relay = self._relay
        if relay.cut or not relay.tap(data, self is relay.there):
            return
        chance = relay.chance
        for _ in range(2 if relay.duplicate and chance() < relay.duplicate else 1):
            if relay.loss and chance() < relay.loss:
                self.lost += 1
                continue
            due = now = relay.loop.time()
            if relay.rate:
                begin = max(now, self._free_at)
                if (begin - now) * relay.rate > relay.queue:
                    self.dropped += 1
                    continue
                due = self._free_at = begin + (len(data) + HEADERS_BYTES) / relay.rate
            due += relay.delay
            if relay.jitter:
                due += relay.jitter * chance()
            self.passed += 1
            heapq.heappush(self._flying, (due, next(self._order), data, out, to))

    def flush(self) -> None:
        """Send all that is due, runs of one receiver in one call, and arm the timer for the rest."""
        flying, now = self._flying, self._relay.loop.time()
        run: list[bytes] = []
        last: tuple[Endpoint, Source] | None = None
        while flying and flying[0][0] <= now:
            _, _, data, out, to = heapq.heappop(flying)
            if last != (out, to):
                if last is not None:
                    last[0].send(run, last[1])
                run, last = [], (out, to)
            run.append(data)
        if last is not None:
            last[0].send(run, last[1])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if flying:
            self._timer = self._relay.loop.call_at(flying[0][0], self.flush)

    def close(self) -> None:
        self._flying.clear()
        if self._timer is not None:
            self._timer.cancel()


class LossyRelay:
    """Passes datagrams between one target and everybody else, with loss, delay, doubling and reordering.

    Args:
        target: where datagrams of newcomers go.
        loss, duplicate: shares, 0 to 1, each way.
        delay_s, jitter_s: one way; jitter reorders.
        rate: of each way, bytes per second, headers counted; 0 for no bound. All newcomers share it.
        queue: bytes that wait for the rate; what finds no room is dropped.
        seed: of all of it.

    Attributes:
        tap: sees every datagram, and whether it goes to the target; what it says no to is dropped.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        seed: int,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        rate: float = 0.0,
        queue: int = 1 << 30,
    ) -> None:
        self.target = Source(*target)
        self.loss, self.duplicate, self.delay, self.jitter = loss, duplicate, delay_s, jitter_s
        self.rate, self.queue = rate, queue
        self.cut = False
        self.newcomer = asyncio.Event()
        self.tap: Callable[[bytes, bool], bool] = lambda data, to_target: True
        self.chance = random.Random(seed).random
        self.loop = asyncio.get_running_loop()
        self.there, self.back = _Way(self), _Way(self)
        self._backs: dict[Source, Endpoint] = {}
        self._front = Endpoint(udp.bind("127.0.0.1", 0), self._received, self.there.flush)

    @property
    def port(self) -> int:
        return self._front.address[1]

    def _received(self, data: bytes, source: Source) -> None:
        back = self._backs.get(source)
        if back is None:
            back = self._backs[source] = Endpoint(
                udp.bind("127.0.0.1", 0),
                lambda answer, _: self.back.take(answer, self._front, source),
                self.back.flush,
            )
            self.newcomer.set()
        self.there.take(data, back, self.target)

    def rebind(self) -> None:
        """Forget all newcomers, as a NAT that is started again does: what they send next goes from other ports."""
        for endpoint in self._backs.values():
            endpoint.close()
        self._backs.clear()

    def close(self) -> None:
        for way in (self.there, self.back):
            way.close()
        for endpoint in (*self._backs.values(), self._front):
            endpoint.close()


@contextlib.asynccontextmanager
async def lossy_relay(target: tuple[str, int], **options: float | int) -> AsyncIterator[LossyRelay]:
    """Run a relay on a free loopback port."""
    relay = LossyRelay(target, **options)  # type: ignore[arg-type]
    try:
        yield relay
    finally:
        relay.close()


async def _main(host: str, port: str, options: str) -> None:
    async with lossy_relay((host, int(port)), **json.loads(options)) as relay:
        print(relay.port, flush=True)
        await relay.loop.run_in_executor(None, sys.stdin.read)
        ways = {"there": relay.there, "back": relay.back}
        print(json.dumps({name: [way.passed, way.lost, way.dropped] for name, way in ways.items()}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
