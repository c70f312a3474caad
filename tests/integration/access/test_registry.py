"""Registries that have users, through `koco` and the library: who reads what is found there."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from kodo.access.oidc import OidcConfig
from kodo.p2p.errors import CallError
from kodo.registry.client.client import RegistryClient
from kodo.registry.server import Registry, RegistryConfig
from tests.integration.access.conftest import client_of, koco, peer_id_of
from tests.support.issuer import running_issuer
from tests.support.records import flow, identity, signed_record

AUDIENCE = "https://registry.example"


async def announce(url: str) -> None:
    async with RegistryClient(url) as node:
        await node.up(signed_record(identity(1), flow(), issued_at=time.time_ns() // 1_000_000))


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a registry that was started as its operator starts it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from kodo.cli.main import main; main()"),
        *("registry", "--auth", "local", "--port", "0", "--json"),
        env={"PATH": "", "KODO_HOME": str(tmp_path / "operator"), "KODO_KEYRING": "no"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            found = json.loads(await process.stdout.readline())["url"]
        await announce(found)
        yield found
    finally:
        process.terminate()
        await process.wait()


async def test_two_users_and_a_stranger(url: str, tmp_path: Path) -> None:
    chief, ana, bob, eve = (tmp_path / name for name in ("operator", "ana", "bob", "eve"))
    place = ("--registry", url, "--json")
    assert (await koco(chief, "role", "add", "guest", *place)).code == 0
    for home, name, role in ((ana, "ana", "user"), (bob, "bob", "guest")):
        assert (await koco(chief, "user", "add", name, "--role", role, *place)).code == 0
        code = (await koco(chief, "user", "enrol", name, peer_id_of(home), *place)).row["code"]
        login = await koco(home, "login", "--code", code, *place)
        assert (login.row["user"], login.row["registry"]) == (name, url)

    listed = await koco(ana, "flows", *place)
    assert [row["path"] for row in map(json.loads, listed.out.splitlines())] == [flow().path]
    granted, unknown = await asyncio.gather(koco(bob, "nodes", *place), koco(eve, "flows", *place))
    assert (granted.code, granted.row["error"]["reason"]) == (4, "not-granted")
    assert (unknown.code, unknown.row["error"]["reason"]) == (4, "login-needed")
    assert "koco login --registry" in unknown.row["error"]["message"]
    assert (granted.err, unknown.err) == ("", "")

    assert (await koco(ana, "whoami", *place)).row["grants"] == ["flow://*/2/x", "node://*", "registry://*/r"]
    assert (await koco(chief, "user", "revoke", "ana", "user", *place)).code == 0
    assert (await koco(ana, "flows", *place)).row["error"]["reason"] == "not-granted"


async def test_users_of_an_issuer(tmp_path: Path) -> None:
    with running_issuer() as issuer:
        oidc = OidcConfig(issuer.url, AUDIENCE, "kodo-cli", roles=("*=guest", "operator=registry://*/r"))
        config = RegistryConfig(home=tmp_path / "registry", port=0, auth="oidc", oidc=oidc)
        async with Registry(config) as registry:
            url = registry.url
            await announce(url)
            async with client_of(tmp_path / "olga", registry=(url,)) as olga:
                with pytest.raises(CallError, match="login-needed"):
                    await olga.nodes()
                answer = await olga.login(url, issuer=issuer.url, show=issuer.approver("olga"))
                assert (answer["user"], answer["registry"]) == ("oidc:olga", url)
                login = olga.logins.get(url)
                assert login is not None
                bound = olga.logins.tokens(login)["token"]
                assert [row["name"] for row in await olga.nodes()] == ["flows.example.com"]
                # One that the registry takes no more is renewed by itself.
                olga.logins.put_tokens(login, {**olga.logins.tokens(login), "token": "spent"})
            async with client_of(tmp_path / "olga", registry=(url,)) as olga:
                assert [row["path"] async for row in olga.flows()] == [flow().path]
            async with client_of(tmp_path / "ana", registry=(url,)) as ana:
                await ana.login(url, issuer=issuer.url, show=issuer.approver("ana"))
                with pytest.raises(CallError, match="not-granted"):
                    await ana.nodes()

            # Alone a token counts when it is bound to no key; olga's from `koco login` is bound to hers.
            free = (await issuer.token("olga", AUDIENCE))["access_token"]
            other = (await issuer.token("olga", "https://other-nodes.example"))["access_token"]
            head, _, signature = free.split(".")
            forged = f"{head}.{bound.split('.')[1]}.{signature}"
            async with aiohttp.ClientSession(url) as http:
                said = []
                for token in (free, bound, other, forged, "."):
                    async with http.get("/flows", headers={"Authorization": f"Bearer {token}"}) as response:
                        said.append((response.status, (await response.json(content_type=None)).get("reason")))
                assert said == [(200, None), *[(401, "bad-token")] * 4]
                headers = {"Authorization": f"Bearer {free}", "Content-Type": "application/json"}
                async with http.post("/shutdown", data=b"{}", headers=headers) as response:
                    assert response.status == 401
