import asyncio
import gzip
import io
import sqlite3

import aiohttp
import msgpack
import pytest

from kodo.registry.http import app
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import flow, identity, signed_goodbye, signed_heartbeat, signed_record

MSGPACK = "application/msgpack"
WRITES = [("PUT", "/up"), ("POST", "/connect"), ("PUT", "/down"), ("POST", "/disconnect"), ("POST", "/state")]
GARBAGE = {
    "empty": b"",
    "text": b"hello",
    "json": b'{"peer_id": "x"}',
    "nil": b"\xc0",
    "never-used": b"\xc1",
    "deep": b"\x91" * 4000,
    "huge-array": b"\xdd\xff\xff\xff\xff",
    "huge-bin": b"\xc6\xff\xff\xff\xff",
    "no-utf8": b"\x81\xa1\xff\xc0",
    "unsigned": msgpack.packb({"peer_id": "x", "seq": 1}),
    "cut": signed_heartbeat()[:-1],
    "longer": signed_heartbeat() + b"\x00",
    "zeros": bytes(4000),
}


def stored(config):
    """Count the rows of every table of the registry."""
    connection = sqlite3.connect(config.database)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("nodes", "names", "flows")
            if name in tables
        }
    finally:
        connection.close()


NOTHING = {"nodes": 0, "names": 0, "flows": 0}


async def problem(response, status, reason):
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    body = await response.json(content_type=None)
    assert (body["type"], body["status"], body["reason"]) == ("about:blank", status, reason)
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_400_and_stores_nothing(http, config, method, path, body):
    async with http.request(method, path, data=body, headers={"Content-Type": MSGPACK}) as response:
        await problem(response, 400, "malformed")
    assert stored(config) == NOTHING


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_wrong_signature_is_400_and_stores_nothing(http, config, method, path):
    make = {"/up": signed_record, "/connect": signed_record, "/state": signed_heartbeat}.get(path, signed_goodbye)
    envelope = msgpack.unpackb(make())
    forged = msgpack.packb({**envelope, "signature": bytes(64)})
    async with http.request(method, path, data=forged, headers={"Content-Type": MSGPACK}) as response:
        await problem(response, 400, "bad-signature")
    assert stored(config) == NOTHING


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_415(http, config, method, path, content_type):
    # What a form of a foreign page can send without asking is never taken.
    async with http.request(method, path, data=signed_record(), headers={"Content-Type": content_type}) as response:
        await problem(response, 415, "wrong-content-type")
    assert stored(config) == NOTHING


async def test_a_compressed_body_is_415(http, config):
    headers = {"Content-Type": MSGPACK, "Content-Encoding": "gzip"}
    async with http.put("/up", data=gzip.compress(bytes(50_000_000)), headers=headers) as response:
        await problem(response, 415, "wrong-content-encoding")
    assert stored(config) == NOTHING


@pytest.mark.parametrize(("path", "limit"), [("/up", 1 << 20), ("/down", 4096)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_bound_is_413(http, config, path, limit, chunked):
    async def pieces():
        for _ in range(limit // 4096 + 1):
            yield bytes(4096)

    data = pieces() if chunked else io.BytesIO(bytes(limit + 1))
    async with http.put(path, data=data, headers={"Content-Type": MSGPACK}) as response:
        body = await problem(response, 413, "too-large")
    assert body["limit"] == limit
    assert stored(config) == NOTHING


async def test_an_old_seq_is_409_and_says_which_is_known(http):
    headers = {"Content-Type": MSGPACK}
    async with http.put("/up", data=signed_record(seq=7), headers=headers) as response:
        assert response.status == 200
    async with http.put("/up", data=signed_record(identity(), flow(), seq=6), headers=headers) as response:
        assert (await problem(response, 409, "old-seq"))["seq"] == 7


async def test_a_name_of_somebody_else_is_409(http, config):
    headers = {"Content-Type": MSGPACK}
    async with http.put("/up", data=signed_record(identity(1)), headers=headers) as response:
        assert response.status == 200
    async with http.put("/up", data=signed_record(identity(2), flow()), headers=headers) as response:
        assert (await problem(response, 409, "name-taken"))["peer_id"] == str(identity(1).peer_id)
    assert stored(config) == {"nodes": 1, "names": 1, "flows": 0}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/up", "PUT"),
        ("GET", "/up", "PUT"),
        ("DELETE", "/state", "GET, HEAD, POST, PUT"),
        ("DELETE", "/flows", "GET, HEAD, POST, PUT"),
        ("OPTIONS", "/flows", "GET, HEAD, POST, PUT"),
    ],
)
async def test_a_wrong_method_is_405_and_says_what_is_taken(http, method, path, allow):
    async with http.request(method, path) as response:
        await problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == allow


@pytest.mark.parametrize("path", ["/", "/nowhere", "/nodes/a/b"])
async def test_what_is_not_there_is_404(http, path):
    async with http.get(path) as response:
        await problem(response, 404, "no-such-page")


@pytest.mark.parametrize("peer_id", [str(identity().peer_id), "nobody", "%00", "x" * 3000, "%F0%9F%92%A9"])
async def test_a_node_that_is_not_known_is_404(http, peer_id):
    async with http.get(f"/nodes/{peer_id}") as response:
        await problem(response, 404, "no-such-node")


@pytest.mark.parametrize("path", ["/flows", "/nodes"])
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("query=exec('1')", "bad-args"),
        ("query=" + "(" * 2000, "bad-args"),
        ("query=" + "-" * 4000 + "1", "bad-args"),
        ("query=name.str.contains('(a%2B)%2B$')", "bad-args"),
        ("query=online%0Aonline", "bad-args"),
        ("query=@name", "bad-args"),
        ("pp=501", "bad-args"),
        ("p=0", "bad-args"),
        ("p=1&p=2", "bad-args"),
        ("by=1;drop", "bad-args"),
        ("search=a%00b", "bad-args"),
        ("what=1", "bad-args"),
    ],
)
async def test_wrong_parameters_are_400(http, path, query, reason):
    async with http.get(f"{path}?{query}") as response:
        await problem(response, 400, reason)


@pytest.mark.parametrize(
    "search", ["' OR 1=1 --", '"', '""', "AND", "NEAR(a b)", "col:abc", "^abc", "abc*", "[", "%FF", "\\"]
)
async def test_a_strange_search_is_a_search(http, search):
    async with http.get("/flows", params={"search": search}) as response:
        assert response.status == 200
        assert (await response.json())["search"] == search


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "user@127.0.0.1", "127.0.0.1:x", "", "127.0.0.1/x"],
)
@pytest.mark.parametrize("path", ["/state", "/nowhere"])
async def test_a_request_for_another_host_is_refused(http, host, path):
    async with http.get(path, headers={"Host": host}) as response:
        await problem(response, 421, "wrong-host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:80", "192.0.2.1", "registry.example"]
)
async def test_a_request_for_this_host_is_taken(http, host):
    async with http.get("/state", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/flows"), ("PUT", "/up")])
async def test_pages_of_other_origins_are_refused(http, config, origin, method, path):
    headers = {"Origin": origin, "Content-Type": MSGPACK}
    async with http.request(method, path, data=signed_record(), headers=headers) as response:
        await problem(response, 403, "wrong-origin")
    assert stored(config) == NOTHING


async def test_a_page_of_an_origin_that_was_named_may_call_and_read(tmp_path, clock):
    config = RegistryConfig(home=tmp_path / "r", port=0, origins=frozenset({"https://Flows.example.com"}))
    page = {"Origin": "https://flows.example.com"}
    asks = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    async with Registry(config, clock=clock) as registry, aiohttp.ClientSession(registry.url) as http:
        async with http.options("/up", headers=asks) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == page["Origin"]
            assert "PUT" in response.headers["Access-Control-Allow-Methods"]
            assert "Access-Control-Allow-Credentials" not in response.headers
        for path, status in (("/flows", 200), ("/nodes/nobody", 404)):
            async with http.get(path, headers=page) as response:
                assert response.status == status
                assert response.headers["Access-Control-Allow-Origin"] == page["Origin"]
                assert "Origin" in ", ".join(response.headers.getall("Vary"))
        async with http.options("/up", headers={**asks, "Origin": "https://evil.example"}) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_of_the_own_origin_is_taken(http, registry):
    async with http.get("/flows", headers={"Origin": registry.url}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /state HTTP/1.1\r\n\r\n",
        b"GET /state HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /state HTTP/1.0\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/msgpack\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    ],
    ids=["no-host", "two-hosts", "http1.0", "nonsense", "length", "chunks", "long-header", "tls"],
)
async def test_broken_http_is_a_4xx(raw, request_, registry, http):
    answer = await raw(request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    async with http.get("/state") as response:
        assert response.status == 200


async def test_a_body_that_breaks_off_stores_nothing(registry, config, http):
    host, port = registry.url.removeprefix("http://").split(":")
    body = signed_record()
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MSGPACK}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with http.get("/state") as response:
        assert response.status == 200
    assert stored(config) == NOTHING


async def test_nothing_but_the_documented_fields_is_kept(http, config):
    claim = msgpack.unpackb(msgpack.unpackb(signed_record(identity(), flow()))["payload"])
    claim["flows"][0]["inputs"] = {"secret": "canary-7f3a"}
    payload = msgpack.packb({key: claim[key] for key in sorted(claim)})
    signed = msgpack.packb(
        {"payload": payload, "signature": identity().sign(b"kodo/registry/node-record/1\n" + payload)}
    )
    headers = {"Content-Type": MSGPACK}
    async with http.put("/up", data=signed, headers=headers) as response:
        assert "canary" not in str(await problem(response, 400, "malformed"))
    async with http.put("/up", data=signed_record(identity(), flow()), headers=headers) as response:
        assert response.status == 200
    async with http.get("/flows") as response:
        (row,) = (await response.json())["result"]
    assert set(row) == {
        *("path", "name", "source", "description", "author", "organization", "published", "release", "tags"),
        *(
            "inputs_schema_sha256",
            "node",
            "peer_id",
            "addrs",
            "availability",
            "performance",
            "online",
            "state",
            "ping",
        ),
    }
    kept = b"".join(file.read_bytes() for file in config.home.iterdir())
    assert b"competitor" in kept.lower()
    assert b"canary" not in kept


def head(path, length):
    lines = (f"PUT {path} HTTP/1.1", "Host: localhost", f"Content-Type: {MSGPACK}", f"Content-Length: {length}")
    return "\r\n".join((*lines, "\r\n")).encode()


async def test_a_body_that_never_comes_is_408(raw, monkeypatch):
    monkeypatch.setattr(app, "_BODY_S", 0.1)
    answer = await raw(head("/up", 1000).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"some")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"reason": "too-slow"' in answer


@pytest.fixture
def one_body(monkeypatch):
    monkeypatch.setattr(app, "_BODIES", 1)


@pytest.fixture
def four_bodies(monkeypatch):
    monkeypatch.setattr(app, "_BODIES", 4)


async def test_bodies_over_the_bound_at_once_are_503(one_body, registry, http):
    host, port = registry.url.removeprefix("http://").split(":")
    body = signed_record()
    reader, writer = await asyncio.open_connection(host, int(port))
    # 100 Continue is what says that the first body is being waited for.
    writer.write(head("/up", len(body)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    headers = {"Content-Type": MSGPACK}
    async with http.put("/up", data=signed_record(identity(2), name="other"), headers=headers) as response:
        await problem(response, 503, "busy")
        assert response.headers["Retry-After"] == "1"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    async with http.put("/up", data=signed_record(identity(2), name="other"), headers=headers) as response:
        assert response.status == 200


async def test_slow_senders_of_one_address_leave_room_for_others(four_bodies, registry, http):
    host, port = registry.url.removeprefix("http://").split(":")
    body = signed_record()
    more = b"\r\nX-Forwarded-For: 192.0.2.1\r\nExpect: 100-continue\r\n\r\n"
    start = head("/up", len(body)).replace(b"\r\n\r\n", more)
    slow = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(start)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        slow.append(writer)
    for source, status in (("192.0.2.1", 429), ("192.0.2.2", 200)):
        headers = {"Content-Type": MSGPACK, "X-Forwarded-For": source}
        async with http.put("/up", data=body, headers=headers) as response:
            if status == 429:
                await problem(response, 429, "too-often")
            assert response.status == status
    for writer in slow:
        writer.close()
        await writer.wait_closed()


async def test_readers_of_one_address_leave_room_for_others(http, client):
    async def read(wait):
        headers = {"X-Forwarded-For": "192.0.2.1"}
        async with http.get(f"/records?wait={wait}", headers=headers) as response:
            return response.status

    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(read(25)) for _ in range(40)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {429}
        await client.up(signed_record())
    assert sorted(task.result() for task in waiting) == [200] * 32 + [429] * 8


async def test_a_registry_without_members_reads_no_batches(http):
    headers = {"Content-Type": "application/msgpack"}
    async with http.post("/mesh", data=b"\x80", headers=headers) as response:
        assert (response.status, (await response.json(content_type=None))["reason"]) == (403, "not-a-member")
