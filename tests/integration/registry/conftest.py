import asyncio

import aiohttp
import pytest

from kodo.registry.client.client import RegistryClient
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import NOW


class Clock:
    """Stands still until it is moved; ms UTC."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * 1000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(tmp_path):
    """Believe this machine whom it speaks for, so that tests can call from other addresses."""
    return RegistryConfig(
        home=tmp_path / "registry",
        port=0,
        name="test registry",
        search_s=60.0,
        hosts=frozenset({"Registry.Example"}),
        proxies=frozenset({"127.0.0.1"}),
    )


@pytest.fixture
async def registry(config, clock):
    async with Registry(config, clock=clock) as registry:
        yield registry


@pytest.fixture
async def client(registry):
    async with RegistryClient(registry.url) as client:
        yield client


@pytest.fixture
async def http(registry):
    async with aiohttp.ClientSession(
        registry.url, auto_decompress=False, headers={"Accept-Encoding": "identity"}
    ) as session:
        yield session


@pytest.fixture
def raw(registry):
    """Send bytes as they are; give all that comes back."""

    async def send(data):
        host, port = registry.url.removeprefix("http://").split(":")
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(data)
                await writer.drain()
                return await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()

    return send
