"""The table of paths: what it costs to be behind NATs, and what is felt when a way changes under a session.

The networks are Linux namespaces (`tests/support/nat_lab.py`), so it takes root, `ip` and `nft`. Where distance
counts, each site is 20 ms away from the internet, by TUN devices: 80 ms there and back between the peers, 40 to the
registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from benchmarks.measure import Row, Series, Table, interleave

from tests.support.lab import Program
from tests.support.nat_lab import REGISTRY, Nat, Sites, sites

FAR_S = 0.02
"""From a site to the internet, one way."""
BULK_BYTES = 32_000_000
FOLLOW_SECONDS = "8"
BEFORE_S, RECONNECT_S = 3.0, 0.5
"""How long a session runs before something changes; how long a node needs to be back at a registry that was started
anew."""
UNBOUNDED = "1000000000"

Measured = tuple[list[Row], list[str]]
NOTE = (
    "two sites behind routers and a registry, in network namespaces; gaps: the longest silence in a stream with an"
    " item every 20 ms, which is part of it; relay without rates"
)


class World:
    """A relay, a node at site b, and where it is dialled."""

    def __init__(self, net: Sites, relay: Program, node: Program, addresses: Sequence[str]) -> None:
        self.net, self.relay, self.node, self.addresses = net, relay, node, addresses

    def only(self, relayed: bool) -> list[str]:
        """Return the addresses that lead through the relay, or the others."""
        return [each for each in self.addresses if (f"/{REGISTRY}/" in each) == relayed]

    async def dial(self, addresses: Sequence[str]) -> list[float]:
        """Dial from site a; return the milliseconds that it took."""
        async with self.net.lab.program("a", "dial", "20", *addresses) as user:
            return [(await user.says())["ms"]]


@contextlib.asynccontextmanager
async def world(user: Nat, node: Nat, *, delay_s: float = 0.0, punch: str = "early") -> AsyncIterator[World]:
    with sites(user, node, delay_s=delay_s) as net:
        async with net.lab.program("registry", "relay", REGISTRY, UNBOUNDED, "node") as relay:
            await relay.says()
            async with net.lab.program("b", "attached", REGISTRY, "node", punch) as far:
                yield World(net, relay, far, await far.says())


async def dials(rounds: int) -> Measured:
    """From nothing to authenticated."""
    async with (
        world(Nat.CONE, Nat.CONE, delay_s=FAR_S) as behind,
        world(Nat.CONE, Nat.OPEN, delay_s=FAR_S) as plain,
    ):

        async def punched() -> list[float]:
            return await behind.dial(behind.addresses)

        async def directly() -> list[float]:
            return await plain.dial(plain.only(relayed=False))

        async def beside_a_dead_relay() -> list[float]:
            dead = [each.replace("/udp/8360/", "/udp/8361/") for each in plain.only(relayed=True)]
            return await plain.dial([*dead, *plain.only(relayed=False)])

        # Nobody answers there, and nothing says so.
        plain.net.lab.run("registry", "nft", "-f", "-", given=_DEAF)
        (both,), (direct,), (dead,) = await interleave(rounds, punched, directly, beside_a_dead_relay)
    return [
        Row("from nothing to authenticated, both behind cone NATs", "ms", both, direct, "an open node, plainly"),
        Row("the same of an open node, beside a relay that is mute", "ms", dead, direct, "an open node, plainly"),
    ], ["dials: 80 ms between the peers, 40 ms to the registry"]


_DEAF = """
table ip deaf {
    chain incoming { type filter hook input priority 0; udp dport 8361 drop; }
}
"""
_BLOCKED = """
table ip blocked {
    chain forwarded {
        type filter hook forward priority 0;
        ip saddr 100.64.1.0/24 ip daddr 100.64.2.0/24 drop;
        ip saddr 100.64.2.0/24 ip daddr 100.64.1.0/24 drop;
    }
}
"""


async def gaps(rounds: int) -> Measured:
    """What is felt in a stream when something changes."""

    def rebind(it: World) -> None:
        it.net.rebind("a")

    def move(it: World) -> None:
        it.net.renumber("a")

    def block(it: World) -> None:
        it.net.lab.run("internet", "nft", "-f", "-", given=_BLOCKED)

    def restart(it: World) -> None:
        it.relay.send_signal(signal.SIGUSR1)
        asyncio.get_running_loop().call_later(RECONNECT_S, it.node.send_signal, signal.SIGUSR1)

    changes: list[tuple[str, Nat, Nat, str, Callable[[World], None]]] = [
        ("a NAT forgets the user, direct", Nat.CONE, Nat.OPEN, "direct", rebind),
        ("the user gets another address, direct", Nat.CONE, Nat.OPEN, "direct", move),
        ("a NAT forgets the user, over the relay", Nat.SYM, Nat.SYM, "relay", rebind),
        ("from the relay to the punched way", Nat.CONE, Nat.CONE, "punched", lambda it: None),
        ("the punched way is blocked, back to the relay", Nat.CONE, Nat.CONE, "relay", block),
        ("the relay is restarted", Nat.SYM, Nat.SYM, "relay", restart),
    ]
    rows, notes = [], []
    for name, user, node, route, change in changes:
        taken = []
        for _ in range(rounds):
            async with (
                world(user, node, delay_s=FAR_S) as it,
                it.net.lab.program("a", "follow", FOLLOW_SECONDS, *it.addresses) as follower,
            ):
                await follower.says()
                await asyncio.sleep(BEFORE_S)
                change(it)
                told = await follower.says()
            if (told["error"], told["route"]) != (None, route):
                notes.append(f"WRONG: {name}: {told}")
            taken.append(float(told["longest_gap_ms"]))
        rows.append(Row(f"longest gap: {name}", "ms", Series(tuple(taken))))
    return rows, notes


async def bulk(rounds: int) -> Measured:
    """Throughput, and the CPU time of all who take part."""

    async def fetch(it: World, route: str) -> list[float]:
        megabytes = BULK_BYTES / 1e6
        async with it.net.lab.program("a", "fetch-by", route, str(BULK_BYTES), *it.addresses) as user:
            await user.says()
            before = [each.cpu_seconds() for each in (it.node, user, it.relay)]
            told = await user.says()
            after = [each.cpu_seconds() for each in (it.node, user, it.relay)]
        if (told["error"], told["route"]) != (None, route):
            raise RuntimeError(f"by {route}: {told}")
        return [
            megabytes / told["seconds"],
            *(1000 * (b - a) / megabytes for a, b in zip(before, after, strict=True)),
        ]

    async with (
        world(Nat.CONE, Nat.OPEN) as plain,
        world(Nat.CONE, Nat.CONE) as behind,
        world(Nat.CONE, Nat.CONE, punch="never") as relayed,
    ):
        ways: list[Callable[[], Awaitable[Sequence[float]]]] = [
            lambda: fetch(plain, "direct"),
            lambda: fetch(behind, "punched"),
            lambda: fetch(relayed, "relay"),
        ]
        direct, punched, relay = await interleave(rounds, *ways)
    rows = []
    for name, of in (("punched", punched), ("relayed", relay)):
        rows.append(Row(f"bulk, {name}", "MB/s", of[0], direct[0], "direct", True))
        rows.append(Row(f"bulk, {name}, CPU of the node", "ms/MB", of[1], direct[1], "direct"))
        rows.append(Row(f"bulk, {name}, CPU of the user", "ms/MB", of[2], direct[2], "direct"))
    rows.append(Row("bulk, relayed, CPU of the relay", "ms/MB", relay[3], direct[1], "the node, direct"))
    return rows, [f"bulk: {BULK_BYTES / 1e6:.0f} MB as items of one call, no delay, packets of at most 1,500 bytes"]


GROUPS: dict[str, tuple[Callable[[int], Awaitable[Measured]], float]] = {
    "dials": (dials, 300),
    "gaps": (gaps, 900),
    "bulk": (bulk, 600),
}
"""The groups of rows, and the seconds that each may take with five rounds."""


async def measure(rounds: int, groups: Sequence[str] = ()) -> Table:
    """Measure the table, or some groups of it."""
    table = Table("Paths", notes=[NOTE])
    if os.geteuid() or not all(map(shutil.which, ("ip", "nft"))):
        table.notes.append("MISSING: all: it takes root, `ip` (iproute2) and `nft` (nftables)")
        return table
    for group in groups or GROUPS:
        work, seconds = GROUPS[group]
        try:
            async with asyncio.timeout(seconds * max(1.0, rounds / 5)):
                rows, notes = await work(rounds)
        except TimeoutError:
            table.notes.append(f"MISSING: {group}: not measured within its time")
        except (RuntimeError, OSError) as error:
            table.notes.append(f"MISSING: {group}: {error}")
        else:
            table.rows += rows
            table.notes += notes
    return table


__all__ = ["GROUPS", "measure"]
