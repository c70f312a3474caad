"""Hundreds of flows of a registry, by signed records over its socket: each list is bounded, and all are found."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.client import Client
from kodo.client.config import load_settings
from kodo.mcp.catalog import Catalog
from kodo.mcp.options import BridgeOptions
from kodo.p2p.core.identity import Identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.records.record import sign_record
from kodo.registry.server import Registry, RegistryConfig
from tests.integration.mcp.conftest import bridge, text_of
from tests.support import records

NODES, FLOWS = 8, 60


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry that knows many flows."""
    now = time.time_ns() // 1_000_000
    async with Registry(RegistryConfig(home=tmp_path / "registry", port=0)) as running:
        async with RegistryClient(running.url) as client:
            for number in range(NODES):
                identity = Identity.from_seed(bytes([number + 1]) * 32)
                flows = [
                    records.flow(
                        path=f"flows.work{number}x{each}", name=f"Work {number}x{each}", description="d" * 400
                    )
                    for each in range(FLOWS)
                ]
                record = records.record(identity, *flows, name=f"node{number}.example.com", issued_at=now)
                await client.up(sign_record(record, identity))
        yield running


async def test_a_host_gets_a_page_at_a_time_and_finds_what_it_names(registry: Registry, tmp_path: Path) -> None:
    async with bridge(tmp_path / "user", "--registry", registry.url, mode="legacy", tmp=tmp_path) as here:
        assert len((await here.client.list_tools()).tools) < 40
        seen = set()
        for offset in range(0, NODES * FLOWS, 20):
            page = await here.client.call_tool("find_flows", {"offset": offset})
            assert page.structured_content["total"] == NODES * FLOWS
            assert len(text_of(page)) < 20_000
            seen |= {row["flow"] for row in page.structured_content["flows"]}
        assert len(seen) == NODES * FLOWS
        found = (await here.client.call_tool("find_flows", {"search": "WORK 7x59"})).structured_content
        assert [row["name"] for row in found["flows"]] == ["Work 7x59"]


async def test_a_search_finds_what_lies_beyond_what_is_looked_through(registry: Registry, tmp_path: Path) -> None:
    loaded = load_settings(tmp_path / "user", {"registry": [registry.url], "lan": False}, {})
    async with Client(settings=loaded) as client:
        catalog = Catalog(client, BridgeOptions(), most=50)
        listed = await catalog.offers()
        assert catalog.cut
        assert len(listed) == 50
        for number in range(NODES):
            word = f"{number}x{FLOWS - 1}"
            assert [offer.name for offer in await catalog.search([word])] == [f"Work {word}"]
        assert await catalog.search(["nothing", "has", "this"]) == []
