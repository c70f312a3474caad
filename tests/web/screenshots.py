"""Takes the screenshots of the documentation: every page of the page, wide and narrow, light and dark.

    python -m tests.web.screenshots docs/how-to/page [WORD …]

Runs a node, a registry and `koco web` of its own, as the tests of the page do, and writes `NAME-wide-light.png` and
its like. With words, only screenshots whose name has one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
from pathlib import Path

from tests.support import koco as support
from tests.support.browser import chromium
from tests.support.page import Page
from tests.support.page_world import ROOT, PagesNode, World
from tests.web.conftest import koco_web

ROWS = "supplier,amount,currency\nNorthwind,420,\nFabrikam,12400,USD\nContoso,unknown,\nTailspin Toys,99.5,EUR"
WIDE, NARROW = (1200, 800), (360, 740)


class Offering(PagesNode):
    """A node with flows as an office would have them."""


def offer(base: Path) -> Path:
    """Write a scope of the flows that are shown; return its path."""
    (base / "office.py").write_text((ROOT / "tests" / "web" / "scope" / "office.py").read_text())
    scope = base / "scope.yaml"
    scope.write_text(json.dumps({"name": "flows.example.com", "flows": ["kodo.samples.atlas:atlas", "office"]}))
    return scope


async def shoot(page: Page, folder: Path, name: str, words: list[str]) -> None:
    """Save how a page looks now, in four ways."""
    if words and not any(word in name for word in words):
        return
    await page.wait("!document.querySelector('.skeleton')")
    for size, (width, height) in {"wide": WIDE, "narrow": NARROW}.items():
        await page.resize(width, height)
        for theme in ("light", "dark"):
            await page.dark(theme == "dark")
            await page.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 0, "y": 0})
            await page.evaluate("document.getAnimations().forEach(each => each.finish()); scrollTo(0, 0)")
            await asyncio.sleep(0.3)
            await page.screenshot(folder / f"{name}-{size}-{theme}.png", whole=False)
    await page.dark(False)
    await page.resize(*WIDE)


async def go(page: Page, hash_: str, sees: str) -> None:
    """Go to a page of the page."""
    await page.evaluate(f"location.hash = {json.dumps(hash_)}")
    await page.sees(sees)


async def take(world: World, registry: str, code: str, folder: Path, words: list[str]) -> None:
    """Do what a person does, and take a picture of each page."""
    page = await world.page()
    await page.find("link", "Code Atlas")
    await shoot(page, folder, "flows", words)
    await page.click("link", "Delivery Round")
    await page.find("button", "Launch")
    await shoot(page, folder, "flow", words)
    await go(page, "#/flows", "Code Atlas")
    await world.launched(page, "Demand Forecast", Product="Teapot, blue")
    await page.sees("there are no orders")
    await go(page, "#/flows", "Code Atlas")
    where = await world.launched(page, "Code Atlas")
    await page.find("button", "Answer", seconds=300)
    await shoot(page, folder, "question", words)
    await page.click("button", "Answer")
    await page.sees("chart.svg", seconds=300)
    await page.click("button", "Show", within=("region", "Outputs"))
    await shoot(page, folder, "run", words)
    await page.click("button", "Share")
    await page.find("button", "Make the link")
    await shoot(page, folder, "share", words)
    await page.click("button", "Make the link")
    await page.sees("For koco")
    link = await page.evaluate("document.querySelector('dialog code').textContent")
    await page.press("Escape")
    await take_invitation(world, page, folder, words)
    await take_schedule(page, folder, words)
    await take_many(page, folder, words)
    await go(page, "#/runs", "By flow")
    await shoot(page, folder, "runs", words)
    await go(page, "#/inbox", "Waiting for you")
    await shoot(page, folder, "inbox", words)
    await go(page, "#/nodes", "Look at it")
    await shoot(page, folder, "nodes", words)
    await go(page, f"#/nodes/{world.node.ready['peer_id']}", "Runners")
    await shoot(page, folder, "node", words)
    await go(page, "#/me", "Your peer id")
    await shoot(page, folder, "me", words)
    await go(page, where, "done")
    other = await world.browser.page(link, context=await world.browser.context())
    await other.find("heading", "Code Atlas")
    await shoot(other, folder, "link", words)
    await other.close()
    operator = await world.browser.page(f"{registry}/#/registry", context=await world.browser.context())
    await operator.sees("You do not operate this registry")
    await operator.fill("textbox", "Code", code)
    await operator.click("button", "Become an operator")
    await operator.find("heading", "Mesh")
    await shoot(operator, folder, "registry", words)
    await operator.close()
    await page.close()


async def take_invitation(world: World, page: Page, folder: Path, words: list[str]) -> None:
    """Invite somebody, and look at what they see."""
    await go(page, "#/flows", "Code Atlas")
    await page.click("link", "Press Review")
    await page.find("button", "Launch")
    await page.fill("textbox", "Topic", "Northwind Traders")
    await page.click("button", "Invite…")
    await page.fill("textbox", "Message for whoever opens the link", "Try it with a company of your own.")
    await page.click("button", "Make the invitation")
    await page.click("button", "Show as a QR code")
    await page.find("image", "The link as a QR code")
    await shoot(page, folder, "invite", words)
    link = await page.evaluate("document.querySelector('dialog code').textContent")
    await page.press("Escape")
    guest = await world.browser.page(link, context=await world.browser.context())
    await guest.find("button", "Launch")
    await shoot(guest, folder, "invitation", words)
    await guest.close()


async def take_schedule(page: Page, folder: Path, words: list[str]) -> None:
    """Schedule a flow, and look at the list."""
    await page.click("button", "Schedule…")
    await page.choose("When", "Monday to Friday")
    await page.fill("textbox", "Time zone", "Europe/Berlin")
    await shoot(page, folder, "schedule", words)
    await page.click("button", "Schedule it")
    await page.click("link", "Schedules")
    await page.find("button", "Pause: Press Review")
    await shoot(page, folder, "schedules", words)


async def take_many(page: Page, folder: Path, words: list[str]) -> None:
    """Launch a flow for many rows, and look at them as one group."""
    await go(page, "#/flows", "Code Atlas")
    await page.click("link", "Invoice Check")
    await page.find("button", "Launch")
    await page.click("button", "Many…")
    rows = "Rows: a table with the names of inputs as its first line, or JSON"
    await page.fill("textbox", rows, ROWS)
    await shoot(page, folder, "many", words)
    await page.fill("textbox", "Tag of these runs", "march")
    await page.click("button", "Launch 3 runs")
    await page.click("link", "Show these runs")
    await page.sees("locked")
    await page.wait("!document.querySelector('.state.running')")
    await shoot(page, folder, "group", words)


async def pictures(
    node: PagesNode, url: str, base: Path, registry: str, code: str, folder: Path, words: list[str]
) -> None:
    """Take them all in one browser."""
    async with chromium(base / "browser") as browser:
        await take(World(node, url, browser, base), registry, code, folder, words)


def main(folder: Path, words: list[str]) -> None:
    """Start what is looked at, and look at it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([ROOT / "scripts" / "page"], check=True, stdin=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="kodo-") as base:
        home = Path(base) / "registry"
        with subprocess.Popen(
            [support.KOCO, "registry", "--port", "0", "--json"],
            env=support.environment(home),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                registry = json.loads(process.stdout.readline())["url"]
                code = support.koco_json(home, "operator", "--invite", "--registry", registry)[0]["code"]
                environment = {"KODO_REGISTRY": registry}
                Offering.scope = offer(Path(base))
                node = Offering(
                    Path(base) / "node", "--executor", "process", "--name", "flows.example.com", **environment
                )
                try:
                    with koco_web(Path(base) / "user", "--registry", registry) as url:
                        asyncio.run(pictures(node, url, Path(base), registry, code, folder, words))
                finally:
                    node.stop()
            finally:
                process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    main(asked.folder, asked.words)
