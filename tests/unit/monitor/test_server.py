"""`/healthz` and `/metrics`: where they are served, what they answer, and to whom not."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest
from prometheus_client import Gauge

from kodo.http import connections
from kodo.monitor.server import Endpoint, MonitorServer, parse_endpoint
from kodo.p2p.errors import UsageError
from tests.unit.node.conftest import settled


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("9464", Endpoint("127.0.0.1", 9464)),
        (":9464", Endpoint("127.0.0.1", 9464)),
        ("127.0.0.1:0", Endpoint("127.0.0.1", 0)),
        ("[::1]:9464", Endpoint("::1", 9464)),
        ("0.0.0.0:9464", Endpoint("0.0.0.0", 9464)),
    ],
)
def test_an_address_is_read(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "name:1", "127.0.0.1:-1", "١"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_endpoint(text)


async def ask(server: MonitorServer, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(server.url + path, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_health_is_what_is_not_failing() -> None:
    failing = {"disk": "full"}
    async with MonitorServer(Endpoint("127.0.0.1", 0), lambda: failing) as server:
        assert await ask(server, "/healthz") == (503, '{"status": "failing", "failing": {"disk": "full"}}')
        failing.clear()
        assert await ask(server, "/healthz") == (200, '{"status": "ok"}')
        assert (await ask(server, "/"))[0] == 404


async def test_metrics_are_refreshed_before_they_are_told() -> None:
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        gauge = Gauge("asked", "How often.", registry=server.registry)

        async def refresh() -> None:
            gauge.inc()

        server.refresh_by(refresh)
        assert "asked 1.0" in (await ask(server, "/metrics"))[1]
        assert "asked 2.0" in (await ask(server, "/metrics"))[1]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_page_of_another_site_is_answered_nothing(headers: dict[str, str]) -> None:
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        for path in ("/healthz", "/metrics"):
            assert (await ask(server, path, **headers))[0] == 403


async def test_a_taken_address_is_refused_with_words() -> None:
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"metrics cannot be served at 127.0.0.1:{port}"):
            async with MonitorServer(Endpoint("127.0.0.1", port), dict):
                pass


def test_only_a_loopback_address_is_for_this_machine_alone() -> None:
    assert not MonitorServer(Endpoint("::1", 1), dict).is_wide
    assert MonitorServer(Endpoint("0.0.0.0", 1), dict).is_wide


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.1", 403),
    ],
)
async def test_a_name_that_was_led_to_this_machine_is_told_nothing(name: str, status: int) -> None:
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        for path in ("/healthz", "/metrics"):
            assert (await ask(server, path, Host=f"{name}:9464"))[0] == status


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
async def test_a_connection_that_asks_nothing_is_cut(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.01)
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await settled(lambda: not server.connections)


async def test_those_that_are_silent_leave_room_for_others_and_are_bounded() -> None:
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        port = int(server.url.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        await settled(lambda: server.connections == 48)
        for _, writer in silent:
            writer.close()
        await settled(lambda: not server.connections)
        assert (await ask(server, "/healthz"))[0] == 200


async def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKE_S", 0.01)
    async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as server:
        many = Gauge("many", "x" * 100, ["label"], registry=server.registry)
        for number in range(1000):
            many.labels(f"{number}{'y' * 20_000}").set(1)
        endpoint = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(endpoint[0], int(endpoint[1]), limit=1024)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await writer.drain()
        await reader.readexactly(1)  # it has begun to answer, and is read no further
        await settled(lambda: not server.connections)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
