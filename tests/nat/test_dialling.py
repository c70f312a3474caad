"""Which nodes can be dialled at their own address from behind which kinds of NAT, and what is said where not."""

from __future__ import annotations

import pytest

from tests.support.lab import needs_root
from tests.support.nat_lab import Nat, Sites, sites

pytestmark = needs_root

REFUSED_SECONDS = "1"
"""How long an address is tried that does not answer."""


async def listen_and_dial(net: Sites, seconds: str) -> dict[str, str]:
    """Let a node listen at site b, and dial it from site a at the address that the internet sees of it."""
    async with net.lab.program("b", "serve") as node:
        told = await node.says()
        [own] = [address for address in told if f"/{net.address('b')}/" in address]
        address = own.replace(net.address("b"), net.public_address("b"))
        async with net.lab.program("a", "dial", seconds, address) as user:
            answer: dict[str, str] = await user.says()
            return answer


@pytest.mark.parametrize("kind", [kind for kind in Nat if kind is not Nat.NOUDP])
async def test_an_open_node_is_reached_directly_from_behind_every_nat(kind: Nat) -> None:
    with sites(kind, Nat.OPEN) as net:
        told = await listen_and_dial(net, "20")
        assert told == {"connected": net.address("b"), "route": "direct"}


@pytest.mark.parametrize(
    ("user", "node"),
    [(Nat.NOUDP, Nat.OPEN), (Nat.OPEN, Nat.CONE), (Nat.OPEN, Nat.SYM)],
    ids=["UDP is blocked", "a NAT lets nobody in", "a NAT gives each destination a port of its own"],
)
async def test_a_node_that_lets_no_packet_in_is_said_not_to_answer(user: Nat, node: Nat) -> None:
    with sites(user, node) as net:
        told = await listen_and_dial(net, REFUSED_SECONDS)
        where = net.public_address("b")
    assert told["refused"].startswith(f"nobody answered within {REFUSED_SECONDS} s at {where} port ")
