"""A long link: 50 ms there and back, 200 Mbit/s, some loss; how sessions share it, and what they leave to TCP."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks import shared_link
from benchmarks.measure import Row, interleave
from benchmarks.pairs import KODO, REFERENCES, median, pair, relay_process

from tests.support.partners import partner

RATE = 25e6
DELAY_S = 0.025
QUEUE = int(RATE * 2 * DELAY_S)
"""Of the bottleneck, bytes: what the link itself holds."""
LOSSES = {"no loss": 0.0, "0.1 % lost": 0.001, "1 % lost": 0.01}
COMPARED = ["aiortc", "wrtc"]
SECONDS = 8.0

Measured = tuple[list[Row], list[str]]
NOTE = (
    f"the link: {2000 * DELAY_S:.0f} ms there and back, {RATE / 1e6:.0f} MB/s each way with headers, a queue of"
    f" {QUEUE / 1e6:.2f} MB, a seeded relay in a process of its own; {SECONDS:.0f} s from a new session's first byte"
)


def network(loss: float, seed: int) -> dict[str, float]:
    return {"seed": seed, "loss": loss, "delay_s": DELAY_S, "rate": RATE, "queue": QUEUE}


async def _once(kind: str, loss: float, seed: int) -> list[float]:
    async with pair(kind) as found, contextlib.AsyncExitStack() as stack:
        await found.connect(relay=network(loss, seed), stack=stack)
        return [await found.pumped(SECONDS) / 1e6]


async def link(rounds: int) -> Measured:
    """One session on the link, beside others that have it for themselves in turn."""
    rows: list[Row] = []
    notes = [NOTE]
    kinds = [KODO]
    for kind in COMPARED:
        try:
            async with pair(kind):
                kinds.append(kind)
        except RuntimeError as error:
            notes.append(f"MISSING: {REFERENCES[kind]}: {error}")
    for name, loss in LOSSES.items():
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(rounds):
            for kind in kinds:
                taken[kind] += await _once(kind, loss, 10 + turn)
        series = {kind: shared_link.series(values) for kind, values in taken.items()}
        figure = f"50 ms, 200 Mbit/s, {name}"
        rows += [Row(figure, "MB/s", series[KODO], series[kind], REFERENCES[kind], True) for kind in kinds[1:]] or [
            Row(figure, "MB/s", series[KODO])
        ]
    return rows, notes


async def shared(rounds: int) -> Measured:
    """Two sessions of two clients on the link, the second 2 s after the first."""

    async def once() -> list[float]:
        async with pair(KODO) as first, partner(KODO) as second:
            address = (await first.far.ask("accept", name="", sdp=""))["sdp"]
            port = int(address.split("/")[4])
            async with relay_process("127.0.0.1", port, network(0.0, 5)) as relayed:
                through = address.replace(f"/udp/{port}/", f"/udp/{relayed}/")
                names = {"first": first.near, "second": second}
                for name, near in names.items():
                    await near.ask("answer", name=name, sdp=through)
                pumps = []
                for name in names:
                    pumps.append(asyncio.ensure_future(first.far.ask("pump", name=name, size=16 << 10)))
                    await asyncio.sleep(2.0)
                before = [(await near.ask("taken", name=name))["bytes"] for name, near in names.items()]
                await asyncio.sleep(SECONDS)
                after = [(await near.ask("taken", name=name))["bytes"] for name, near in names.items()]
                for pump in pumps:
                    pump.cancel()
        got = [(new - old) / 1e6 / SECONDS for new, old in zip(after, before, strict=True)]
        return [sum(got), max(got) / max(min(got), 0.001)]

    taken = [await once() for _ in range(rounds)]
    both, ratio = (shared_link.series(column) for column in zip(*taken, strict=True))
    return [
        Row("two sessions on that link, together", "MB/s", both),
        Row("two sessions on that link, larger share by smaller", "×", ratio),
    ], [NOTE]


async def beside_tcp(rounds: int) -> Measured:
    """What a CUBIC TCP of the kernel keeps of the link beside one session, and beside another TCP."""
    async with shared_link.SharedLink(rate=RATE, delay_s=DELAY_S, queue=QUEUE) as wire:

        async def tcp_and_kodo() -> list[float]:
            async with pair(f"{KODO} {shared_link.NETWORK}.2", near=wire.left, far=wire.right) as ours:
                await ours.connect()
                async with wire.tcp() as tcp:
                    pumping = asyncio.ensure_future(ours.pumped(2 + SECONDS))
                    await asyncio.sleep(2.0)
                    before = await tcp.taken()
                    session = (await ours.near.ask("taken", name=ours.name))["bytes"]
                    await asyncio.sleep(SECONDS)
                    kept = (await tcp.taken() - before) / 1e6 / SECONDS
                    got = ((await ours.near.ask("taken", name=ours.name))["bytes"] - session) / 1e6 / SECONDS
                    await pumping
            return [kept, got]

        async def two_tcp() -> list[float]:
            async with wire.tcp() as one, wire.tcp() as other:
                await asyncio.sleep(2.0)
                before = await asyncio.gather(one.taken(), other.taken())
                await asyncio.sleep(SECONDS)
                after = await asyncio.gather(one.taken(), other.taken())
            return [(sum(after) - sum(before)) / 2e6 / SECONDS]

        (kept, got), (half,) = await interleave(max(1, rounds // 2 + 1), tcp_and_kodo, two_tcp)
    return [
        Row("a CUBIC TCP beside one session keeps", "MB/s", kept, half, "each of two TCPs", True),
        Row("that session gets beside it", "MB/s", got),
    ], [
        f"TCP: the kernel's, both through one bottleneck of the same rate, delay and queue between two network"
        f" namespaces (TUN); of {median(kept.values) + median(got.values):.1f} MB/s together"
    ]
