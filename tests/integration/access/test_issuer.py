"""Users of a real OpenID Connect issuer (npm's oidc-provider): the device flow, renewal, tokens of all evil kinds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.access import http
from kodo.access.oidc import KEYS_PAUSE_S, OidcConfig, OidcProvider
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, NetworkError, UsageError
from kodo.p2p.net.calls import request
from tests.integration.access.conftest import address, client_of, koco, node_at
from tests.support.issuer import Issuer, running_issuer

AUDIENCE = "https://nodes.example"
OTHER_AUDIENCE = "https://other-nodes.example"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


def config(issuer: Issuer, audience: str = AUDIENCE) -> dict[str, Any]:
    return {"auth": "oidc", "oidc": OidcConfig(issuer.url, audience, "kodo-cli")}


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_user_logs_in_by_the_device_flow_and_stays_in(issuer: Issuer, tmp_path: Path) -> None:
    home = tmp_path / "ana"
    async with node_at(tmp_path / "node", **config(issuer)) as node:
        place = ("--node", address(node), "--json")
        refused = await koco(home, "flows", *place)
        assert (refused.code, refused.row["error"]["reason"]) == (4, "login-needed")
        unapproved = await koco(home, "login", *place)
        assert unapproved.code == 2
        assert issuer.url in unapproved.row["error"]["message"]
        login = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from kodo.cli.main import main; main()"),
            *("login", "--issuer", issuer.url, *place),
            env={"PATH": "", "KODO_HOME": str(home), "KODO_LAN": "no", "KODO_KEYRING": "no"},
            stdout=asyncio.subprocess.PIPE,
        )
        assert login.stdout is not None
        async with asyncio.timeout(60):
            prompt = json.loads(await login.stdout.readline())
            assert prompt["open"].startswith(issuer.url)
            await asyncio.to_thread(issuer.approve, prompt["code"], "ana")
            answer = json.loads(await login.stdout.readline())
            assert await login.wait() == 0
        assert (answer["user"], answer["roles"]) == ("oidc:ana", ["user"])

        async with client_of(home) as ana:
            run = await ana.launch("flows.work", node=address(node))
            assert [event.event async for event in run.follow()][-1] == "final"
            assert (await run.state())["own"] is True
            login_kept = ana.logins.get((await ana.node(address(node))).peer_id)
            assert login_kept is not None
            tokens = ana.logins.tokens(login_kept)
            # Bound to her key: a node that shows it elsewhere cannot open a session with that.
            assert claims_of(tokens["token"])["cnf"]["jkt"]
            ana.logins.put_tokens(login_kept, {**tokens, "expires_at": 1})
        async with client_of(home) as ana:
            assert (await ana.whoami(address(node)))["user"] == "oidc:ana"
            renewed = ana.logins.tokens(login_kept)
            assert renewed["token"] != tokens["token"]
            assert renewed["refresh"] != tokens["refresh"]
            # The node lets the token go, as it does when it ends: she shows a new one without noticing.
            session = await (await ana.node(address(node))).session()
            await request(session, "auth.logout")
            assert [row["path"] async for row in ana.flows(node=address(node))] == ["flows.ask", "flows.work"]
            assert ana.logins.tokens(login_kept)["token"] != renewed["token"]


async def test_an_issuer_that_was_not_approved_gets_nobody(issuer: Issuer, tmp_path: Path) -> None:
    async with node_at(tmp_path / "node", **config(issuer)) as node, client_of(tmp_path / "ana") as ana:
        with pytest.raises(UsageError, match="not of"):
            await ana.login(address(node), issuer="https://evil.example", show=lambda prompt: None)


async def test_tokens_that_are_not_right_are_refused(issuer: Issuer, tmp_path: Path) -> None:
    good = await issuer.token("ana", AUDIENCE)
    head, body, signature = good["access_token"].split(".")
    [key] = (await http.get_json(f"{issuer.url}/jwks"))["keys"]
    kid = key["kid"]

    def forged(header: dict[str, Any], claims: dict[str, Any]) -> str:
        message = f"{part(header)}.{part(claims)}"
        secrets = {"HS256": json.dumps(key).encode()}
        made = hmac.digest(secrets.get(header["alg"], b"x"), message.encode(), "sha256")
        return f"{message}.{'' if header['alg'] == 'none' else part(made)}"

    claims = claims_of(good["access_token"])
    root = {**claims, "sub": "olga", "roles": ["operator"]}
    evil = {
        "alg none": forged({"alg": "none"}, root),
        "alg none with the signature": f"{part({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        "the public key as a secret": forged({"alg": "HS256", "kid": kid}, root),
        "a foreign key id": forged({"alg": "RS256", "kid": "evil"}, root),
        "jku": forged({"alg": "RS256", "kid": "evil", "jku": "https://evil.example/jwks"}, root),
        "x5u": forged({"alg": "RS256", "kid": kid, "x5u": "https://evil.example/x5u"}, root),
        "other claims": f"{head}.{part(root)}.{signature}",
        "another audience": (await issuer.token("ana", OTHER_AUDIENCE))["access_token"],
        "the id token": good["id_token"],
        "the refresh token": good["refresh_token"],
        "16 KiB": good["access_token"] + "A" * (16 << 10),
        "all that a call takes": "A" * ((1 << 20) - 64),
        "nothing": ".",
    }
    async with node_at(tmp_path / "node", **config(issuer)) as node, client_of(tmp_path / "eve") as eve:
        session = await (await eve.node(address(node))).session()
        for name, token in evil.items():
            with pytest.raises(CallError) as caught:
                await request(session, "auth.login", {"token": token})
            # More than whoever is not admitted may send is not read at all.
            reason = "login-needed" if name == "all that a call takes" else "bad-token"
            assert (name, caught.value.code, caught.value.reason) == (name, 401, reason)
            assert token not in str(caught.value)
        with pytest.raises(CallError, match="koco login"):
            await request(session, "flow.list")
        # The token itself is good, as it is bound to no key: that is why an audience is one operator's.
        answer = await request(session, "auth.login", {"token": good["access_token"]})
        assert answer["user"] == "oidc:ana"


async def test_a_node_cannot_use_what_it_was_shown_at_another(issuer: Issuer, tmp_path: Path) -> None:
    home = tmp_path / "ana"
    async with (
        node_at(tmp_path / "node", **config(issuer)) as honest,
        node_at(tmp_path / "other", **config(issuer, OTHER_AUDIENCE)) as elsewhere,
        client_of(home) as ana,
        client_of(tmp_path / "evil") as evil_node,
    ):
        await ana.login(address(honest), issuer=issuer.url, show=issuer.approver("ana"))
        peer = (await ana.node(address(honest))).peer_id
        login = ana.logins.get(peer)
        assert login is not None
        token = ana.logins.tokens(login)["token"]
        # The same audience, another key: the session proves it.
        session = await (await evil_node.node(address(honest))).session()
        with pytest.raises(CallError, match="bound to another key"):
            await request(session, "auth.login", {"token": token})
        # Even with her key, and at a node that another operator's tokens are for.
        session = await (await ana.node(address(elsewhere))).session()
        with pytest.raises(CallError, match="another audience"):
            await request(session, "auth.login", {"token": token})
        # And her client does not show it to a node that was not approved.
        assert (await ana.whoami(address(elsewhere)))["user"] is None


async def test_roles_come_from_the_issuer(issuer: Issuer, tmp_path: Path) -> None:
    async with node_at(tmp_path / "node", **config(issuer)) as node, client_of(tmp_path / "olga") as olga:
        answer = await olga.login(address(node), issuer=issuer.url, show=issuer.approver("olga"))
        assert answer["roles"] == ["operator", "user"]
        assert (await (await olga.node(address(node))).request("cleanup.list", {}))["total_records"] == 0


async def test_the_issuer_takes_a_new_key(issuer: Issuer) -> None:
    seconds = [1000.0]
    peer = str(Identity.from_seed(b"p" * 32).peer_id)
    provider = OidcProvider(
        "home",
        OidcConfig(issuer.url, AUDIENCE, "kodo-cli"),
        lambda: time.time_ns() // 1_000_000,
        lambda: seconds[0],
    )
    old = (await issuer.token("ana", AUDIENCE))["access_token"]
    assert (await provider.identify(peer, old)).user == "oidc:ana"
    await asyncio.to_thread(issuer.post, "/rotate")
    new = (await issuer.token("ana", AUDIENCE))["access_token"]
    seconds[0] += KEYS_PAUSE_S
    assert (await provider.identify(peer, new)).user == "oidc:ana"


@contextlib.asynccontextmanager
async def logged_in(issuer: Issuer, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    async with node_at(tmp_path / "node", **config(issuer)) as node, client_of(tmp_path / "ana") as ana:
        await ana.login(address(node), issuer=issuer.url, show=issuer.approver("ana"))
        yield node, ana


async def test_while_the_issuer_is_away_who_is_in_stays_in(tmp_path: Path) -> None:
    with running_issuer() as issuer:
        async with logged_in(issuer, tmp_path) as (node, ana):
            token = (await issuer.token("ana", AUDIENCE))["access_token"]
            issuer.stop()
            assert (await ana.whoami(address(node)))["user"] == "oidc:ana"
            run = await ana.launch("flows.work", node=address(node))
            assert [event.event async for event in run.follow()][-1] == "final"
            async with node_at(tmp_path / "late", **config(issuer)) as late:
                session = await (await ana.node(address(late))).session()
                with pytest.raises(CallError) as caught:
                    await request(session, "auth.login", {"token": token})
                assert (caught.value.code, caught.value.reason) == (503, "provider-away")
                show = issuer.approver("ana")
                with pytest.raises(NetworkError):  # a new token, which nobody gives now
                    await ana.login(address(late), issuer=issuer.url, show=show)
                with pytest.raises(CallError, match="away"):  # the one that she has, as she agrees
                    await ana.login(address(late), issuer=issuer.url, show=show, approve=lambda asked: True)
