"""Malformed requests to every HTTP server that kodo has: each is refused, and none makes a server log a fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.client.config import load_settings
from kodo.monitor.server import Endpoint, MonitorServer
from kodo.registry.server import Registry, RegistryConfig
from kodo.web.server import WebConfig, WebServer
from kodo.web.site import Site

HOSTS = (
    "127.0.0.1:99999",
    "127.0.0.1:x",
    "127.0.0.1:-1",
    "[::1",
    "[::1]:1:2",
    "[fe80::1%25eth0]",
    "a b",
    "user:word@127.0.0.1",
    "\xff",
    "xn--\x80",
    "%zz",
    "@",
    "a" * 4000,
    "",
)
TARGETS = (
    "//[",
    "http://[::1",
    "http://127.0.0.1:99999/nodes",
    "http://127.0.0.1:x/",
    "/%ff%fe?%ff=%zz",
    "/\xff?\xff=\xff",
)
VERSIONS = [f"application/openmetrics-text; version={each}" for each in ("a.b", "1.x", "1..0", "9" * 5000, "\xb2.0")]
HEADERS = (
    "Accept: application/openmetrics-text; version=9.9.9.9; escaping=",
    "Accept: ;;;=,,=;",
    "Accept: application/openmetrics-text; version=" + "9" * 5000,
    "Origin: http://[",
    "Origin: http://127.0.0.1:99999",
    "Authorization: \xff",
    'If-None-Match: W/"',
    "X-Forwarded-For: [",
    "Range: bytes=9-1,x",
    "Content-Type: \xff/;;=",
    "Sec-Fetch-Site: \xff",
)
PATHS = (
    "/metrics",
    "/healthz",
    "/nodes",
    "/flows?search=\xff",
    "/turn",
    "/rendezvous",
    "/relay?to=%00",
    "/api/about",
    "/",
)


def requests(port: int) -> list[bytes]:
    """Return requests, each with one thing wrong."""
    own = f"127.0.0.1:{port}"
    made = [("GET", path, host, "X: y") for path in PATHS[:4] for host in HOSTS]
    made += [("GET", "/metrics", own, f"Accept: {each}") for each in VERSIONS]
    made += [(method, target, own, "X: y") for method in ("GET", "PUT", "OPTIONS") for target in TARGETS]
    made += [("GET", path, own, header) for path in PATHS for header in HEADERS]
    return [
        f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nConnection: close\r\n\r\n".encode("latin-1")
        for method, target, host, header in made
    ]


@contextlib.asynccontextmanager
async def served(what: str, home: Path) -> AsyncIterator[int]:
    if what == "registry":
        async with Registry(RegistryConfig(home=home, port=0)) as registry:
            yield int(registry.url.rpartition(":")[2])
    elif what == "metrics":
        async with MonitorServer(Endpoint("127.0.0.1", 0), dict) as monitor:
            yield int(monitor.url.rpartition(":")[2])
    else:
        settings = load_settings(home, {"registry": [], "lan": False}).settings
        async with WebServer(WebConfig(home=home, settings=settings, port=0)) as page:
            yield int(page.origin.rpartition(":")[2])


async def status_of(port: int, request: bytes) -> int:
    """Send bytes; return the answer's status, 0 where the connection was ended without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        line = await reader.readline()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("what", ["registry", "metrics", "page"])
async def test_nothing_malformed_is_a_fault_of_the_server(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if what == "page" and not Site.is_built():
        pytest.skip("the page is not built")
    caplog.set_level(logging.WARNING)
    async with served(what, tmp_path) as port, asyncio.timeout(60):
        failed = {request: status for request in requests(port) if (status := await status_of(port, request)) >= 500}
    assert not failed
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
