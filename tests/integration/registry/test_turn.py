import base64
import hashlib
import hmac
from dataclasses import fields

import aiohttp
import pytest

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.client.client import RegistryClient
from kodo.registry.http.app import Service
from kodo.registry.http.turn import TURN_TTL_S
from kodo.registry.server import Registry
from tests.support.records import NOW

URLS = ("turns:turn.example.com:443?transport=tcp", "turn:turn.example.com?transport=tcp")
SECRET = "a-secret-of-coturn-and-the-registry"
ORIGIN = "https://flows.example.com"


@pytest.fixture
async def turning(config, clock):
    chosen = config.model_copy(update={"turn": URLS, "turn_secret": SECRET, "origins": frozenset([ORIGIN])})
    async with Registry(chosen, clock=clock) as running, aiohttp.ClientSession(running.url) as http:
        yield http


async def test_a_page_gets_credentials_that_the_turn_server_can_check_and_that_expire(turning):
    async with turning.get("/turn", headers={"Origin": ORIGIN}) as answer:
        told = await answer.json()
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Set-Cookie" not in answer.headers
    assert told["urls"] == list(URLS)
    expires_s, colon, _ = told["username"].partition(":")
    assert (int(expires_s), colon) == (NOW // 1000 + TURN_TTL_S, ":")
    assert told["expires_at"] == int(expires_s) * 1000
    digest = hmac.new(SECRET.encode(), told["username"].encode(), hashlib.sha1).digest()
    assert told["credential"] == base64.b64encode(digest).decode()


async def test_the_turn_server_counts_by_source_and_is_not_told_which(turning, clock):
    async def named(host: str) -> str:
        async with turning.get("/turn", headers={"X-Forwarded-For": host}) as answer:
            return str((await answer.json())["username"]).partition(":")[2]

    first = await named("192.0.2.7")
    assert len(first) == 20
    assert await named("192.0.2.8") != first
    assert await named("2001:db8::1") == await named("2001:db8::2")
    clock.advance(60)
    assert await named("192.0.2.7") == first
    clock.advance(86_400)
    assert await named("192.0.2.7") != first


async def test_pages_of_other_origins_get_none_and_a_source_gets_few(turning):
    async with turning.get("/turn", headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403
    for _ in range(100):
        async with turning.get("/turn", headers={"X-Forwarded-For": "192.0.2.7"}) as answer:
            if answer.status == 429:
                break
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    async with turning.get("/turn", headers={"X-Forwarded-For": "192.0.2.8"}) as answer:
        assert answer.status == 200


async def test_a_registry_without_a_turn_server_says_so(client):
    with pytest.raises(CallError) as caught:
        await client.turn()
    assert (caught.value.code, caught.value.reason) == (404, "no-turn")


async def test_where_reading_takes_a_grant_credentials_take_it_too(config, clock):
    chosen = config.model_copy(update={"turn": URLS, "turn_secret": SECRET, "auth": "local"})
    async with Registry(chosen, clock=clock) as running, RegistryClient(running.url) as client:
        with pytest.raises(CallError) as caught:
            await client.turn()
    assert (caught.value.code, caught.value.reason) == (401, "login-needed")


async def test_a_turn_server_without_its_secret_is_refused_at_the_start(config, clock):
    with pytest.raises(UsageError, match=r"turn_secret.*is missing"):
        async with Registry(config.model_copy(update={"turn": URLS}), clock=clock):
            pass
    with pytest.raises(UsageError, match=r"`turn` is missing"):
        async with Registry(config.model_copy(update={"turn_secret": SECRET}), clock=clock):
            pass


async def test_a_client_is_told_until_when_credentials_hold_and_no_text_of_the_service_has_the_secret(config, clock):
    chosen = config.model_copy(update={"turn": URLS, "turn_secret": SECRET})
    async with Registry(chosen, clock=clock) as running, RegistryClient(running.url) as client:
        assert (await client.turn())["expires_at"] == (NOW // 1000 + TURN_TTL_S) * 1000
    assert [each.repr for each in fields(Service) if each.name == "turn"] == [False]
