"""Several sessions of one node: who waits for whom, who gets how much, and what idle ones cost."""

from __future__ import annotations

import asyncio
import time

from benchmarks.measure import Row, interleave
from benchmarks.pairs import KODO, MESSAGE, Pair, milliseconds, pair, percentile

from tests.support.partners import partner

PINGS, PAUSE = 200, 0.003
SESSIONS = 10
BULK_MESSAGES = 1024
IDLE, IDLE_SECONDS = 1000, 10.0
STOPPED, STOPPED_BYTES, STOPPED_SECONDS = 100, 100_000_000, 10.0

Measured = tuple[list[Row], list[str]]


async def latency(rounds: int) -> Measured:
    """Pings on another stream of a session, and on another session, while the node pumps on the first."""
    async with pair(KODO) as ours, partner(KODO) as other:
        await ours.connect()
        address = (await ours.far.ask("accept", name="b", sdp=""))["sdp"]
        await other.ask("answer", name="b", sdp=address)

        async def once() -> list[float]:
            pumping = asyncio.ensure_future(ours.far.ask("pump", name=ours.name, size=MESSAGE))
            await asyncio.sleep(0.2)
            same, beside = await asyncio.gather(
                milliseconds(ours.near, "pings", name=ours.name, count=PINGS, pause=PAUSE),
                milliseconds(other, "pings", name="b", count=PINGS, pause=PAUSE),
            )
            await ours.far.ask("stop", name=ours.name)
            await pumping
            return [percentile(values, share) for values in (same, beside) for share in (0.5, 0.99)]

        [(same_half, same_most, other_half, other_most)] = await interleave(rounds, once)
    return [
        Row("ping p50 on another stream of A while A pumps", "ms", same_half),
        Row("ping p99 on another stream of A while A pumps", "ms", same_most),
        Row("ping p50 on session B while A pumps", "ms", other_half),
        Row("ping p99 on session B while A pumps", "ms", other_most),
    ], ["pings: three processes, the node and the clients of A and B"]


async def ten(rounds: int) -> Measured:
    """What ten sessions of one node get together, and each, beside what one gets."""
    async with pair(KODO) as ours:
        names = []
        for _ in range(SESSIONS):
            await ours.connect()
            names.append(ours.name)

        async def one() -> list[float]:
            seconds, _, _ = await ours.send(BULK_MESSAGES, MESSAGE)
            return [BULK_MESSAGES * MESSAGE / 1e6 / seconds]

        async def all_of_them() -> list[float]:
            return await _at_once(ours, names)

        (alone,), (together, shares) = await interleave(rounds, one, all_of_them)
    return [
        Row("ten sessions, aggregate", "MB/s", together, alone, "one session", higher_is_better=True),
        Row("ten sessions, largest share by smallest", "×", shares),
    ], []


async def _at_once(ours: Pair, names: list[str]) -> list[float]:
    """Pump on all for two seconds; give the aggregate in MB/s and the largest share by the smallest."""

    async def taken() -> list[int]:
        return [(await ours.near.ask("taken", name=name))["bytes"] for name in names]

    pumps = [asyncio.ensure_future(ours.far.ask("pump", name=name, size=MESSAGE)) for name in names]
    await asyncio.sleep(0.5)
    before, begin = await taken(), time.perf_counter()
    await asyncio.sleep(2.0)
    after, seconds = await taken(), time.perf_counter() - begin
    for name in names:
        await ours.far.ask("stop", name=name)
    await asyncio.gather(*pumps)
    got = [new - old for new, old in zip(after, before, strict=True)]
    return [sum(got) / 1e6 / seconds, max(got) / max(min(got), 1)]


async def idle(rounds: int) -> Measured:
    """What a thousand sessions that do nothing cost the process that accepted them. Measured once, at its length."""

    async def once() -> list[float]:
        async with pair(KODO) as ours:
            await ours.connect()
            address = (await ours.far.ask("accept", name="", sdp=""))["sdp"]
            before = (await ours.far.ask("memory"))["bytes"]
            begin = time.perf_counter()
            await ours.near.ask("idle", count=IDLE, sdp=address)
            dialled = time.perf_counter() - begin
            await asyncio.sleep(1.0)
            after = (await ours.far.ask("memory"))["bytes"]
            cpu = (await ours.far.ask("cpu"))["seconds"]
            await asyncio.sleep(IDLE_SECONDS)
            used = (await ours.far.ask("cpu"))["seconds"] - cpu
        return [(after - before) / 1024 / IDLE, 100 * used / IDLE_SECONDS, IDLE / dialled]

    turns = 1 if rounds < 10 else 2
    [(memory, cpu, rate)] = await interleave(turns, once)
    return [
        Row(f"{IDLE:,} idle sessions, memory of each", "KiB", memory),
        Row(f"{IDLE:,} idle sessions, of one core", "%", cpu),
        Row(f"{IDLE:,} sessions dialled, ten at once", "1/s", rate),
    ], [f"idle sessions: the listener's own memory (USS) and CPU, over {IDLE_SECONDS:.0f} s"]


async def stopped(rounds: int) -> Measured:
    """What a hundred readers that stop cost their sender, and a reader beside them. Measured once."""

    async def once() -> list[float]:
        async with pair(KODO) as ours, partner(KODO) as readers:
            await ours.connect()
            address = (await ours.far.ask("accept", name="", sdp=""))["sdp"]
            alone = await _beside(ours)
            before = (await ours.far.ask("memory"))["bytes"]
            names = [f"stopped-{number}" for number in range(STOPPED)]
            await readers.ask("stall", names=names, sdp=address)
            words = {"size": MESSAGE, "count": -(-STOPPED_BYTES // MESSAGE)}
            pumps = [asyncio.ensure_future(ours.far.ask("pump", name=name, **words)) for name in names]
            await asyncio.sleep(STOPPED_SECONDS)  # until all windows are full
            cpu = (await ours.far.ask("cpu"))["seconds"]
            await asyncio.sleep(STOPPED_SECONDS)
            used = (await ours.far.ask("cpu"))["seconds"] - cpu
            after = (await ours.far.ask("memory"))["bytes"]
            finished = sum(pump.done() for pump in pumps)
            beside = await _beside(ours)
            for pump in pumps:
                pump.cancel()
        if finished:
            raise RuntimeError(f"{finished} of the readers that read nothing were sent everything")
        return [(after - before) / 2**20 / STOPPED, 100 * used / STOPPED_SECONDS, *beside, *alone]

    [(memory, cpu, rate, ping, rate_alone, ping_alone)] = await interleave(1 if rounds < 10 else 2, once)
    title = f"{STOPPED} stopped readers of {STOPPED_BYTES // 10**6} MB"
    return [
        Row(f"{title}, the sender's memory for each", "MiB", memory),
        Row(f"{title}, of one core", "%", cpu),
        Row("bulk to a reader beside them", "MB/s", rate, rate_alone, "without them", higher_is_better=True),
        Row("ping p99 of a reader beside them", "ms", ping, ping_alone, "without them"),
    ], [f"stopped readers: the sender's own memory (USS) after {2 * STOPPED_SECONDS:.0f} s"]


async def _beside(ours: Pair) -> list[float]:
    """Measure one session: bulk in MB/s, and the p99 of idle pings in ms."""
    seconds, _, _ = await ours.send(BULK_MESSAGES, MESSAGE)
    pings = await milliseconds(ours.near, "pings", name=ours.name, count=PINGS, pause=PAUSE)
    return [BULK_MESSAGES * MESSAGE / 1e6 / seconds, percentile(pings, 0.99)]
