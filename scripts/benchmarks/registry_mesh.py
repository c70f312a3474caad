"""Five registries in a ring: how long until all list what one was told, and what that costs on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, Series
from benchmarks.registry_fill import identity

from kodo.registry.client.client import RegistryClient
from kodo.registry.records.record import FlowRecord, NodeRecord, sign_record
from kodo.registry.server import Registry, RegistryConfig

RING = 5
FLOWS = 10
INTERVAL_S = 2.0


class _Meter:
    """A TCP relay that counts what passes, and can be cut."""

    def __init__(self) -> None:
        self.bytes = 0
        self.target = 0
        self.cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def sever(self) -> None:
        self.cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        self.sever()
        self._server.close()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.cut:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError, asyncio.CancelledError):
            self._writers |= {writer, far_writer}
            try:
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            finally:
                for each in (writer, far_writer):
                    each.transport.abort()
                    self._writers.discard(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.close()


def _record(number: int, seq: int) -> bytes:
    of, now = identity(number), time.time_ns() // 1_000_000
    flows = tuple(
        FlowRecord(
            path=f"flows.part{at}.Flow",
            name=f"Flow {at}",
            source="flows/part.py",
            description="Reads what is there and tells what it means",
            author="ana@example.com",
            organization="Example",
            published=now,
            release="1.0",
        )
        for at in range(FLOWS)
    )
    name = f"mesh{number}.example.com"
    return sign_record(
        NodeRecord(peer_id=str(of.peer_id), name=name, flows=flows, seq=seq, issued_at=now, ttl_s=3600), of
    )


async def mesh(rounds: int) -> list[Row]:
    """Announce at one of the ring and wait for all; then cut one registry off, announce, and let it come back."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        meters: dict[tuple[int, int], _Meter] = {}
        ring: list[Registry] = []
        for at in range(RING):
            urls = []
            for other in ((at - 1) % RING, (at + 1) % RING):
                meter = meters[at, other] = _Meter()
                urls.append(await meter.start())
                stack.push_async_callback(meter.close)
            config = RegistryConfig(home=folder / str(at), port=0, mesh_read=tuple(urls), mesh_interval_s=INTERVAL_S)
            ring.append(await stack.enter_async_context(Registry(config)))
        for (_, other), meter in meters.items():
            meter.target = int(ring[other].url.rpartition(":")[2])
        clients = [await stack.enter_async_context(RegistryClient(each.url)) for each in ring]
        await asyncio.sleep(2 * INTERVAL_S)
        told, wire, healed = [], [], []
        for turn in range(max(rounds, 5)):
            before = sum(meter.bytes for meter in meters.values())
            signed = _record(turn, 1)
            told.append(await _until_all(clients, turn, 1, clients[turn % RING], signed))
            # What is still under way when the last one has it counts too.
            await asyncio.sleep(0.3)
            wire.append((sum(meter.bytes for meter in meters.values()) - before) / len(signed))
            away = (turn + 2) % RING
            edges = [meter for edge, meter in meters.items() if away in edge]
            for meter in edges:
                meter.sever()
            signed = _record(turn, 2)
            await clients[turn % RING].up(signed)
            await asyncio.sleep(INTERVAL_S / 2)
            for meter in edges:
                meter.cut = False
            healed.append(await _until_all(clients, turn, 2) / INTERVAL_S)
    return [
        Row(f"mesh of {RING} in a ring: told to one, listed at all", "s", Series(tuple(told))),
        Row("mesh: bytes on all wires for a byte of record", "×", Series(tuple(wire))),
        Row("mesh: a registry that was cut off has what it missed", "intervals", Series(tuple(healed))),
    ]


async def _until_all(
    clients: list[RegistryClient], number: int, seq: int, at: RegistryClient | None = None, signed: bytes = b""
) -> float:
    begun = time.perf_counter()
    if at is not None:
        await at.up(signed)
    peer_id = str(identity(number).peer_id)
    for client in clients:
        await _listed(client, peer_id, seq)
    return time.perf_counter() - begun


async def _listed(client: RegistryClient, peer_id: str, seq: int) -> None:
    while True:
        rows = (await client.nodes(pp=500)).result
        if any(row["peer_id"] == peer_id and row["seq"] >= seq for row in rows):
            return
        await asyncio.sleep(0.005)
