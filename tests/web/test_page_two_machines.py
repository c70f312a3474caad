"""The main job in the page, between two machines: node and registry on one, the browser on the other."""

from __future__ import annotations

import asyncio
import contextlib
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import koco as support
from tests.support.browser import Browser, chromium
from tests.support.lab import lab, needs_root
from tests.support.page_world import ROOT, PagesNode, events, until_saved
from tests.web.conftest import koco_serving, koco_web

pytestmark = [needs_root, pytest.mark.usefixtures("whole_built")]

NODE = "192.168.7.1"


class AtlasNode(PagesNode):
    """`koco up` with the samples."""

    scope = ROOT / "node" / "kodo" / "samples" / "scope.yaml"


@contextlib.asynccontextmanager
async def two_machines(folder: Path) -> AsyncIterator[tuple[str, Browser]]:
    """Lay a wire between two hosts, and start on each what runs there; gives the page's address, and a browser."""
    async with contextlib.AsyncExitStack() as stack:
        net = stack.enter_context(lab())
        net.host("node")
        net.host("user")
        net.wire("node", "user")
        net.address("node", "user", f"{NODE}/24")
        net.address("user", "node", "192.168.7.2/24")
        with net.inside("node"):
            registry = stack.enter_context(
                koco_serving(folder / "registry", "registry", "--host", NODE, "--port", "0")
            )
            node = AtlasNode(folder / "node", "--executor", "process", KODO_REGISTRY=registry)
            stack.callback(node.stop)
        with net.inside("user"):
            url = stack.enter_context(koco_web(folder / "user", "--registry", registry))
            browser = await stack.enter_async_context(chromium(folder / "browser"))
        yield url, browser


async def test_the_main_job_is_done_in_the_page_on_another_machine_without_a_terminal(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with two_machines(tmp_path) as (url, browser):
        page = await browser.page(url, context=await browser.context())
        # It is found, and launched.
        await page.fill("searchbox", "Search", "atlas")
        await page.click("link", "Code Atlas")
        await page.fill("textbox", "Root", str(ROOT / "p2p" / "kodo" / "p2p"))
        await page.click("button", "Launch")
        await page.hash("#/run/")
        # It is followed and answered.
        await page.find("button", "Answer", within=("region", "Questions"))
        assert "action" in await events(page)
        await page.click("button", "Answer", within=("region", "Questions"))
        # Its report is read, and fetched.
        await page.find("button", "Show", within=("region", "Outputs"))
        await page.click("button", "Show", within=("region", "Outputs"))
        await page.sees("Import cycles")
        await page.downloads(first)
        await page.click("button", "Download", within=("region", "Outputs"))
        await page.sees("verified")
        await until_saved(first / "report.md")
        # It is shared, and somebody else opens the link.
        await page.click("button", "Share")
        await page.click("button", "Make the link")
        await page.sees("For koco")
        link = await page.evaluate("document.querySelector('dialog code').textContent")
        other = await browser.page(link, context=await browser.context())
        await other.find("heading", "Code Atlas")
        await other.downloads(second)
        await other.click("button", "Download all")
        await other.sees("verified")
        [saved] = await asyncio.to_thread(support.eventually, lambda: [*second.glob("*.zip")])
        with zipfile.ZipFile(saved) as archive:
            assert sorted(archive.namelist()) == ["chart.svg", "metrics.csv", "report.md"]
            assert archive.read("report.md") == (first / "report.md").read_bytes()
        assert page.complaints == other.complaints == []
        own = (url.partition("#")[0], "blob:", "data:")
        assert [each for each in page.requests + other.requests if not each.startswith(own)] == []
