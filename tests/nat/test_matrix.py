"""Who reaches whom by which route, behind all kinds of NAT, with one relay and nothing else."""

from __future__ import annotations

import asyncio
import json

from tests.support.lab import needs_root
from tests.support.nat_lab import REGISTRY, Nat, many_sites

pytestmark = needs_root

KINDS = [Nat.OPEN, Nat.FULL, Nat.CONE, Nat.LEAKY, Nat.SYM]
REACH_SECONDS = 60.0
TWICE = "twice"
"""A node behind a router at home, `CONE`, that is itself behind its provider's, `CONE` too."""


def expected(user: Nat, node: Nat) -> str:
    """Return the best route that there is."""
    lets_anybody_in = {Nat.OPEN, Nat.FULL}
    if node is Nat.OPEN:
        return "direct"
    if Nat.SYM not in (user, node):
        return "punched"
    # Whose NAT has another port for each destination reaches only those who let strangers in.
    return "punched" if (user if node is Nat.SYM else node) in lets_anybody_in else "relay"


async def test_all_pairs_connect_each_by_the_best_route_that_there_is() -> None:
    users = {f"a-{kind}": kind for kind in KINDS}
    nodes = {f"b-{kind}": kind for kind in KINDS}
    at_home = {**nodes, TWICE: Nat.CONE}
    wanted = {(user, node): expected(users[user], at_home[node]) for user in users for node in at_home}
    routes: dict[tuple[str, str], list[str]] = {pair: [] for pair in wanted}
    addresses: dict[str, list[str]] = {}
    with many_sites({**users, **nodes, "provider": Nat.CONE}) as net:
        net.host_behind("provider", TWICE, Nat.CONE)
        async with net.lab.programs() as programs, asyncio.timeout(REACH_SECONDS):
            programs.start("registry", "relay", REGISTRY, "usual", *at_home)
            await programs.says()
            for node in at_home:
                programs.start(node, "attached", REGISTRY, node, "early")
            for _ in at_home:
                node, told = await programs.says()
                addresses[node] = told
            for user in users:
                programs.start(user, "reach", json.dumps(addresses))
            missing = dict(wanted)
            try:
                while missing:
                    user, (node, route) = await programs.says()
                    routes[user, node].append(route)
                    missing = {pair: route for pair, route in wanted.items() if routes[pair][-1:] != [route]}
            finally:
                print({pair: (routes[pair], route) for pair, route in missing.items()})
    # Nobody wavers, and nobody has a better route first than he keeps.
    assert [pair for pair, each in routes.items() if each not in ([wanted[pair]], ["relay", wanted[pair]])] == []


INTRODUCED = [Nat.FULL, Nat.CONE, Nat.LEAKY, Nat.SYM]


async def test_a_registry_that_relays_nothing_introduces_who_can_be_and_says_of_the_others_what_to_do() -> None:
    users, nodes = {f"a-{kind}": kind for kind in INTRODUCED}, {f"b-{kind}": kind for kind in INTRODUCED}
    told: dict[tuple[str, str], str] = {}
    addresses: dict[str, list[str]] = {}
    with many_sites({**users, **nodes}) as net:
        async with net.lab.programs() as programs, asyncio.timeout(REACH_SECONDS):
            programs.start("registry", "relay", REGISTRY, "off", *nodes)
            await programs.says()
            for node in nodes:
                programs.start(node, "introduced", REGISTRY, node)
            for _ in nodes:
                node, said = await programs.says()
                addresses[node] = said
            for user in users:
                programs.start(user, "reach", json.dumps(addresses))
            while len(told) < len(users) * len(nodes):
                user, (node, route) = await programs.says()
                told[user, node] = route
    for (user, node), route in told.items():
        if expected(users[user], nodes[node]) == "punched":
            assert route == "punched", (user, node)
        else:
            assert "koco registry --relay" in route, (user, node)
