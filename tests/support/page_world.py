"""What the tests of the page stand on: a node, `koco web`, a Chromium, and what every page has to be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import koco as support
from tests.support.browser import Browser
from tests.support.page import Page

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "client" / "web"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
NARROW = 360


class PagesNode(support.NodeProcess):
    """`koco up` with flows for these tests, and a registry."""

    scope = ROOT / "tests" / "web" / "scope" / "scope.yaml"


@dataclass
class World:
    """What runs.

    Attributes:
        url: of the page, with the key that lets a browser in.
        browser: is shared; each test has a profile of its own.
    """

    node: PagesNode
    url: str
    browser: Browser
    home: Path

    @property
    def origin(self) -> str:
        """Where the page is, without the key."""
        return self.url.partition("#")[0]

    async def page(self, **more: Any) -> Page:
        """Open the page as somebody new."""
        return await self.browser.page(self.url, context=await self.browser.context(), **more)

    async def same_profile(self, page: Page, url: str) -> Page:
        """Open another tab of the person who has a page."""
        return await self.browser.page(url, context=await page.context())

    async def launched(self, page: Page, flow: str, **inputs: str | bool) -> str:
        """Launch a flow by its form; returns where the page is then."""
        await page.click("link", flow)
        await page.find("button", "Launch")
        for name, value in inputs.items():
            if isinstance(value, bool):
                await page.click("checkbox", name)
            else:
                await page.fill("textbox", name, value)
        await page.click("button", "Launch")
        return await page.hash("#/run/")

    def is_own(self, request: str) -> bool:
        """Return whether a request went nowhere but to who serves the page."""
        return request.startswith((self.origin, "blob:", "data:"))


async def faults(page: Page, dark: bool) -> list[Any]:
    """What axe finds in the page as it is now."""
    await page.dark(dark)
    await page.evaluate((WEB / "node_modules" / "axe-core" / "axe.min.js").read_text() + "; 0")
    # Colours that fade into each other are judged when they have arrived.
    found = await page.evaluate(
        """(async () => {
            for (const each of document.getAnimations()) if (each instanceof CSSTransition) each.finish()
            const { violations } = await axe.run(document, { resultTypes: ['violations'] })
            return violations.map(each => [each.id, each.nodes.slice(0, 3).map(node => node.html)])
        })()"""
    )
    assert isinstance(found, list)
    return found


async def looks_well(page: Page) -> None:
    """Nothing for axe to find, light or dark, wide or narrow, and nothing wider than a narrow screen or at 200 %."""
    await page.wait("document.querySelector('h1') && !document.querySelector('.skeleton')")
    for dark in (False, True):
        assert await faults(page, dark) == []
    # As wide as a small phone, and 1280 px at 200 %.
    for width in (640, NARROW):
        await page.resize(width, 740)
        assert await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    for dark in (True, False):
        assert await faults(page, dark) == []
    await page.resize(1280, 900)


async def until_saved(file: Path) -> None:
    """Wait until a download has its name, which Chromium keeps with an empty file until then."""
    await asyncio.to_thread(support.eventually, lambda: file.exists() and file.stat().st_size > 0)


async def events(page: Page) -> list[str]:
    """Return the names of the events that are shown."""
    found = await page.evaluate("[...document.querySelectorAll('.event-name')].map(each => each.textContent)")
    assert isinstance(found, list)
    return found
