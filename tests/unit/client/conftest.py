"""A network in memory with one node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.world import World


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in ("KODO_HOME", "KODO_REGISTRY", "KODO_NODE"):
        monkeypatch.delenv(name, raising=False)
    world = World()
    async with world.host:
        await world.host.listen(["10.0.0.1"], 4711)
        world.claim("n.example")
        yield world
