"""The page beside `koco mcp`: it asks what no chat may ask, and says what assistants are told to run a flow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import ElicitResult

from tests.integration.mcp.conftest import REVISIONS, Bridge, BridgeNode, bridge, started, text_of
from tests.support.browser import Browser, connected
from tests.support.koco import environment, koco, koco_json
from tests.support.page import Page
from tests.support.page_world import looks_well
from tests.web.conftest import koco_web

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a long enough password"
TOLD = """['answered elsewhere', 'Somebody else has answered', 'is not open'].some(each =>
    document.body.innerText.includes(each))"""
TAKEN = "document.body.innerText.includes('Your answer was taken.')"


@dataclass
class Desk:
    """A person's home, node, page and browser: she logged in at the node from a terminal and from the page.

    Attributes:
        context: the browser's profile.
    """

    node: BridgeNode
    home: Path
    url: str
    browser: Browser
    context: str

    async def open(self, address: str) -> Page:
        """Open an address of the page, as a click on it does."""
        assert address.startswith(self.url.partition("#")[0]), address
        return await self.browser.page(address, context=self.context)

    def run_of(self, ref: str) -> list[str]:
        """The words that name a run for `koco`."""
        return [ref.rpartition("/")[2], "--node", self.node.address, "--no-lan"]

    def unlocks(self, ref: str) -> list[Any]:
        """What a run's locks were answered with."""
        rows = koco_json(self.home, "follow", *self.run_of(ref))
        return [row["data"]["answer"] for row in rows if row.get("event") == "unlock"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, whole_built: None) -> Iterator[tuple[BridgeNode, Path, str]]:
    """A node with accounts, the home of a user who logged in there, and the address of her page."""
    folder = tmp_path_factory.mktemp("assistants")
    ana = folder / "ana"
    (folder / "password").write_text(PASSWORD)
    registry = ("--with-registry", "--registry-port", "0")
    with started(folder / "home", "--auth", "local", *registry) as node:
        words = ("ana", "--password-file", str(folder / "password"), "--no-lan")
        koco_json(node.home, "user", "add", *words)
        koco_json(node.home, "user", "grant", "ana", "node://*", "flow://*/2/x", "--no-lan")
        login = ("--name", "ana", "--password-file", str(folder / "password"), "--no-lan")
        koco_json(ana, "login", "--node", node.address, *login)
        with koco_web(ana, "--registry", node.ready["registries"][0]) as url:
            yield node, ana, url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(served: tuple[BridgeNode, Path, str], devtools: str) -> AsyncIterator[Desk]:
    node, home, url = served
    async with connected(devtools) as browser:
        context = await browser.context()
        page = await browser.page(url, context=context)
        await page.fill("textbox", "Address or link", node.address)
        await page.click("button", "Open")
        await page.fill("textbox", "User name", "ana")
        await page.fill("textbox", "Password", PASSWORD)
        await page.press("Enter")
        await page.find("link", "Approve")
        await page.close()
        yield Desk(node, home, url, browser, context)


def bridging(desk: Desk, mode: str, tmp: Path, **options: Any) -> Any:
    """Start a bridge for the person of the desk."""
    return bridge(desk.home, "--node", desk.node.address, mode=mode, tmp=tmp, **options)


async def called(here: Bridge, name: str, **arguments: Any) -> Any:
    """Call the tool of a flow."""
    names = [tool.name for tool in (await here.client.list_tools()).tools]
    [tool] = [each for each in names if each.endswith(f"-bridge_flows_{name}")]
    return await asyncio.wait_for(here.client.call_tool(tool, arguments), 90)


FOCUSED = "document.activeElement?.closest('.question')?.getAttribute('aria-label')"
FIRST = "document.querySelector('.question').getAttribute('aria-label')"


@pytest.mark.parametrize("mode", REVISIONS)
async def test_an_address_of_a_lock_opens_its_form_alone_ready_to_be_filled_in(
    desk: Desk, tmp_path: Path, mode: str
) -> None:
    addresses: list[str] = []

    async def open_page(context: Any, params: Any) -> ElicitResult:
        addresses.append(params.url)
        page = await desk.open(params.url)
        title = "Where to?" if "Where to?" in params.message else "Which word?"
        await page.gives(FOCUSED, title)
        await page.gives(FIRST, title)
        if title == "Where to?":
            await page.fill("textbox", "Street", "High St")
        else:
            await page.fill("textbox", "Password", "hush")
        await page.click("button", "Answer", within=("article", title))
        await page.wait(TAKEN)
        await page.close()
        return ElicitResult(action="accept")

    async with bridging(desk, mode, tmp_path, elicitation_callback=open_page) as here:
        done = await called(here, "ask_twice")
        assert done.structured_content["result"] == "High St: 4 characters"
        assert "hush" not in text_of(done)
    assert len(set(addresses)) == 2
    late = await desk.open(addresses[0])
    await late.sees("The question that this address leads to is not open")
    if mode == REVISIONS[0]:
        await looks_well(late)
    await late.close()


async def answer_page(desk: Desk, page: Page) -> bool:
    """Answer on the page; returns whether it was this answer that was taken."""
    await page.evaluate(
        "[...document.querySelectorAll('button')].find(each => each.textContent === 'Answer')?.click()"
    )
    await page.wait(f"{TOLD} || {TAKEN}")
    return bool(await page.evaluate(TAKEN))


async def answer_koco(desk: Desk, ref: str, lid: str) -> bool:
    """Answer in a terminal."""
    fid, *node = desk.run_of(ref)
    done = await asyncio.to_thread(koco, desk.home, "answer", fid, lid, "approved=yes", "why=koco", *node)
    assert done.returncode == 0 or "answer" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("first", ["page", "koco", "bridge", "all at once"])
async def test_page_terminal_and_bridge_answer_a_lock_once_and_the_others_are_told(
    desk: Desk, tmp_path: Path, first: str
) -> None:
    asked, may = asyncio.Event(), asyncio.Event()

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.set()
        await may.wait()
        return ElicitResult(action="accept", content={"approved": True, "why": "bridge"})

    async with bridging(desk, "legacy", tmp_path, elicitation_callback=answer) as here:
        call = asyncio.create_task(called(here, "approve", topic="bikes"))
        await asyncio.wait({call, asyncio.ensure_future(asked.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert not call.done(), call.result()
        [row] = koco_json(desk.home, "locks", "--node", desk.node.address, "--no-lan")[0]["result"]
        ref = f"{row['peer_id']}/{row['fid']}"
        page = await desk.open(f"{desk.url.partition('#')[0]}#/run/{ref}?lock={row['lid']}")
        await page.gives(FOCUSED, "Approve bikes?")
        await page.click("checkbox", "Approved")
        await page.fill("textbox", "Why", "page")
        if first == "all at once":
            may.set()
            took = dict(
                zip(
                    ("page", "koco"),
                    await asyncio.gather(answer_page(desk, page), answer_koco(desk, ref, row["lid"])),
                    strict=True,
                )
            )
        elif first == "page":
            took = {"page": await answer_page(desk, page)}
            took["koco"] = await answer_koco(desk, ref, row["lid"])
        elif first == "koco":
            took = {"koco": await answer_koco(desk, ref, row["lid"])}
            await page.wait(TOLD)
            took["page"] = False
        else:
            may.set()
            await page.wait(TOLD)
            took = {"page": False, "koco": await answer_koco(desk, ref, row["lid"])}
        may.set()
        done = await asyncio.wait_for(call, 60)
        why = done.structured_content["result"]["why"]
        text = text_of(done)
        took["bridge"] = not any(words in text for words in ("elsewhere", "Another answer came first"))
        await page.close()
    assert [name for name, won in took.items() if won] == [why]
    assert first in (why, "all at once")
    assert desk.unlocks(ref) == [{"approved": True, "why": why}]


async def test_a_flow_shows_what_the_command_prints_and_it_starts_a_bridge(desk: Desk) -> None:
    peer_id, path = desk.node.ready["peer_id"], "bridge_flows.greet"
    origin = desk.url.partition("/#")[0]
    permissions = {
        "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
        "origin": origin,
        "browserContextId": desk.context,
    }
    await desk.browser.send("Browser.grantPermissions", permissions)
    flags = ("--no-lan", "--registry", desk.node.ready["registries"][0])
    page = await desk.open(f"{origin}/#/flow/{peer_id}/{path}")
    await page.find("button", "Launch")
    elsewhere = "[...document.querySelectorAll('summary')].find(each => each.innerText === 'The same from elsewhere')"
    await page.evaluate(f"{elsewhere}.click()")
    shown = "document.querySelector('#assistant').closest('.stack').querySelector('code').textContent"
    for host, name in (("vscode", "VS Code"), ("cursor", "Cursor"), ("codex", "Codex"), ("claude", "Claude")):
        await page.choose("Settings of", name)
        words = ["mcp", "--print-config", host, "--node", peer_id, "--flow", path, *flags]
        printed = (await asyncio.to_thread(koco, desk.home, *words)).stdout.rstrip()
        await page.gives(shown, printed)
    await looks_well(page)
    await page.evaluate("document.querySelector('.field:has(#assistant) ~ .copy button').click()")
    await page.wait(f"navigator.clipboard.readText().then(text => text === {json.dumps(printed)})")
    await page.close()
    server = json.loads(printed)["mcpServers"]["kodo"]
    parameters = StdioServerParameters(**{**server, "env": {**environment(desk.home), **server["env"]}})
    async with Client(stdio_client(parameters), mode="legacy", cache=None) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
    assert [name for name in tools if "-" in name] == [
        next(each for each in tools if each.endswith("-bridge_flows_greet"))
    ]
