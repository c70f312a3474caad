"""A registry's file at full size: nodes and flows that look like such, signed, announced and stored as any."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import random
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.registry.records.record import FlowRecord, NodeRecord, sign_record, verify_record
from kodo.registry.store.store import Bounds, Store

__all__ = ["FLOWS_PER_NODE", "enliven", "fill", "identity", "words"]

FLOWS_PER_NODE = 10
SHARD = 25
ONSETS = [
    *"bcdfghjklmnprstvwz",
    "br",
    "ch",
    "cl",
    "cr",
    "dr",
    "fl",
    "gr",
    "pl",
    "pr",
    "qu",
    "sc",
    "sh",
    "sp",
    "st",
    "th",
]
NUCLEI = [*"aaeeeiioou", "ea", "ie", "ou", "ai", "io"]
CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "ng", "ck", "nd", "st", "rt", "x"]
FOREIGN = ["größe", "straße", "análisis", "čeština", "ελλάδα", "анализ", "市場調査", "数据分析", "분석가", "résumé"]
WORDS = 20_000


@lru_cache
def words() -> tuple[list[str], list[float]]:
    """Return 20,000 words, the frequent ones first, and their cumulated weights by Zipf's law."""
    rng = random.Random(7)

    def syllable() -> str:
        return "".join(rng.choice(parts) for parts in (ONSETS, NUCLEI, CODAS))

    made = {"".join(syllable() for _ in range(rng.choice((1, 2, 2, 2, 3, 3)))) for _ in range(2 * WORDS)}
    found = [*FOREIGN, *sorted(made)[: WORDS - len(FOREIGN)]]
    rng.shuffle(found)
    return found, list(itertools.accumulate(1 / (rank + 10) for rank in range(len(found))))


def identity(number: int) -> Identity:
    """Return the key of node `number`."""
    return Identity.from_seed(number.to_bytes(32, "big"))


def record(number: int, now: int) -> NodeRecord:
    """Make node `number` with its flows."""
    rng = random.Random(number)
    found, weights = words()

    def some(count: int) -> list[str]:
        return rng.choices(found, cum_weights=weights, k=count)

    peer_id = identity(number).peer_id
    company = f"{found[number % 2000]} {rng.choice(('GmbH', 'Ltd', 'SA', 'Inc'))}".title()
    flows = tuple(
        FlowRecord(
            path=f"flows.{some(1)[0]}.{''.join(some(2)).title()}{index}",
            name=" ".join(some(3)).title(),
            source="flows/main.py",
            description=" ".join(some(rng.randrange(8, 25))).capitalize(),
            author=f"{found[(number * 7 + index % 3) % WORDS]}@{found[number % 2000]}.example",
            organization=company,
            published=now - rng.randrange(3 * 365 * 86_400_000),
            release=f"{rng.randrange(4)}.{rng.randrange(10)}.{rng.randrange(10)}",
            tags=tuple(dict.fromkeys(found[rng.randrange(500)] for _ in range(3))),
            inputs_schema_sha256=rng.randbytes(32),
        )
        for index in range(FLOWS_PER_NODE)
    )
    address = str(Multiaddr.webrtc_direct(f"192.0.2.{number % 250 + 1}", 4711, bytes(32), peer_id))
    name = f"{found[number % WORDS]}-{number}.example.com".encode("ascii", "ignore").decode().lstrip("-")
    return NodeRecord(
        peer_id=str(peer_id), name=name, addrs=(address,), flows=flows, seq=1, issued_at=now, ttl_s=7 * 86400
    )


def shard(first: int, last: int, now: int) -> list[bytes]:
    """Sign nodes `first` to `last`."""
    return [sign_record(record(number, now), identity(number)) for number in range(first, last)]


def shards(first: int, last: int, now: int) -> Iterator[list[bytes]]:
    """Sign nodes `first` to `last` in a process of its own, a few shards ahead."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        steps = iter(range(first, last + 1, SHARD))

        def ahead(count: int) -> list[Future[list[bytes]]]:
            return [pool.submit(shard, at, min(at + SHARD, last + 1), now) for at in itertools.islice(steps, count)]

        waiting = ahead(8)
        while waiting:
            yield waiting.pop(0).result()
            waiting += ahead(1)


async def fill(database: Path, nodes: int) -> float:
    """Announce `nodes` nodes to the registry at `database`, going on where it was left; give the records a second."""
    now = time.time_ns() // 1_000_000
    begin = time.perf_counter()
    async with Store(database, Bounds(nodes=nodes, flows=nodes * FLOWS_PER_NODE)) as store:
        there = store.kept
        for signed in shards(there + 1, nodes, now):
            await asyncio.gather(*(store.put(verify_record(each), each, now) for each in signed))
    rate = (nodes - there) / (time.perf_counter() - begin)
    return rate


def enliven(database: Path) -> None:
    """Make the file of a registry that does not run look as after months: most nodes are alive, and were measured."""
    now = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE nodes SET online = NULL, changes_at = NULL, left_at = seen_at WHERE id % 20 = 0")
        connection.execute(
            "UPDATE nodes SET online = 1, seen_at = ?, beat_seen_at = NULL, changes_at = ? WHERE id % 20 > 0",
            (now, now + 300_000),
        )
        connection.execute(
            "UPDATE nodes SET performance = (id * 2654435761 % 5000) / 1000.0, "
            "availability = (id * 40503 % 101) / 100.0 WHERE id % 10 <> 3"
        )
