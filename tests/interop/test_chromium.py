"""Real Chromium, from a plain page without a library, against our DTLS, SCTP and data channels."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.browser import running_chromium
from tests.support.raw_peer import echo_server

HERE = Path(__file__).parent


@contextlib.asynccontextmanager
async def page_server() -> AsyncIterator[tuple[str, asyncio.Future[Any]]]:
    """Serve the page; the future gets what it reports."""
    reported: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def report(request: web.Request) -> web.Response:
        if not reported.done():
            reported.set_result(json.loads(await request.text()))
        return web.Response()

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "page.html")

    app = web.Application()
    app.add_routes([web.get("/", page), web.post("/report", report)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"{site.name.replace('0.0.0.0', '127.0.0.1')}", reported
    finally:
        await runner.cleanup()


async def test_a_plain_page_opens_channels_and_gets_back_what_it_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        asyncio.timeout(90),
        echo_server(monkeypatch) as (server, listener, certificate),
        page_server() as (
            base,
            reported,
        ),
    ):
        fingerprint = certificate.digest.hex(":").upper()
        host, port = listener.address
        with running_chromium(tmp_path, url=f"{base}/#host={host}&port={port}&fingerprint={fingerprint}"):
            report = await reported
        assert "error" not in report, report["error"]
        sizes = {
            "large": 2 * 400 * 16384,
            "small": 300_000,
            "unordered": 4 * 60 * 8000,
            "several": 40 * 100_000,
            "again": 600,
        }
        for name in sizes:
            assert [channel["equal"] for channel in report[name]] == [True] * len(report[name]), name
        assert sum(size for size in server.messages if size > 0) == sum(sizes.values())
        assert server.messages.count(-1) == sum(len(report[name]) for name in sizes)
        ids = [channel["id"] for name in sizes for channel in report[name]]
        assert len(set(ids)) < len(ids), "no id was used again"
