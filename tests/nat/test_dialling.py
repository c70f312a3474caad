"""Which nodes can be dialled at their own address from behind which kinds of NAT, and what is said where not."""

from __future__ import annotations

from typing import Any

from tests.support.lab import needs_root
from tests.support.nat_lab import Nat, Site, Sites, many_sites

pytestmark = needs_root

REFUSED_SECONDS = "1"
"""How long an address is tried that does not answer."""
USERS = {f"a-{kind}": kind for kind in Nat}


async def listen_and_dial(net: Sites, pairs: list[tuple[Site, Site]], seconds: str) -> dict[Site, dict[str, Any]]:
    """Let nodes listen and users dial them at the addresses that the internet sees of them; each dials one."""
    addresses: dict[Site, str] = {}
    nodes = {node for _, node in pairs}
    async with net.lab.programs() as programs:
        for node in nodes:
            programs.start(node, "serve", "0.0.0.0")
        for _ in nodes:
            node, told = await programs.says()
            [own] = [address for address in told if f"/{net.address(node)}/" in address]
            addresses[node] = own.replace(net.address(node), net.public_address(node))
        for user, node in pairs:
            programs.start(user, "dial", seconds, addresses[node])
        return dict([await programs.says() for _ in pairs])


async def test_an_open_node_is_reached_directly_from_behind_every_nat() -> None:
    users = {user: kind for user, kind in USERS.items() if kind is not Nat.NOUDP}
    with many_sites({**users, "node": Nat.OPEN}) as net:
        told = await listen_and_dial(net, [(user, "node") for user in users], "20")
        assert {user: (each["connected"], each["route"]) for user, each in told.items()} == dict.fromkeys(
            users, (net.address("node"), "direct")
        )


async def test_a_node_that_lets_no_packet_in_is_said_not_to_answer() -> None:
    kinds = {"a-noudp": Nat.NOUDP, "b-open": Nat.OPEN, "a-one": Nat.OPEN, "b-cone": Nat.CONE}
    with many_sites({**kinds, "a-other": Nat.OPEN, "b-sym": Nat.SYM}) as net:
        pairs = [("a-noudp", "b-open"), ("a-one", "b-cone"), ("a-other", "b-sym")]
        told = await listen_and_dial(net, pairs, REFUSED_SECONDS)
        for user, node in pairs:
            where = net.public_address(node)
            assert told[user]["refused"].startswith(f"nobody answered within {REFUSED_SECONDS} s at {where} port ")
