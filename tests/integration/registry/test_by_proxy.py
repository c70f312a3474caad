"""Registries by a proxy: calls, waiting and the relay go by it, and what fails because of it names it."""

import asyncio
from pathlib import Path

import pytest

from kodo.access import outgoing
from kodo.access.http import discover
from kodo.cli import doctor
from kodo.p2p.core import relay_wire
from kodo.p2p.core.hosts import is_local
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net.leg import Leg
from kodo.registry.client import relaying
from kodo.registry.client import waiting as waiting_client
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.waiting import wait_at
from tests.support.proxy import proxy
from tests.support.records import identity, signed_record

NODE = identity(1)
NAME = "registry.example"
FAR = "192.88.99.7"
"""An address that is in nobody's own network."""


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Let the name of the registry be that of a host far away; and choose no proxy for other tests."""

    async def look_up(host, port, **more):
        if host != NAME:
            raise OSError("no such name")
        return [(2, 1, 6, "", (FAR, port))]

    assert not is_local(FAR)
    monkeypatch.setattr(outgoing, "look_up", look_up)
    monkeypatch.setattr(outgoing, "_chosen", None)


def named(registry):
    """Return the registry's URL by its name, which only a proxy leads anywhere."""
    return f"http://{NAME}:{registry.url.rpartition(':')[2]}"


async def test_calls_waiting_and_the_relay_go_by_the_proxy(registry):
    async with proxy({NAME: "127.0.0.1"}, login="me:secret") as by:
        outgoing.use_proxy(by.url.replace("//", "//me:secret@"))
        async with RegistryClient(named(registry)) as client:
            await client.up(signed_record(NODE))
            assert (await client.record(str(NODE.peer_id))).peer_id == str(NODE.peer_id)
        told, got = asyncio.get_running_loop().create_future(), asyncio.Queue()
        waiting = asyncio.ensure_future(wait_at(named(registry), NODE, told.set_result))
        tag = relay_wire.tag_of(NODE.peer_id)
        async with asyncio.timeout(10):
            await told
            with registry.relay.admitted(NODE.peer_id) as token:
                request = relay_wire.attach_request(tag, token, 1, b"")
                leg = Leg(got.put_nowait, lambda: None, lambda is_open: leg.send([request] if is_open else []))
                carrying = asyncio.ensure_future(relaying._carry(named(registry), leg, None))
                assert relay_wire.read_attach_answer(await got.get(), token).nonce
        # Where the registry is by UDP its name says, not the connection to the proxy.
        offered = told.result()
        assert offered is None or by.url.partition("//")[2].partition(":")[0] not in offered.hosts
        for task in (waiting, carrying):
            task.cancel()
        await asyncio.wait([waiting, carrying])
        assert len(by.asked) >= 3
        assert {each.rpartition(":")[0] for each in by.asked} == {NAME}


async def test_this_machine_and_its_networks_are_reached_without_it(registry):
    async with proxy({}) as by:
        outgoing.use_proxy(by.url)
        async with RegistryClient(registry.url) as client:
            await client.nodes()
        assert by.asked == []
        for host in ("localhost", "127.9.9.9", "[::1]", "192.168.1.7", "10.0.0.1", "[fd00::1]", "box.local", "box"):
            assert await outgoing.proxy_to(f"http://{host}:8360") is None, host
        for host in (NAME, FAR, "no-such-name.example"):
            assert await outgoing.proxy_to(f"https://{host}") == by.url, host


async def test_while_name_servers_say_nothing_a_proxy_reads_nothing(monkeypatch):
    async def silent(host, port, **more):
        await asyncio.Event().wait()

    monkeypatch.setattr(outgoing, "look_up", silent)
    for name in ("LOOK_UP_SECONDS", "PLAIN_LOOK_UP_SECONDS"):
        monkeypatch.setattr(outgoing, name, 0.01)
    outgoing.use_proxy("http://proxy.example:3128")
    assert await outgoing.proxy_to(f"https://{NAME}") == "http://proxy.example:3128"
    for url in (f"http://{NAME}", f"ws://{NAME}", "https://box"):
        assert await outgoing.proxy_to(url) is None, url


@pytest.mark.parametrize(("there", "hosts"), [("8.8.4.4", ("8.8.4.4",)), ("10.0.0.5", None)])
async def test_where_a_relay_is_follows_from_how_the_registry_was_reached(registry, monkeypatch, there, hosts):
    async def found(host, port, **more):
        # Whatever would be chosen now: the connection goes by the proxy.
        monkeypatch.setattr(outgoing, "_chosen", None)
        return [(2, 1, 6, "", (there, port))]

    monkeypatch.setattr(waiting_client, "look_up", found)
    async with proxy({NAME: "127.0.0.1"}) as by:
        outgoing.use_proxy(by.url)
        async with RegistryClient(named(registry)) as client:
            await client.up(signed_record(NODE))
        told = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(wait_at(named(registry), NODE, told.set_result))
        await asyncio.wait([told, waiting], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert not waiting.done()
        offered = told.result()
        assert (None if offered is None else offered.hosts) == hosts
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_what_fails_because_of_the_proxy_names_it_without_its_password(registry):
    async with proxy({NAME: "127.0.0.1"}, login="me:secret") as by:
        url = by.url.replace("//", "//me:wrong@")
        outgoing.use_proxy(url)
        for scheme in ("http", "https"):
            at = named(registry).replace("http", scheme)
            async with RegistryClient(at) as client:
                with pytest.raises(UnreachableError, match=f"the proxy {by.url} does not connect") as refused:
                    await client.nodes()
                assert "USER:PASSWORD" in str(refused.value)
            with pytest.raises(UnreachableError, match=f"the proxy {by.url} does not connect"):
                await wait_at(at, NODE, lambda relay: None)
            with pytest.raises(UnreachableError, match=f"the proxy {by.url} does not connect"):
                await relaying._carry(at, Leg(lambda data: None, lambda: None), None)
    async with RegistryClient(named(registry)) as client:
        with pytest.raises(UnreachableError, match=f"the proxy {by.url} does not answer.*; check KODO_PROXY"):
            await client.nodes()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_doctor_takes_no_answer_of_a_proxy_for_the_registrys(registry, scheme):
    at = named(registry).replace("http", scheme, 1)
    async with proxy({NAME: "127.0.0.1"}, login="me:secret") as by:
        with pytest.raises(OSError, match="407"):
            await asyncio.to_thread(doctor._date_at, at, by.url)
        if scheme == "http":
            assert await asyncio.to_thread(doctor._date_at, at, by.url.replace("//", "//me:secret@"))


async def test_issuers_are_asked_by_the_proxy_too():
    async with proxy({"issuer.example": "127.0.0.1"}, login="me:secret") as by:
        outgoing.use_proxy(by.url)
        with pytest.raises(UnreachableError, match=f"the proxy {by.url} does not connect"):
            await discover("https://issuer.example")
        assert by.asked == ["issuer.example:443"]


async def test_by_the_word_system_it_is_the_one_that_the_environment_names(monkeypatch):
    outgoing.use_proxy("system")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert await outgoing.proxy_to(f"https://{NAME}") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
    monkeypatch.setenv("HTTP_PROXY", "http://two:2")
    assert await outgoing.proxy_to(f"https://{NAME}") == "http://one:1"
    assert await outgoing.proxy_to(f"http://{NAME}:8360") == "http://two:2"
    monkeypatch.setenv("NO_PROXY", ".example")
    assert await outgoing.proxy_to(f"https://{NAME}") is None


def test_one_place_makes_all_clients_for_registries_and_issuers():
    root = Path(__file__).resolve().parents[3]
    makes = {
        file.relative_to(root).as_posix()
        for part in ("client", "node", "p2p", "registry")
        for file in (root / part / "kodo").rglob("*.py")
        if "ClientSession(" in file.read_text("utf-8")
    }
    # A webhook's target is neither.
    assert makes == {"node/kodo/access/outgoing.py", "node/kodo/node/webhooks/targets.py"}
