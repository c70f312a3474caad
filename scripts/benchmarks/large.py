"""A file of 1 GiB or more, downloaded by the page's engine onto the browser's disk, with a reload in the middle.

Nobody else downloads beside it: what counts is that it arrives, goes on where it was, and takes no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from benchmarks.measure import Row, Series, Table
from benchmarks.web import node_apart

from tests.support.browser import open_page, running_chromium
from tests.support.page import Page
from tests.support.web_page import build_harness, serve

GIB = 1 << 30
LONG_SECONDS = 600.0
"""A deadline for what moves the whole file."""
MEMORY_MB = 120.0
"""The budget: what all processes of the browser may take more than before."""

BEGIN = """
    const node = openEngine().node(target)
    globalThis.download = node.download(fid, 'x', { sink: 'opfs' })
    globalThis.first = undefined
    download.on(news => { globalThis.first ??= news.bytes })
"""
LOOK = "return { bytes: download.bytes, status: download.status, first: globalThis.first ?? 0 }"


class _Memory:
    """The memory of a browser, all its processes together."""

    def __init__(self, profile: Path, size: int) -> None:
        self._size = size
        self._browser = next(
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(profile) in word for word in process.info["cmdline"] or ())
        )
        self.before = self.now()
        self.most = self.before

    def now(self) -> float:
        """Return it, MB."""
        total = 0
        for process in (self._browser, *self._browser.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                total += process.memory_full_info().pss
        return total / 1e6

    async def until(self, page: Page, bytes_: int) -> dict[str, Any]:
        """Look on until a download has so many bytes, or is over; return how it is then."""
        while True:
            self.most = max(self.most, await asyncio.to_thread(self.now))
            found: dict[str, Any] = await page.run(LOOK)
            if found["status"] in ("failed", "cancelled"):
                raise RuntimeError(f"the download {found['status']}")
            if found["bytes"] >= bytes_ and (bytes_ < self._size or found["status"] == "done"):
                return found
            await asyncio.sleep(0.5)


async def measure(rounds: int, gib: int = 1) -> Table:
    """Measure it, once for each round, with a file of `gib` GiB."""
    table, rates, memory, kept = Table("large"), [], [], []
    for _ in range(rounds):
        rate, more, first = await _round(gib * GIB)
        rates.append(rate)
        memory.append(more)
        kept.append(first)
    budget = Series((MEMORY_MB,))
    table.rows += [
        Row(f"verified download of {gib} GiB onto the browser's disk", "MB/s", Series(tuple(rates))),
        Row("memory more than before, all processes (PSS)", "MB", Series(tuple(memory)), budget, "budget"),
        Row(
            "there after a reload at half of it", "MiB", Series(tuple(kept)), Series((gib * 512.0,)), "at the reload"
        ),
    ]
    return table


async def _round(size: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, saved = Path(name), Path(name) / "downloads"
        saved.mkdir()
        built = build_harness(folder / "built")
        with running_chromium(folder / "chromium") as devtools:
            async with (
                node_apart(folder / "home") as (_, where),
                serve(built) as url,
                open_page(devtools, url, saved, on_disk=True) as page,
            ):
                launch = """
                    const node = openEngine().node(target)
                    const inputs = { files: { x: size } }
                    const { fid } = await node.ask('run.launch', { path: 'flows.make', inputs })
                    node.follow(fid).done().then(() => { globalThis.isMade = true })
                    return fid
                """
                fid = await page.run(launch, target=where["target"], size=size)
                await page.wait("globalThis.isMade", LONG_SECONDS)
                asked = {"target": where["target"], "fid": fid}
                memory = _Memory(folder / "chromium", size)
                began = time.monotonic()
                await page.run(BEGIN, **asked)
                await memory.until(page, size // 2)
                await page.reload()
                await page.run(BEGIN, **asked)
                found = await memory.until(page, size)
                took = time.monotonic() - began
                async with asyncio.timeout(LONG_SECONDS):
                    if await page.ended.get() != "completed":
                        raise RuntimeError("the browser did not save the file")
                [file] = saved.iterdir()
                if await asyncio.to_thread(_hash, file) != await page.run("return (await download.done).sha256"):
                    raise RuntimeError("the file is not what the flow made")
                return size / 1e6 / took, memory.most - memory.before, found["first"] / (1 << 20)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
