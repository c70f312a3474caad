"""Callers that come through a reverse proxy on the registry's own machine, and those who pretend to."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import NOW, identity, signed_record

BURST = 64
"""Nodes that nobody knows, from one source at once."""


class Proxied:
    """Announces nodes as a proxy passes them on."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._number = 0

    async def announce(self, told: str) -> int:
        self._number += 1
        signed = signed_record(identity(self._number), name=f"n{self._number}.example")
        said = {"Content-Type": "application/msgpack", **({"X-Forwarded-For": told} if told else {})}
        async with self._http.put("/up", data=signed, headers=said) as response:
            return response.status


async def statuses(folder: Path, proxies: frozenset[str], *told: str, count: int = BURST + 1) -> list[int]:
    """Announce so many nodes with each of these headers in turn; give the last answer to each."""
    config = RegistryConfig(home=folder, port=0, proxies=proxies)
    async with Registry(config, clock=lambda: NOW) as registry, aiohttp.ClientSession(registry.url) as http:
        caller = Proxied(http)
        last = []
        for each in told:
            for _ in range(count):
                status = await caller.announce(each)
            last.append(status)
        return last


async def test_newcomers_through_a_named_proxy_count_by_where_they_come_from(tmp_path: Path) -> None:
    told = ["198.51.100.1", "203.0.113.9, 198.51.100.1", "198.51.100.2"]
    for number, each in enumerate(told):
        assert await statuses(tmp_path / str(number), frozenset({"127.0.0.1"}), each) == [429]
    answers = await statuses(tmp_path / "both", frozenset({"127.0.0.1"}), *told[:2], count=BURST // 2 + 1)
    assert answers == [200, 429]
    assert await statuses(tmp_path / "others", frozenset({"127.0.0.1"}), told[0], told[2], count=BURST) == [200, 200]


@pytest.mark.parametrize("proxies", [frozenset[str](), frozenset({"192.0.2.99"})])
async def test_whoever_is_no_named_proxy_is_not_believed(tmp_path: Path, proxies: frozenset[str]) -> None:
    assert await statuses(tmp_path, proxies, "198.51.100.1") == [200]


async def test_what_the_proxys_machine_asks_itself_is_not_counted(tmp_path: Path) -> None:
    assert await statuses(tmp_path, frozenset({"127.0.0.1"}), "") == [200]


async def test_a_signed_call_through_a_named_proxy_has_to_have_come_over_tls(tmp_path: Path) -> None:
    config = RegistryConfig(home=tmp_path, port=0, proxies=frozenset({"127.0.0.1"}), auth="local")
    async with Registry(config) as registry, aiohttp.ClientSession(registry.url) as http:
        for headers, status in (
            ({"X-Forwarded-For": "198.51.100.1"}, 403),
            ({"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "http"}, 403),
            ({"X-Forwarded-For": "nobody"}, 403),
            ({"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Proto": "https"}, 401),
            ({}, 401),
        ):
            async with http.get("/flows", headers={"Authorization": "Kodo x", **headers}) as response:
                assert response.status == status, headers
