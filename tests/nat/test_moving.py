"""A stream goes on whatever becomes of the NAT before the user, or of the user's address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.lab import needs_root
from tests.support.nat_lab import Nat, Sites, sites

pytestmark = needs_root

FOLLOW_SECONDS = "4"
ITEMS = 100
"""At least so many of those 50 a second that are sent meanwhile."""

CHANGES: dict[str, Callable[[Sites], None]] = {
    "the NAT forgets the user": lambda net: net.rebind("a"),
    "the NAT gets another address": lambda net: net.renumber("a"),
    "the user gets another address": lambda net: net.move("a", 77),
}


@pytest.mark.parametrize("kind", [Nat.CONE, Nat.SYM])
async def test_a_stream_goes_on_whatever_changes_before_the_node_sees_the_user(kind: Nat) -> None:
    with sites(kind, Nat.OPEN) as net:
        async with net.lab.program("b", "serve") as node:
            [address] = [each for each in await node.says() if f"/{net.address('b')}/" in each]
            async with net.lab.program("a", "follow", FOLLOW_SECONDS, address) as user:
                assert "connected" in await user.says()
                for what, change in CHANGES.items():
                    await asyncio.sleep(0.8)
                    print(what)
                    change(net)
                told = await user.says()
    assert (told["error"], told["closed"], told["route"]) == (None, False, "direct")
    print("longest gap", told["longest_gap_ms"], "ms")
    assert told["items"] > ITEMS
