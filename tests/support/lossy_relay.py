"""A seeded UDP relay: what a bad network does to datagrams, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import cast

Address = tuple[str, int]


class LossyRelay(asyncio.DatagramProtocol):
    """Passes datagrams between one target and everybody else, with loss, delay, doubling and reordering.

    Args:
        target: where datagrams of newcomers go.
        loss, duplicate: shares, 0 to 1, each way.
        delay_s, jitter_s: one way; jitter reorders.
        seed: of all of it.
    """

    def __init__(
        self,
        target: Address,
        *,
        seed: int,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
    ) -> None:
        self.target = target
        self.loss, self.duplicate, self.delay, self.jitter = loss, duplicate, delay_s, jitter_s
        self.cut = False
        self.newcomer = asyncio.Event()
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Address, asyncio.DatagramTransport] = {}
        self._waiting: dict[Address, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._front = cast("asyncio.DatagramTransport", transport)

    @property
    def port(self) -> int:
        assert self._front is not None
        return int(self._front.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: Address) -> None:
        back = self._backs.get(addr)
        if back is not None:
            self._pass(data, back, None)
        elif addr in self._waiting:
            self._waiting[addr].append(data)
        else:
            self._waiting[addr] = [data]
            task = self._loop.create_task(self._open_back(addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open_back(self, addr: Address) -> None:
        relay = self

        class Back(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: Address) -> None:
                assert relay._front is not None
                relay._pass(data, relay._front, addr)

        back, _ = await self._loop.create_datagram_endpoint(Back, remote_addr=self.target)
        self._backs[addr] = back
        self.newcomer.set()
        for data in self._waiting.pop(addr):
            self._pass(data, back, None)

    def _pass(self, data: bytes, out: asyncio.DatagramTransport, to: Address | None) -> None:
        if self.cut:
            return
        for _ in range(2 if self._random.random() < self.duplicate else 1):
            if self._random.random() >= self.loss:
                delay = self.delay + self._random.random() * self.jitter
                if delay:
                    self._loop.call_later(delay, self._send, data, out, to)
                else:
                    self._send(data, out, to)

    def _send(self, data: bytes, out: asyncio.DatagramTransport, to: Address | None) -> None:
        if not out.is_closing():
            out.sendto(data, to)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for transport in [*self._backs.values(), self._front]:
            if transport is not None:
                transport.close()


@contextlib.asynccontextmanager
async def lossy_relay(target: Address, **options: float | int) -> AsyncIterator[LossyRelay]:
    """Run a relay on a free loopback port."""
    loop = asyncio.get_running_loop()
    _, relay = await loop.create_datagram_endpoint(
        lambda: LossyRelay(target, **options),  # type: ignore[arg-type]
        local_addr=("127.0.0.1", 0),
    )
    try:
        yield relay
    finally:
        relay.close()
        await asyncio.sleep(0)  # the transports close in the next turn of the loop
