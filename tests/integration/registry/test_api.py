import gzip
import platform
import socket
from importlib.metadata import version

import aiohttp
import pytest

from kodo.p2p.core.hosts import is_local
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.http import app
from kodo.registry.records.record import verify_record
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import NOW, flow, identity, signed_goodbye, signed_heartbeat, signed_record

MSGPACK = {"Content-Type": "application/msgpack"}


async def send(http, method, path, data, status=200):
    async with http.request(method, path, data=data, headers=MSGPACK) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/up"), ("POST", "/connect")])
async def test_up_answers_what_is_listed_and_the_interval(http, method, path):
    answer = await send(http, method, path, signed_record(identity(), flow("a"), flow("b", author="")))
    assert answer == {
        "peer_id": str(identity().peer_id),
        "seq": 1,
        "accepted": ["a"],
        "refused": [{"path": "b", "reason": "missing-fields", "missing": ["author"]}],
        "interval_s": 60,
    }


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_heartbeat_is_answered_with_who_listens(http, clock, method):
    await send(http, "PUT", "/up", signed_record())
    answer = await send(http, method, "/state", signed_heartbeat(at=5, cpu=1.0))
    assert answer == {
        "name": "test registry",
        "python": platform.python_version(),
        "version": version("kodo"),
        "registry": clock.now,
        "interval_s": 60,
    }


@pytest.mark.parametrize(("method", "path"), [("PUT", "/down"), ("POST", "/disconnect")])
async def test_down_takes_a_node_offline(http, method, path):
    await send(http, "PUT", "/up", signed_record())
    assert await send(http, method, path, signed_goodbye()) == {
        "peer_id": str(identity().peer_id),
        "seq": 1,
        "online": None,
    }
    (row,) = (await send(http, "GET", "/nodes", None))["result"]
    assert (row["online"], row["state"]) == (None, "offline")


async def test_heartbeats_too_often_say_when_to_come_again(http):
    await send(http, "PUT", "/up", signed_record())
    await send(http, "POST", "/state", signed_heartbeat(at=1))
    async with http.post("/state", data=signed_heartbeat(at=2), headers=MSGPACK) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "30")


async def test_announcements_too_often_say_when_to_come_again(http, clock):
    for seq in range(1, 21):
        await send(http, "PUT", "/up", signed_record(seq=seq))
    async with http.put("/up", data=signed_record(seq=21), headers=MSGPACK) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
    await send(http, "PUT", "/up", signed_record(identity(2), name="another"))
    clock.advance(1)
    await send(http, "PUT", "/up", signed_record(seq=21))


async def test_state_counts(http, clock, config):
    await send(http, "PUT", "/up", signed_record(identity(), flow()))
    clock.advance(300)
    assert await send(http, "GET", "/state", None) == {
        "name": "test registry",
        "python": platform.python_version(),
        "version": version("kodo"),
        "registry": NOW + 300_000,
        "peer_id": str(load_identity(config.home, "registry").peer_id),
        "open": True,
        "nodes": {"online": 0, "unknown": 1, "offline": 0},
        "flows": 1,
    }


async def test_flows_are_searched_and_paged_over_http(http):
    await send(http, "PUT", "/up", signed_record(identity(), *(flow(f"f{n}", name=f"Größe {n}") for n in range(7))))
    async with http.get("/flows", params={"search": "GRÖSSE*", "p": "2", "pp": "5", "by": "name desc"}) as response:
        page = await response.json()
    assert [row["path"] for row in page.pop("result")] == ["f1", "f0"]
    assert page == {
        "total_records": 7,
        "filtered_records": 7,
        "total_pages": 2,
        "search": "GRÖSSE*",
        "query": None,
        "by": "name desc",
        "p": 2,
        "pp": 5,
    }


async def test_a_node_is_given_as_it_signed(http):
    signed = signed_record(identity(), flow())
    await send(http, "PUT", "/up", signed)
    async with http.get(f"/nodes/{identity().peer_id}") as response:
        assert (response.status, response.content_type) == (200, "application/msgpack")
        body = await response.read()
    assert body == signed
    assert verify_record(body).flows == (flow(),)


@pytest.mark.parametrize("path", ["/flows", "/nodes", f"/nodes/{identity().peer_id}"])
async def test_what_did_not_change_is_not_sent_again(http, path):
    await send(http, "PUT", "/up", signed_record(identity(), flow()))
    async with http.get(path) as response:
        tag = response.headers["ETag"]
    async with http.get(path, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", tag)
    await send(http, "PUT", "/up", signed_record(identity(), flow(), seq=2, addrs=()))
    async with http.get(path, headers={"If-None-Match": tag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != tag


async def test_long_answers_are_compressed_for_those_who_take_it(http):
    await send(http, "PUT", "/up", signed_record(identity(), *(flow(f"f{n}") for n in range(50))))
    async with http.get("/flows", headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        plain, tag = await response.read(), response.headers["ETag"]
    async with http.get("/flows", headers={"Accept-Encoding": "gzip"}) as response:
        assert (response.headers["Content-Encoding"], response.headers["ETag"]) == ("gzip", tag)
        packed = await response.read()
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 5


async def test_everything_is_served_again_after_a_restart(config, clock, registry, http):
    signed = signed_record(identity(), flow())
    await send(http, "PUT", "/up", signed)
    await registry.aclose()
    async with Registry(config, clock=clock) as again, aiohttp.ClientSession(again.url) as http_again:
        async with http_again.get(f"/nodes/{identity().peer_id}") as response:
            assert await response.read() == signed
        async with http_again.get("/flows?search=competitor") as response:
            assert (await response.json())["filtered_records"] == 1


async def test_a_registry_that_is_not_open_takes_nobody_unregistered(tmp_path, clock):
    config = RegistryConfig(home=tmp_path, port=0, open=False)
    async with Registry(config, clock=clock) as registry, aiohttp.ClientSession(registry.url) as http:
        problem = await send(http, "PUT", "/up", signed_record(), status=403)
        assert problem["reason"] == "not-registered"
        assert (await send(http, "GET", "/state", None))["nodes"] == {"online": 0, "unknown": 0, "offline": 0}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("192.168.1.4", True),
        ("10.0.0.1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:192.168.1.4", True),
        ("0.0.0.0", False),
        ("::", False),
        ("8.8.8.8", False),
        ("2a00::1", False),
        ("::ffff:8.8.8.8", False),
        ("registry.example", False),
    ],
)
def test_a_registry_is_open_by_default_on_loopback_and_lan_only(host, local):
    assert is_local(host) is local


async def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = RegistryConfig(home=tmp_path, port=other.getsockname()[1])
        with pytest.raises(UsageError, match=str(config.port)):
            await Registry(config).__aenter__()
    # Nothing was left behind that would keep the next one from the same file.
    async with Registry(config.model_copy(update={"port": 0})):
        pass


async def test_a_registry_listens_on_ipv6(tmp_path):
    async with Registry(RegistryConfig(home=tmp_path, host="::1", port=0)) as registry:
        assert registry.url.startswith("http://[::1]:")


async def test_closing_twice_is_fine(tmp_path):
    async with Registry(RegistryConfig(home=tmp_path, port=0)) as registry:
        await registry.aclose()
    with pytest.raises(UsageError):
        _ = registry.url


async def test_the_more_nodes_there_are_the_longer_is_the_interval(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(app, "_BEATS_PER_S", 1)
    config = RegistryConfig(home=tmp_path / "registry", port=0, heartbeat_s=2)
    async with Registry(config, clock=clock) as registry, aiohttp.ClientSession(registry.url) as http:
        told = []
        for number in range(1, 5):
            record = signed_record(identity(number), name=f"node{number}")
            told.append((await send(http, "PUT", "/up", record))["interval_s"])
        assert told == [2, 2, 3, 4]
        monkeypatch.setattr(app, "_BEATS_PER_S", 0.001)
        assert (await send(http, "POST", "/state", signed_heartbeat(at=1)))["interval_s"] == 150
