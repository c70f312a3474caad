"""A registry's panel in the page that it serves: what everybody sees, and what its operators do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.server import Registry, RegistryConfig
from kodo.web.site import Site
from tests.support import records
from tests.support.browser import Browser, connected
from tests.support.page import Page
from tests.support.page_world import looks_well

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def registry(tmp_path: Path, whole_built: None) -> AsyncIterator[Registry]:
    config = RegistryConfig(home=tmp_path / "registry", port=0)
    async with Registry(config, page=Site("registry").routes()) as running:
        now = time.time_ns() // 1_000_000
        async with RegistryClient(running.url) as client:
            for number, name in ((1, "alpha.example"), (2, "beta.example")):
                me = records.identity(number)
                await client.up(records.signed_record(me, name=name, issued_at=now))
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def guarded(tmp_path: Path, whole_built: None) -> AsyncIterator[Registry]:
    """A registry that only its users read."""
    config = RegistryConfig(home=tmp_path / "registry", port=0, auth="local")
    async with Registry(config, page=Site("registry").routes()) as running:
        me = records.identity(1)
        flow = records.flow(name="Market watch")
        async with RegistryClient(running.url) as client:
            await client.up(
                records.signed_record(me, flow, name="alpha.example", issued_at=time.time_ns() // 1_000_000)
            )
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(devtools: str) -> AsyncIterator[Browser]:
    async with connected(devtools) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def panel(browser: Browser, registry: Registry) -> AsyncIterator[Page]:
    page = await browser.page(f"{registry.url}/#/registry", context=await browser.context())
    try:
        yield page
        assert [each for each in page.requests if not each.startswith((registry.url, "blob:", "data:"))] == []
    finally:
        await page.close()


async def shown_names(registry: Registry) -> set[str]:
    """What everybody else is told of."""
    async with aiohttp.ClientSession() as http, http.get(f"{registry.url}/nodes") as answer:
        return {row["name"] for row in (await answer.json())["result"]}


async def dealings(registry: Registry) -> list[str]:
    """The registries that it deals with, as its owner is told."""
    owner = Claimant(load_identity(registry.config.home, "user"))
    async with OperatorClient(registry.url, owner) as client:
        return [row["url"] for row in (await client.mesh())["result"]]


async def enrolled(panel: Page, registry: Registry) -> None:
    """Become an operator by the code that the registry printed."""
    assert registry.first_code is not None
    await panel.sees("You do not operate this registry")
    await panel.fill("textbox", "Code", registry.first_code)
    await panel.click("button", "Become an operator")
    await panel.find("heading", "Operators")


async def test_who_is_no_operator_sees_the_state_and_how_to_become_one(panel: Page, registry: Registry) -> None:
    await panel.sees("You do not operate this registry")
    await panel.sees("2 online, 0 unknown, 0 offline")
    assert await panel.all("heading", "Mesh") == []
    await looks_well(panel)
    await panel.fill("textbox", "Code", "0000-0000-0000")
    await panel.click("button", "Become an operator")
    await panel.sees("The code does not fit")
    assert await panel.all("heading", "Mesh") == []


async def test_an_operator_annotates_and_hides_what_everybody_is_told(panel: Page, registry: Registry) -> None:
    await enrolled(panel, registry)
    assert await shown_names(registry) == {"alpha.example", "beta.example"}
    await panel.click("button", "Annotate beta.example")
    await looks_well(panel)
    await panel.fill("textbox", "Description", "Out of order today.")
    await panel.click("checkbox", "Hide it from everybody but operators")
    await panel.click("button", "Save")
    await panel.sees("Out of order today.")
    await panel.sees("online · hidden")
    assert await shown_names(registry) == {"alpha.example"}
    await panel.sees("annotate")  # the audit
    await panel.click("button", "Annotate beta.example")
    await panel.click("checkbox", "Hide it from everybody but operators")
    await panel.click("button", "Save")
    await panel.wait("!document.querySelector('dialog')")
    assert await shown_names(registry) == {"alpha.example", "beta.example"}


async def test_an_operator_keeps_the_list_the_mesh_and_the_operators(panel: Page, registry: Registry) -> None:
    await enrolled(panel, registry)
    await looks_well(panel)
    await panel.fill("textbox", "Name", "gamma.example")
    await panel.click("button", "Put on the list")
    await panel.find("button", "Take gamma.example off")
    await panel.click("button", "Take gamma.example off")
    await panel.click("button", "Take gamma.example off", within=("dialog", "Take gamma.example off the list?"))
    await panel.wait("!document.body.innerText.includes('gamma.example off')")

    await panel.fill("textbox", "URL of a registry", "nonsense")
    await panel.click("button", "Add to the mesh")
    await panel.sees("is not the URL of a registry")
    await panel.fill("textbox", "URL of a registry", "http://127.0.0.1:9")
    await panel.click("button", "Add to the mesh")
    await panel.sees("is read")
    assert await dealings(registry) == ["http://127.0.0.1:9"]
    await panel.click("button", "Leave http://127.0.0.1:9")
    await panel.click("button", "Leave http://127.0.0.1:9", within=("dialog", "Leave http://127.0.0.1:9?"))
    await panel.wait("!document.body.innerText.includes('is read')")
    assert await dealings(registry) == []

    await panel.click("button", "Make a code for one more")
    await panel.sees("It works once, within a day.")
    await panel.sees("No node has been silent for 7 days.")
    await panel.sees("This place keeps no users.")


async def test_a_stopped_registry_was_asked_for_by_its_name(panel: Page, registry: Registry) -> None:
    await enrolled(panel, registry)
    await panel.click("button", "Stop the registry")
    assert not registry.asked_to_stop.is_set()
    await panel.click("button", "Stop the registry", within=("dialog", "Stop this registry?"))
    async with asyncio.timeout(60):
        await registry.asked_to_stop.wait()


def owner_of(registry: Registry) -> RegistryClient:
    return RegistryClient(registry.url, claimant=Claimant(load_identity(registry.config.home, "user")))


async def code_for(page: Page, registry: Registry) -> str:
    """Add the user ana, and make the code for the browser whose page shows *Me*."""
    found = "document.body.innerText.match(/12D3Koo[A-Za-z0-9]{45}/)"
    await page.wait(found)
    peer_id = await page.evaluate(f"{found}[0]")
    async with owner_of(registry) as owner:
        await owner.access("user.add", {"name": "ana", "roles": ["user"]})
        code: str = (await owner.access("user.enrol", {"name": "ana", "peer_id": peer_id}))["code"]
    return code


async def test_a_registry_with_users_is_read_in_its_own_page_by_who_logs_in(
    browser: Browser, guarded: Registry
) -> None:
    page = await browser.page(f"{guarded.url}/#/flows", context=await browser.context())
    try:
        await page.sees("This registry shows its flows to its users")
        await looks_well(page)
        assert await page.all("link", "Market watch") == []
        await page.goto(f"{guarded.url}/#/me")
        code = await code_for(page, guarded)
        await page.goto(f"{guarded.url}/#/flows")
        await page.fill("textbox", "Code", "0000-0000-0000")
        await page.click("button", "Log in")
        await page.find("alert")
        assert await page.all("link", "Market watch") == []
        await page.fill("textbox", "Code", code)
        await page.click("button", "Log in")
        await page.find("link", "Market watch")
        await page.reload()
        await page.find("link", "Market watch")
        await page.goto(f"{guarded.url}/#/registry")
        await page.sees("Your login")
        await page.sees("ana")
        await page.click("button", "Log out")
        await page.goto(f"{guarded.url}/#/flows")
        await page.sees("This registry shows its flows to its users")
    finally:
        await page.close()


async def test_a_login_that_the_registry_ended_is_asked_for_again(browser: Browser, guarded: Registry) -> None:
    page = await browser.page(f"{guarded.url}/#/me", context=await browser.context())
    try:
        code = await code_for(page, guarded)
        await page.goto(f"{guarded.url}/#/flows")
        await page.fill("textbox", "Code", code)
        await page.click("button", "Log in")
        await page.find("link", "Market watch")
        async with owner_of(guarded) as owner:
            await owner.access("user.remove", {"name": "ana"})
        await page.reload()
        await page.sees("This registry shows its flows to its users")
    finally:
        await page.close()
