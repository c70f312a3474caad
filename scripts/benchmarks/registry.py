"""A registry under load: announcements, heartbeats and searches over HTTP, at a size that is filled in first."""

from __future__ import annotations

import asyncio
import functools
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.measure import Row, Series, Table

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.registry.client import RegistryClient
from kodo.registry.record import FlowRecord, Heartbeat, NodeRecord, sign_heartbeat, sign_record
from kodo.registry.server import Registry, RegistryConfig

NODES = 500
FLOWS_PER_NODE = 10
READS = 200
WORDS = ("market", "climate", "invoice", "bicycle", "protein", "harbour", "auction", "lattice", "survey", "weather")


def node(number: int, rng: random.Random) -> tuple[Identity, NodeRecord]:
    """Make a node with flows that look like flows."""
    identity = Identity.from_seed(number.to_bytes(32, "big"))
    now = time.time_ns() // 1_000_000
    flows = tuple(
        FlowRecord(
            path=f"flows.{rng.choice(WORDS)}.{rng.choice(WORDS)}{index}",
            name=f"{rng.choice(WORDS)} {rng.choice(WORDS)} {index}".title(),
            source="python",
            description=" ".join(rng.choice(WORDS) for _ in range(12)),
            author=f"{rng.choice(WORDS)}@example.com",
            organization=rng.choice(WORDS).title(),
            published=now,
            release="1.0.0",
            tags=(rng.choice(WORDS),),
        )
        for index in range(FLOWS_PER_NODE)
    )
    address = str(Multiaddr.webrtc_direct(f"192.0.2.{number % 250 + 1}", 4711, bytes(32), identity.peer_id))
    record = NodeRecord(
        peer_id=str(identity.peer_id),
        name=f"node{number}.example.com",
        addrs=(address,),
        flows=flows,
        seq=now,
        issued_at=now,
        ttl_s=3600,
    )
    return identity, record


async def measure(rounds: int) -> Table:
    """Measure the table."""
    rng = random.Random(1)
    nodes = [node(number, rng) for number in range(1, NODES + 1)]
    with tempfile.TemporaryDirectory() as home:
        async with (
            Registry(RegistryConfig(home=Path(home), port=0)) as registry,
            RegistryClient(registry.url) as client,
        ):
            begin = time.perf_counter()
            for identity, record in nodes:
                await client.up(sign_record(record, identity))
            filled = NODES / (time.perf_counter() - begin)
            beats = []
            begin = time.perf_counter()
            for identity, record in nodes:
                heartbeat = Heartbeat(peer_id=record.peer_id, seq=record.seq, at=time.time_ns() // 1_000_000)
                beats.append(sign_heartbeat(heartbeat, identity))
            signed = NODES / (time.perf_counter() - begin)
            # The interval that the registry dictates forbids a second heartbeat soon: one each.
            begin = time.perf_counter()
            for beat in beats:
                await client.state(beat)
            beaten = NODES / (time.perf_counter() - begin)
            rows = [
                Row("announcements, one after the other", "1/s", Series((filled,)), higher_is_better=True),
                Row("heartbeats, one after the other", "1/s", Series((beaten,)), higher_is_better=True),
            ]
            for name, search in (("all flows", None), ("a word", "*bicycle*"), ("nothing fits", "*zzzz*")):
                rows += await reads(rounds, name, functools.partial(client.flows, search=search, pp=50))
    return Table(
        "Registry",
        rows,
        [f"{NODES} nodes with {FLOWS_PER_NODE} flows each, one client, loopback; signing alone {signed:,.0f}/s"],
    )


async def reads(rounds: int, name: str, read: Callable[[], Awaitable[object]]) -> list[Row]:
    """Measure one call: median and 95th percentile of each round."""
    medians, tails = [], []
    for _ in range(rounds):
        times = []
        for _ in range(READS // rounds):
            begin = time.perf_counter()
            await read()
            times.append((time.perf_counter() - begin) * 1000)
        medians.append(statistics.median(times))
        tails.append(statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0])
        await asyncio.sleep(0)
    return [
        Row(f"GET /flows, {name}, p50", "ms", Series(tuple(medians))),
        Row(f"GET /flows, {name}, p95", "ms", Series(tuple(tails))),
    ]
