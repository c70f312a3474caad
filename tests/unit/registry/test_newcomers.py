"""Who announces many nodes that nobody knows is slowed down, by where they come from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kodo.access.throttle import Throttle
from kodo.p2p.errors import CallError
from kodo.registry.http.app import Service


def service(known: set[str]) -> Any:
    async def knows(peer_id: str) -> bool:
        return peer_id in known

    made = SimpleNamespace(
        store=SimpleNamespace(knows=knows), clock=lambda: 1_000_000, newcomers=Throttle(burst=3, every_ms=1000)
    )

    async def welcome(peer_id: str, remote: str) -> None:
        await Service.welcome(cast(Service, made), peer_id, remote)

    return welcome


async def test_the_nodes_of_one_source_are_few_at_once_and_known_ones_are_not_counted() -> None:
    welcome = service({"known"})
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3"):
        await welcome(f"peer of {address}", address)
    with pytest.raises(CallError, match="429 too-often"):
        await welcome("one more", "2001:db8::ffff:1")
    await welcome("known", "2001:db8::4")
    await welcome("another's", "2001:db8:0:1::1")


async def test_nodes_of_this_machine_are_not_counted() -> None:
    welcome = service(set())
    for number in range(100):
        await welcome(f"peer{number}", "127.0.0.1" if number % 2 else "::1")
