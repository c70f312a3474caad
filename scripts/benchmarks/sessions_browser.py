"""To and from Chromium: our DTLS and SCTP, and libwebrtc's, from the same plain page in turn.

Ours runs in a process of its own: `python -m benchmarks.sessions_browser` prints the port and the answer's SDP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from benchmarks.measure import Row
from benchmarks.pairs import KODO, REFERENCES, ROOT
from benchmarks.shared_link import series

from tests.support.browser import running_chromium
from tests.support.partners import INTEROP, Partner, partner
from tests.support.raw_peer import MeasuredServer, answer_to_offer, raw_listener

SIZE, COUNT = 16 << 10, 2048
Measured = tuple[list[Row], list[str]]


async def browser(rounds: int) -> Measured:
    """Measure both ways with both."""
    notes = []
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(_our_process())
        theirs: Partner | None = None
        try:
            theirs = await stack.enter_async_context(partner("wrtc"))
        except RuntimeError as error:
            notes.append(f"MISSING: {REFERENCES['wrtc']}: {error}")
        base, reported = await stack.enter_async_context(_page_server(ours, theirs))
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        url = f"{base}/#rounds={rounds}&count={COUNT}&size={SIZE}"
        with running_chromium(Path(profile), url=url):
            report = await reported
    if "error" in report:
        raise RuntimeError(f"the page failed: {report['error']}")
    figures = {
        kind: [series(column) for column in zip(*taken, strict=True)] for kind, taken in report["figures"].items()
    }
    rows = []
    for column, figure in enumerate(["to Chromium", "from Chromium"]):
        reference = figures["wrtc"][column] if "wrtc" in figures else None
        rows.append(Row(figure, "MB/s", figures[KODO][column], reference, REFERENCES["wrtc"], True))
    return rows, [*notes, f"Chromium: {COUNT * SIZE >> 20} MiB in messages of 16 KiB, one page, both in turn"]


@contextlib.asynccontextmanager
async def _our_process() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.sessions_browser",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield str(json.loads(await asyncio.wait_for(process.stdout.readline(), 20)))
    finally:
        process.stdin.close()
        await process.wait()


@contextlib.asynccontextmanager
async def _page_server(ours: str, theirs: Partner | None) -> AsyncIterator[tuple[str, asyncio.Future[Any]]]:
    """Serve the page and answer its offers; the future gets what it reports."""
    reported: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def kinds(_: web.Request) -> web.Response:
        return web.json_response({"kinds": [KODO, *(["wrtc"] if theirs else [])]})

    async def offer(request: web.Request) -> web.Response:
        if request.match_info["kind"] == KODO or theirs is None:
            return web.json_response({"sdp": ours})
        sdp = (await request.json())["sdp"]
        return web.json_response(await theirs.ask("accept", name="page", sdp=sdp))

    async def report(request: web.Request) -> web.Response:
        if not reported.done():
            reported.set_result(await request.json())
        return web.json_response({})

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(INTEROP / "bench.html")

    app = web.Application()
    routes = [
        web.get("/", page),
        web.post("/kinds", kinds),
        web.post("/offer/{kind}", offer),
        web.post("/report", report),
    ]
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name, reported
    finally:
        await runner.cleanup()


async def _serve() -> None:
    server = MeasuredServer()
    with pytest.MonkeyPatch.context() as patch:
        async with raw_listener(patch, server.accept) as (listener, certificate):
            print(json.dumps(answer_to_offer(listener.address[1], certificate, client=False)), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
