"""The table of sessions: what a session does beside stock aiortc, libwebrtc and libdatachannel, two processes each.

The rows are in groups that can be picked; a group that does not end in its time says so and costs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import sessions_browser, sessions_download, sessions_link, sessions_many
from benchmarks.measure import Row, Table, interleave
from benchmarks.pairs import KODO, MESSAGE, PLAIN, REFERENCES, SMALL, Pair, median, milliseconds, pair

BULK_BYTES = {KODO: 128 << 20, PLAIN: 128 << 20, "wrtc": 64 << 20, "node-datachannel": 64 << 20, "aiortc": 8 << 20}
SMALL_COUNT = {KODO: 50_000, "wrtc": 20_000, "node-datachannel": 50_000, "aiortc": 5_000}
ROUND_TRIPS = CALLS = 200

Measured = tuple[list[Row], list[str]]


async def available(stack: contextlib.AsyncExitStack, kinds: Sequence[str]) -> tuple[dict[str, Pair], list[str]]:
    """Start a pair of each; give those that run, and what to say of those that do not."""
    pairs: dict[str, Pair] = {}
    missing = []
    for kind in kinds:
        try:
            found = await stack.enter_async_context(pair(kind))
            await found.connect()
        except RuntimeError as error:
            missing.append(f"MISSING: {REFERENCES.get(kind, kind)}: {error}")
        else:
            pairs[kind] = found
    return pairs, missing


async def channels(rounds: int) -> Measured:
    """Bulk, small messages, round trips and set-up, one session each."""
    rows: list[Row] = []
    async with contextlib.AsyncExitStack() as stack:
        pairs, notes = await available(stack, [KODO, PLAIN, *REFERENCES])

        def bulk(found: Pair) -> Callable[[], Awaitable[Sequence[float]]]:
            async def once() -> list[float]:
                count = BULK_BYTES[found.kind] // MESSAGE
                seconds, near, far = await found.send(count, MESSAGE)
                megabytes = count * MESSAGE / 1e6
                return [megabytes / seconds, 1000 * far / megabytes, 1000 * near / megabytes]

            return once

        def small(found: Pair) -> Callable[[], Awaitable[Sequence[float]]]:
            async def once() -> list[float]:
                count = SMALL_COUNT[found.kind]
                return [count / (await found.send(count, SMALL))[0]]

            return once

        def setup(found: Pair) -> Callable[[], Awaitable[Sequence[float]]]:
            async def once() -> list[float]:
                taken = [1000 * await found.connect()]
                await found.close()
                return taken

            return once

        def trips(found: Pair) -> Callable[[], Awaitable[Sequence[float]]]:
            async def once() -> list[float]:
                return [median(await found.round_trips(ROUND_TRIPS))]

            return once

        async def against(
            names: list[tuple[str, str, bool]],
            what: Callable[[Pair], Callable[[], Awaitable[Sequence[float]]]],
            plain: bool = False,
        ) -> None:
            kinds = [kind for kind in pairs if plain or kind != PLAIN]
            taken = dict(zip(kinds, await interleave(rounds, *[what(pairs[kind]) for kind in kinds]), strict=True))
            for column, (figure, unit, higher) in enumerate(names):
                for kind in kinds:
                    if kind in REFERENCES:
                        rows.append(
                            Row(figure, unit, taken[KODO][column], taken[kind][column], REFERENCES[kind], higher)
                        )
                if plain:
                    plainly = f"{figure}, no GSO and GRO"
                    rows.append(
                        Row(
                            plainly, unit, taken[PLAIN][column], taken["aiortc"][column], REFERENCES["aiortc"], higher
                        )
                        if "aiortc" in taken
                        else Row(plainly, unit, taken[PLAIN][column])
                    )

        await against(
            [
                ("bulk", "MB/s", True),
                ("bulk, CPU of the sender", "ms/MB", False),
                ("bulk, CPU of the receiver", "ms/MB", False),
            ],
            bulk,
            plain=True,
        )
        await against([("100-byte messages", "1/s", True)], small)
        await against([("round trip p50, idle", "ms", False)], trips)
        await against([("set-up (kodo: to authenticated)", "ms", False)], setup)
    return rows, notes


async def calls(rounds: int) -> Measured:
    """Calls that answer at once, on a session that does nothing else."""
    async with pair(KODO) as ours:
        await ours.connect()

        async def once() -> list[float]:
            return [median(await milliseconds(ours.near, "calls", name=ours.name, count=CALLS))]

        [(taken,)] = await interleave(rounds, once)
    return [Row("call round trip p50, idle session", "ms", taken)], []


GROUPS: dict[str, tuple[Callable[[int], Awaitable[Measured]], float]] = {
    "channels": (channels, 300),
    "calls": (calls, 30),
    "latency": (sessions_many.latency, 60),
    "ten": (sessions_many.ten, 60),
    "link": (sessions_link.link, 900),
    "shared": (sessions_link.shared, 120),
    "tcp": (sessions_link.beside_tcp, 180),
    "download": (sessions_download.download, 900),
    "idle": (sessions_many.idle, 180),
    "stopped": (sessions_many.stopped, 120),
    "browser": (sessions_browser.browser, 180),
}
"""The groups of rows, and the seconds that each may take with five rounds."""


async def measure(rounds: int, groups: Sequence[str] = ()) -> Table:
    """Measure the table, or some groups of it.

    Raises:
        ValueError: a group is none.
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise ValueError(f"no such rows: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    table = Table("Sessions")
    for group in groups or GROUPS:
        work, seconds = GROUPS[group]
        limit = seconds * max(1.0, rounds / 5)
        try:
            async with asyncio.timeout(limit):
                rows, notes = await work(rounds)
        except TimeoutError:
            table.notes.append(f"MISSING: {group}: not measured within {limit:.0f} s")
        except (RuntimeError, OSError) as error:
            table.notes.append(f"MISSING: {group}: {error}")
        else:
            table.rows += rows
            table.notes += [note for note in notes if note not in table.notes]
    table.notes.append(
        f"messages of {MESSAGE >> 10} KiB, {BULK_BYTES[KODO] >> 20} MiB (aiortc {BULK_BYTES['aiortc'] >> 20}),"
        " two processes on loopback, whose packets may be longer than Ethernet's where both sides bear them; 100-byte"
        " messages: writes to a kodo stream travel together, a data channel's messages each for itself; set-up"
        " without closing, and without what carries offer and answer"
    )
    return table


__all__ = ["GROUPS", "measure"]
