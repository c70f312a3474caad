"""What strangers may do to a node and a registry, each from addresses of its own, each bounded.

    python -m tests.chaos.attacks NODE REGISTRY USERS LINK FOLDER SECONDS NAME …

runs some at once and says what became of each, as one line of JSON. An attack is a coroutine that goes on until
it is cancelled, and counts what it did and how it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net import udp
from tests.chaos import attacks_on_shares as shares
from tests.chaos import attacks_unproved as unproved
from tests.chaos.attacking import Attack, Target, counted, stand_at, step_back, unconnected_from

__all__ = ["ATTACKS", "NICE"]

NICE = 10
"""How far strangers step back: their own work is not what the user is to feel."""

_LEAVE_S = 5.0

ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        unproved.resets,
        unproved.garbage,
        unproved.certificates,
        unproved.frames,
        unproved.bodies,
        unproved.forms,
        unproved.halves,
        unproved.half_requests,
        unproved.reflection,
        shares.stopped_readers,
        shares.places,
        shares.floods,
        shares.hoards,
        shares.fetches,
        shares.uploads,
        shares.whole_uploads,
        shares.logins,
        shares.guesses,
        shares.names,
        shares.sessions,
    )
}


async def attack_all(target: Target, chosen: list[str], seconds: float) -> None:
    """Run attacks at once, each from its own addresses, each begun again when it ends early."""
    udp.unconnected = unconnected_from

    async def insist(name: str) -> None:
        stand_at(1 + list(ATTACKS).index(name))
        told = target.told[name] = Counter()
        while True:
            with counted(told, "rounds"):
                try:
                    await ATTACKS[name](target, told)
                except* Exception as errors:  # a library's fault of one's own ends no other attack
                    told[f"ended: {type(errors.exceptions[0]).__name__}"] += 1
            await asyncio.sleep(1.0)

    # An attack may be in the middle of something that takes its time to end.
    asyncio.get_running_loop().call_later(seconds + _LEAVE_S, _leave, target)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for name in chosen:
                group.create_task(insist(name))


def _leave(target: Target) -> None:
    print(json.dumps(target.told), flush=True)
    os._exit(0)


def main() -> None:
    """Read the command line, attack, and tell."""
    node, registry, users, link, folder, seconds, *chosen = sys.argv[1:]
    step_back(NICE)
    target = Target(Multiaddr.parse(node), registry, Multiaddr.parse(users), link, Path(folder))
    asyncio.run(attack_all(target, chosen, float(seconds)))
    print(json.dumps(target.told))


if __name__ == "__main__":
    main()
