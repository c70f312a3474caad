"""A stream goes on whatever becomes of the NAT before the user, or of the user's address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.lab import needs_root
from tests.support.nat_lab import Nat, Site, Sites, many_sites

pytestmark = needs_root

FOLLOW_SECONDS = "4"
ITEMS = 100
"""At least so many of those 50 a second that are sent meanwhile."""

CHANGES: dict[str, Callable[[Sites, Site], None]] = {
    "the NAT forgets the user": lambda net, user: net.rebind(user),
    "the NAT gets another address": lambda net, user: net.renumber(user),
    "the user gets another address": lambda net, user: net.move(user, 77),
}
USERS = {"a-cone": Nat.CONE, "a-sym": Nat.SYM}


async def test_a_stream_goes_on_whatever_changes_before_the_node_sees_the_user() -> None:
    with many_sites({**USERS, "b": Nat.OPEN}) as net:
        async with net.lab.programs() as programs:
            programs.start("b", "serve")
            _, told = await programs.says()
            [address] = [each for each in told if f"/{net.address('b')}/" in each]
            for user in USERS:
                programs.start(user, "follow", FOLLOW_SECONDS, address)
            for _ in USERS:
                _, told = await programs.says()
                assert "connected" in told
            for what, change in CHANGES.items():
                await asyncio.sleep(0.8)
                print(what)
                for user in USERS:
                    change(net, user)
            ended = dict([await programs.says() for _ in USERS])
    for user, told in ended.items():
        print(user, "longest gap", told["longest_gap_ms"], "ms")
        assert (told["error"], told["closed"], told["route"]) == (None, False, "direct")
        assert told["items"] > ITEMS
