"""`koco web`'s server over real sockets: who gets in, what is kept, what passes to a registry."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from kodo.client.config import load_settings
from kodo.mcp.config import HOSTS, config_for, configs_of_flow
from kodo.mcp.options import BridgeOptions
from kodo.p2p.errors import UsageError
from kodo.registry.client.client import RegistryClient
from kodo.registry.records.record import sign_record
from kodo.registry.server import Registry, RegistryConfig
from kodo.web.server import WebConfig, WebServer
from kodo.web.site import Site
from tests.support import records

SCRIPT = "app-ABCDEFGH.js"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text('<!doctype html><html data-host="">')
    (folder / SCRIPT).write_text("1;" * 500)
    (folder / "sw.js").write_text("2;")
    return Site("web", folder=folder)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with Registry(RegistryConfig(home=tmp_path / "registry", port=0)) as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, site: Site, registry: Registry) -> AsyncIterator[WebServer]:
    async with WebServer(config(tmp_path / "user", registry.url), site=site) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


def config(home: Path, *registries: str, port: int = 0) -> WebConfig:
    loaded = load_settings(home, {"registry": list(registries), "lan": False}, {})
    return WebConfig(home, loaded.settings, port)


async def key_of(server: WebServer, http: aiohttp.ClientSession) -> dict[str, str]:
    entry = server.url.partition("#key=")[2]
    async with http.post(f"{server.origin}/api/enter", headers={"Authorization": f"Bearer {entry}"}) as answer:
        assert answer.status == 200
        return {"Authorization": f"Bearer {(await answer.json())['key']}"}


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get(url, headers=names) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if "json" in answer.content_type else body


async def test_the_page_comes_with_its_policy_and_is_not_stored(
    server: WebServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(server.origin) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert "require-trusted-types-for 'script'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert b'data-host="web"' in await answer.read()


async def test_a_file_that_is_named_by_its_content_is_kept_for_good(
    server: WebServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{server.origin}/{SCRIPT}", headers={"Accept-Encoding": "gzip"}) as answer:
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert len(await answer.read()) < 200


async def test_any_other_file_is_asked_for_again_and_not_sent_again(
    server: WebServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{server.origin}/sw.js") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        tag = answer.headers["ETag"]
    async with http.get(f"{server.origin}/sw.js", headers={"If-None-Match": tag}) as again:
        assert again.status == 304


@pytest.mark.parametrize("path", ["/../web.port", "/%2e%2e/web.port", "/dist/index.html", "/index.html", "/nothing"])
async def test_nothing_else_of_the_disk_can_be_named(
    server: WebServer, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(URL(server.origin + path, encoded=True)) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/api/about", "/api/mcp", "/api/nodes", "/api/registries/0/flows", "/api/nothing"])
async def test_the_api_is_closed_to_whoever_has_no_key(
    server: WebServer, http: aiohttp.ClientSession, path: str
) -> None:
    entry = server.url.partition("#key=")[2]
    for headers in ({}, {"Authorization": f"Bearer {entry}"}, {"Authorization": "Basic x"}):
        status, body = await get(http, server.origin + path, **headers)
        assert (status, body["reason"]) == (401, "key-needed")


async def test_a_guessed_entry_key_is_refused(server: WebServer, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{server.origin}/api/enter", headers={"Authorization": "Bearer guess"}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8361", "127.0.0.1", "127.0.0.1:1"])
async def test_a_name_that_leads_here_is_not_enough(
    server: WebServer, http: aiohttp.ClientSession, host: str
) -> None:
    for path in ("/", "/api/about"):
        status, body = await get(http, server.origin + path, Host=host)
        assert (status, body["reason"]) == (421, "wrong-host")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
)
async def test_pages_of_other_origins_may_not_ask(
    server: WebServer, http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    status, body = await get(http, f"{server.origin}/api/about", **headers, **await key_of(server, http))
    assert (status, body["reason"]) == (403, "wrong-origin")


async def test_a_page_learns_what_is_configured(
    server: WebServer, http: aiohttp.ClientSession, registry: Registry
) -> None:
    status, body = await get(http, f"{server.origin}/api/about", **await key_of(server, http))
    assert (status, body["registries"], body["lan"]) == (200, [registry.url], False)
    assert await get(http, f"{server.origin}/api/nodes", **await key_of(server, http)) == (200, {"result": []})


async def test_reads_of_a_registry_pass(server: WebServer, http: aiohttp.ClientSession, registry: Registry) -> None:
    record = records.record(issued_at=time.time_ns() // 1_000_000)
    async with RegistryClient(registry.url) as client:
        await client.up(sign_record(record, records.identity()))
    key = await key_of(server, http)
    base = f"{server.origin}/api/registries/0"
    _, nodes = await get(http, f"{base}/nodes?pp=5", **key)
    assert [row["peer_id"] for row in nodes["result"]] == [record.peer_id]
    _, flows = await get(http, f"{base}/flows?search=*&by=name", **key)
    assert flows["filtered_records"] == len(record.flows)
    _, one = await get(http, f"{base}/nodes/{record.peer_id}", **key)
    assert one["addrs"] == list(record.addrs)
    _, found = await get(http, f"{server.origin}/api/nodes/{record.peer_id}", **key)
    assert found["addrs"] == list(record.addrs)
    status, _ = await get(http, f"{base}/state", **key)
    assert status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/registries/1/flows", 404),
        ("/api/registries/0/flows?search=a&search=b", 400),
        ("/api/registries/0/flows?since=1", 400),
        ("/api/registries/0/flows?p=-1", 400),
        ("/api/registries/0/flows?query=" + "x" * 5000, 400),
        ("/api/registries/0/flows?query=no+such+field", 400),
        ("/api/registries/0/nodes/x", 404),
        ("/api/registries/0/audit", 404),
        ("/api/registries/0/records", 404),
        ("/api/mcp?peer_id=x&path=a", 404),
    ],
)
async def test_nothing_but_reads_of_the_right_shape_pass(
    server: WebServer, http: aiohttp.ClientSession, path: str, status: int
) -> None:
    assert (await get(http, server.origin + path, **await key_of(server, http)))[0] == status


async def test_what_mcp_hosts_are_told_is_what_the_command_prints(
    tmp_path: Path, site: Site, http: aiohttp.ClientSession
) -> None:
    loaded = load_settings(tmp_path / "user", {"lan": False}, {})
    configs = partial(configs_of_flow, loaded=loaded)
    peer_id = str(records.identity().peer_id)
    async with WebServer(WebConfig(loaded.home, loaded.settings, 0, configs), site=site) as server:
        base, key = f"{server.origin}/api/mcp", await key_of(server, http)
        url = URL(base).with_query(peer_id=peer_id, path="flows.a")
        wanted = {name: config_for(name, BridgeOptions(peer_id, ("flows.a",)), loaded) for name in HOSTS}
        assert await get(http, str(url), **key) == (200, {"result": wanted})
        for query in ("", "?path=a", f"?peer_id={peer_id}", f"?peer_id={peer_id}&path=", "?peer_id=x&path=a"):
            assert (await get(http, base + query, **key))[0] == 400
        for query in (f"?peer_id={peer_id}&path={'a' * 513}", f"?peer_id={peer_id}&path=a&path=b", "?x=1"):
            assert (await get(http, base + query, **key))[0] == 400


async def test_a_registry_that_is_away_is_told_as_such(
    tmp_path: Path, site: Site, http: aiohttp.ClientSession
) -> None:
    async with WebServer(config(tmp_path / "u", "http://127.0.0.1:9"), site=site) as server:
        status, body = await get(http, f"{server.origin}/api/registries/0/flows", **await key_of(server, http))
        assert (status, body["reason"]) == (502, "registry-away")


async def test_the_port_stays_over_restarts_and_is_never_shared(tmp_path: Path, site: Site) -> None:
    home = tmp_path / "user"
    async with WebServer(config(home), site=site) as server:
        first = server.origin
        with pytest.raises(UsageError, match="--port"):
            await WebServer(WebConfig(home, config(home).settings), site=site).__aenter__()
    async with WebServer(WebConfig(home, config(home).settings), site=site) as server:
        assert server.origin == first


async def test_the_way_in_for_a_browser_is_a_file_that_nobody_else_reads(tmp_path: Path, site: Site) -> None:
    home = tmp_path / "user"
    async with WebServer(config(home), site=site) as server:
        url = server.write_entry()
        assert server.url.partition("#key=")[2] not in url
        mode, text = await asyncio.to_thread(look_at, url)
        assert mode == 0o600
        assert server.url in text
    with pytest.raises(FileNotFoundError):
        await asyncio.to_thread(look_at, url)


def look_at(url: str) -> tuple[int, str]:
    path = Path(url.removeprefix("file://"))
    return path.stat().st_mode & 0o777, path.read_text()


async def test_a_registry_serves_the_page_beside_its_api(
    tmp_path: Path, site: Site, http: aiohttp.ClientSession
) -> None:
    async with Registry(RegistryConfig(home=tmp_path / "r", port=0), page=site.routes()) as running:
        async with http.get(running.url) as answer:
            assert answer.content_type == "text/html"
            assert "Content-Security-Policy" in answer.headers
        assert (await get(http, f"{running.url}/nodes"))[1]["result"] == []
        assert (await get(http, f"{running.url}/", Host="evil.example"))[0] == 421
