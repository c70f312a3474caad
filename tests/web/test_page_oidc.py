"""Logging in at a real OpenID Connect issuer from the page: code and PKCE, tokens bound to the browser's key."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from kodo.access.oidc_config import OidcConfig
from kodo.client.config import load_settings
from kodo.node.app import Node
from kodo.node.executors.in_process import InProcessExecutor
from kodo.registry.client.client import RegistryClient
from kodo.registry.server import Registry, RegistryConfig
from kodo.web.issuers import issuer_routes
from kodo.web.server import WebConfig, WebServer
from kodo.web.site import Site
from tests.support import records
from tests.support.browser import Browser, connected
from tests.support.issuer import CLIENT, Issuer, running_issuer
from tests.support.page import Page
from tests.support.page_world import looks_well
from tests.support.web_page import FLOWS, node_at

pytestmark = pytest.mark.asyncio(loop_scope="module")

AUDIENCE = "https://nodes.example"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oidc_node(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """It takes no token that is not bound to who shows it."""
    config = OidcConfig(issuer.url, AUDIENCE, CLIENT, bound=True)
    home = tmp_path_factory.mktemp("node")
    async with InProcessExecutor(FLOWS) as executor, node_at(home, executor, auth="oidc", oidc=config) as node:
        yield node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, whole_built: None) -> AsyncIterator[WebServer]:
    home = tmp_path_factory.mktemp("user")
    settings = load_settings(home, {"lan": False}, {}).settings
    async with WebServer(WebConfig(home, settings, 0)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(devtools: str) -> AsyncIterator[Browser]:
    async with connected(devtools) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: WebServer, oidc_node: Node) -> AsyncIterator[Page]:
    """The page at a node that wants to know who one is."""
    page = await browser.page(server.url, context=await browser.context())
    await page.fill("textbox", "Address or link", str(oidc_node.addresses[0]))
    await page.click("button", "Open")
    await page.sees("This node wants to know who you are")
    try:
        yield page
    finally:
        await page.close()


def host_of(issuer: Issuer) -> str:
    return urlsplit(issuer.url).netloc


async def be(page: Page, issuer: Issuer, account: str) -> None:
    """Be somebody to the issuer, as its own page would have asked."""
    await page.send("Network.setCookie", {"name": "account", "value": account, "url": issuer.url})


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


KEPT = """new Promise((resolve, reject) => {
    const opening = indexedDB.open('kodo')
    opening.onerror = reject
    opening.onsuccess = () => {
        const store = opening.result.transaction('logins', 'readwrite').objectStore('logins')
        const reading = store.getAll()
        reading.onsuccess = () => { opening.result.close(); resolve(reading.result) }
    }
})"""
ENDED = """new Promise((resolve, reject) => {
    const opening = indexedDB.open('kodo')
    opening.onerror = reject
    opening.onsuccess = () => {
        const store = opening.result.transaction('logins', 'readwrite').objectStore('logins')
        store.openCursor().onsuccess = event => {
            const cursor = event.target.result
            if (!cursor) { opening.result.close(); return resolve(true) }
            cursor.update({ ...cursor.value, expiresAt: Date.now() + 1000 })
            cursor.continue()
        }
    }
})"""


async def test_a_login_at_the_issuer_comes_back_to_the_node_and_is_renewed(
    page: Page, issuer: Issuer, server: WebServer, oidc_node: Node
) -> None:
    await be(page, issuer, "ana")
    for told in (issuer.url, AUDIENCE, CLIENT):
        await page.sees(told)
    await looks_well(page)
    where = await page.evaluate("location.hash")
    await page.click("button", f"Log in at {host_of(issuer)}")
    await page.find("link", "count")  # the node's flows, where the login was begun
    await page.gives("location.hash", where)
    assert "code=" not in await page.evaluate("location.href")
    # The page itself asked nobody but its server; the browser went to the issuer's own page.
    asked = [each for each in page.requests if each.startswith(issuer.url)]
    assert asked
    assert all("/token" not in each for each in asked)
    [challenge] = parse_qs(urlsplit(asked[0]).query)["code_challenge_method"]
    assert challenge == "S256"

    [kept] = await page.evaluate(KEPT)
    said = claims(kept["token"])
    assert (said["sub"], said["aud"]) == ("ana", AUDIENCE)
    assert said["cnf"]["jkt"]
    assert kept["issued"]["refresh"]

    # A token that ends soon is renewed by whatever dials next.
    await page.evaluate(ENDED)
    await page.reload()
    await page.find("link", "count")
    [renewed] = await page.evaluate(KEPT)
    assert renewed["token"] != kept["token"]
    await page.click("link", "count")
    await page.find("button", "Launch")


async def test_a_login_that_is_denied_says_so_and_logs_nobody_in(
    page: Page, issuer: Issuer, server: WebServer
) -> None:
    await page.click("button", f"Log in at {host_of(issuer)}")  # nobody is logged in there: the test issuer refuses
    # Whatever an issuer sends back: this tab's own login that was denied, or another's.
    await page.wait(f"!location.href.startsWith({json.dumps(server.origin)})")
    await page.goto(f"{server.origin}/?error=access_denied&state=x")
    await page.sees("This is not the answer to a login that this tab began")
    assert "state=" not in await page.evaluate("location.href")
    assert await page.evaluate(KEPT) == []


async def test_the_server_asks_issuers_for_its_page_alone_and_sends_nothing_elsewhere(
    server: WebServer, issuer: Issuer
) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{server.origin}/api/issuer", json={"issuer": issuer.url}) as refused:
            assert (refused.status, (await refused.json())["reason"]) == (401, "key-needed")
        key = server.url.partition("#key=")[2]
        async with http.post(f"{server.origin}/api/enter", headers={"Authorization": f"Bearer {key}"}) as entered:
            shown = {"Authorization": f"Bearer {(await entered.json())['key']}"}

        async def ask(path: str, body: Any) -> tuple[int, dict[str, Any]]:
            async with http.post(f"{server.origin}{path}", json=body, headers=shown) as answer:
                return answer.status, await answer.json()

        status, said = await ask("/api/issuer", {"issuer": issuer.url})
        assert (status, said["token_endpoint"]) == (200, f"{issuer.url}/token")
        form = {"grant_type": "refresh_token", "client_id": CLIENT, "audience": AUDIENCE, "refresh_token": "none"}
        status, said = await ask("/api/issuer/token", {"issuer": issuer.url, "form": form})
        assert (status, said["status"], said["body"]["error"]) == (200, 400, "invalid_grant")
        wrong: list[tuple[str, Any]] = [
            ("/api/issuer", {"issuer": "http://192.0.2.1"}),
            ("/api/issuer", {"issuer": "file:///etc/passwd"}),
            ("/api/issuer", {"issuer": f"{issuer.url}?x=1"}),
            ("/api/issuer", []),
            ("/api/issuer/token", {"issuer": issuer.url, "form": {**form, "grant_type": "password"}}),
            ("/api/issuer/token", {"issuer": issuer.url, "form": {**form, "username": "ana"}}),
            ("/api/issuer/token", {"issuer": issuer.url, "form": form, "proof": "a\r\nb"}),
        ]
        for path, body in wrong:
            status, said = await ask(path, body)
            assert (status, said["reason"]) == (400, "bad-args"), (path, body, said)
        status, said = await ask("/api/issuer", {"issuer": "http://127.0.0.1:9"})
        assert (status, said["reason"]) == (502, "provider-away")


@pytest_asyncio.fixture(loop_scope="module")
async def registry(issuer: Issuer, tmp_path: Path, whole_built: None) -> AsyncIterator[Registry]:
    """A registry that whoever the issuer knows reads, in the page that it serves itself."""
    oidc = OidcConfig(issuer.url, AUDIENCE, CLIENT, bound=True)
    config = RegistryConfig(home=tmp_path / "registry", port=0, auth="oidc", oidc=oidc)
    page = [*Site("registry", issuer=issuer.url).routes(), *issuer_routes(only=issuer.url)]
    async with Registry(config, page=page) as running:
        flow = records.flow(name="Market watch")
        async with RegistryClient(running.url) as client:
            now = time.time_ns() // 1_000_000
            await client.up(records.signed_record(records.identity(1), flow, name="alpha.example", issued_at=now))
        yield running


async def test_a_registry_is_read_in_its_own_page_by_whom_its_issuer_knows(
    browser: Browser, registry: Registry, issuer: Issuer
) -> None:
    page = await browser.page(f"{registry.url}/#/flows", context=await browser.context())
    try:
        await page.sees("This registry shows its flows to its users")
        await be(page, issuer, "ana")
        await page.click("button", f"Log in at {host_of(issuer)}")
        await page.find("link", "Market watch")
        await page.evaluate(ENDED)
        await page.reload()
        await page.find("link", "Market watch")
        # It asked its own server alone; the browser went to the issuer's page by itself.
        assert all("/token" not in each for each in page.requests if each.startswith(issuer.url))
    finally:
        await page.close()


async def test_a_registry_asks_its_own_issuer_only_and_no_stranger_often(registry: Registry, issuer: Issuer) -> None:
    async with aiohttp.ClientSession() as http:

        async def ask(path: str, **more: Any) -> tuple[int, str]:
            async with http.post(registry.url + path, **more) as answer:
                return answer.status, (await answer.json()).get("reason", "")

        form = {"grant_type": "refresh_token", "client_id": CLIENT, "audience": AUDIENCE, "refresh_token": "x"}
        assert await ask("/api/issuer", json={"issuer": issuer.url}) == (200, "")
        other = issuer.url.replace("127.0.0.1", "localhost")
        assert await ask("/api/issuer", json={"issuer": other}) == (403, "other-issuer")
        assert await ask("/api/issuer/token", json={"issuer": other, "form": form}) == (403, "other-issuer")
        assert await ask(
            "/api/issuer/token", data=b"x" * (1 << 18), headers={"Content-Type": "application/json"}
        ) == (413, "too-large")
        refusals = [await ask("/api/issuer", json={"issuer": other}) for _ in range(40)]
        assert (429, "too-often") in refusals
