"""A registry that dials the nodes it lists: real sessions over WebRTC."""

import asyncio
import time

import pytest

from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.registry.client.client import RegistryClient
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import flow, identity, signed_record


async def row_that(client, holds):
    for _ in range(600):
        (row,) = (await client.nodes()).result
        if holds(row):
            return row
        await asyncio.sleep(0.1)
    pytest.fail("it did not come true in time")


async def test_a_node_that_answers_is_available_and_one_that_is_gone_less_and_less(tmp_path):
    node = identity(1)
    config = RegistryConfig(home=tmp_path / "registry", port=0, probe_s=1.0)
    async with Registry(config) as registry, RegistryClient(registry.url) as client:
        async with Host(node, WebRtcTransport()) as host:
            addresses = await host.listen(("127.0.0.1",))
            issued = time.time_ns() // 1_000_000
            addrs = tuple(str(address) for address in addresses)
            await client.up(signed_record(node, flow(), issued_at=issued, addrs=addrs))
            row = await row_that(client, lambda row: row["availability"] is not None)
            assert row["availability"] == 1.0
            assert row["performance"] > 0
            (listed,) = (await client.flows(query="availability > 0.9")).result
            assert listed["performance"] == row["performance"] or listed["availability"] == 1.0
        row = await row_that(client, lambda row: row["availability"] < 1)
        assert row["performance"] > 0


async def test_without_being_told_to_a_registry_dials_nobody(registry, client):
    await client.up(signed_record(identity(), flow()))
    (row,) = (await client.nodes()).result
    assert (row["availability"], row["performance"]) == (None, None)
