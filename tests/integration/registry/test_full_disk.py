"""A registry whose disk is full: what it answers, that nothing is lost, and that it goes on once there is room."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.errors import CallError, UsageError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import NOW, flow, identity, signed_goodbye, signed_heartbeat, signed_record
from tests.support.small_disk import fill, small_disk

pytestmark = pytest.mark.usefixtures("disk")

MOST = 2000
"""Announcements after which a disk that is full has to have been noticed."""


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    with small_disk(tmp_path / "home", 16 << 20) as mounted:
        if not mounted:
            pytest.skip("mounting a small disk takes root")
        yield


def record_of(number: int) -> bytes:
    return signed_record(identity(number), flow(description=f"{number} " + "x" * 2000), name=f"n{number}.example")


async def said(call: Awaitable[Any]) -> tuple[int, str]:
    """Give how a call was refused; (200, "") when it was not."""
    try:
        await call
    except CallError as error:
        return error.code, error.reason
    return 200, ""


FULL = {(507, "disk-full"), (503, "storage")}


async def listed(client: RegistryClient) -> set[str]:
    """Give the names of all nodes."""
    found: set[str] = set()
    page = 1
    while True:
        answer = await client.nodes(p=page, pp=100)
        found |= {row["name"] for row in answer.result}
        if page >= answer.total_pages:
            return found
        page += 1


async def test_a_full_disk_is_told_nothing_is_lost_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = RegistryConfig(home=home, port=0, name="small")
    now = NOW

    def clock() -> int:
        return now

    async with Registry(config, clock=clock) as registry, RegistryClient(registry.url) as client:
        claimant = Claimant(load_identity(home, "user"), now=clock)
        async with OperatorClient(registry.url, claimant) as operator:
            taken = {f"n{number}.example" for number in range(1, 20)}
            for number in range(1, 20):
                await client.up(record_of(number))
            ballast = home / "ballast"
            fill(ballast)

            # Announcements, until the room that the file has already is used up.
            number, answer = 19, (200, "")
            while answer == (200, "") and number < MOST:
                number += 1
                answer = await said(client.up(record_of(number)))
                taken |= {f"n{number}.example"} if answer == (200, "") else set()
            assert answer in FULL
            assert f"n{number}.example" not in await listed(client)
            # What is a few bytes may find room in what is there; what is refused is refused clearly.
            for change in (
                client.up(record_of(number + 1)),
                operator.annotate("n1.example", {"description": "y" * 4000}),
                operator.register("listed.example"),
                client.state(signed_heartbeat(identity(1), at=NOW + 60_000)),
            ):
                assert await said(change) in FULL | {(200, "")}
            refused = await said(client.up(record_of(number)))
            assert refused in FULL

            # Reading goes on, also where the silence of nodes has lasted long enough to change what they are.
            now += 400_000
            assert await listed(client) >= taken
            assert (await client.flows(search="*Competitor*")).total_records >= len(taken)
            assert (await client.registry_state()).name == "small"
            assert (await client.record(str(identity(1).peer_id))).name == "n1.example"
            assert (await operator.stale()) == []

            ballast.unlink()
            await client.up(record_of(number))
            await operator.annotate("n2.example", {"description": "here again"})
            await client.down(signed_goodbye(identity(3)))
            assert await listed(client) >= taken | {f"n{number}.example"}
            online = {row["name"]: row["online"] for row in (await client.nodes(pp=100)).result}
            assert online["n3.example"] is None
            assert online["n2.example"] is False

    async with Registry(config, clock=clock) as registry, RegistryClient(registry.url) as client:
        assert await listed(client) >= taken | {f"n{number}.example"}


async def test_a_registry_that_cannot_start_on_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = RegistryConfig(home=home, port=0)
    async with Registry(config, clock=lambda: NOW) as registry, RegistryClient(registry.url) as client:
        await client.up(record_of(1))
    fill(home / "ballast")
    with pytest.raises(UsageError, match="disk is full: make room"):
        async with Registry(config, clock=lambda: NOW):
            pass
    (home / "ballast").unlink()
    async with Registry(config, clock=lambda: NOW) as registry, RegistryClient(registry.url) as client:
        assert await listed(client) == {"n1.example"}
