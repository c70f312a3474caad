import asyncio
import contextlib

import pytest

from kodo.p2p.errors import (
    BrokenSessionError,
    CallError,
    CapacityError,
    DeadlineError,
    IdentityError,
    PeerError,
    UnreachableError,
    UsageError,
)
from kodo.registry.client import client as client_module
from kodo.registry.client.client import RegistryClient
from tests.support.records import NOW, flow, identity, record, signed_goodbye, signed_heartbeat, signed_record

PEER = str(identity().peer_id)


@contextlib.asynccontextmanager
async def answering(answer, *, close=True):
    """Serve the same bytes to whoever asks; give the URL."""

    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if not close:
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*serving)


def http_answer(status, body, content_type="application/json"):
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_node_announces_beats_and_leaves(client):
    up = await client.up(signed_record(identity(), flow(), flow("b", name="")))
    assert (up.interval_s, up.accepted) == (60, ["flows.market.Competitor"])
    assert [(item.path, item.reason, item.missing) for item in up.refused] == [("b", "missing-fields", ["name"])]
    beat = await client.state(signed_heartbeat(at=1))
    assert (beat.interval_s, beat.registry, beat.name) == (60, NOW, "test registry")
    await client.down(signed_goodbye())
    state = await client.registry_state()
    assert (state.nodes, state.flows) == ({"online": 0, "unknown": 0, "offline": 1}, 1)


async def test_pages_are_read(client):
    await client.up(signed_record(identity(), flow("a"), flow("b")))
    page = await client.flows(search="compet*", p=2, pp=1, by="path asc")
    assert (page.total_records, page.total_pages, page.p, [row["path"] for row in page.result]) == (2, 2, 2, ["b"])
    page = await client.flows(query="online and path > 'a'")
    assert (page.query, [row["path"] for row in page.result]) == ("online and path > 'a'", ["b"])
    nodes = await client.nodes()
    assert [row["peer_id"] for row in nodes.result] == [PEER]


async def test_a_record_is_verified(client):
    await client.up(signed_record(identity(), flow()))
    assert await client.record(PEER) == record(identity(), flow())


async def test_a_refusal_is_a_call_error_with_its_facts(client):
    await client.up(signed_record(seq=4))
    with pytest.raises(CallError) as caught:
        await client.up(signed_record(seq=3))
    assert (caught.value.code, caught.value.reason, caught.value.data) == (409, "old-seq", {"seq": 4})
    with pytest.raises(CallError, match=r"character 1: there is no field"):
        await client.flows(query="nmae == 1")


async def test_too_often_says_how_long_to_wait(client):
    await client.up(signed_record())
    await client.state(signed_heartbeat(at=1))
    with pytest.raises(CallError) as caught:
        await client.state(signed_heartbeat(at=2))
    assert (caught.value.code, caught.value.data) == (429, {"retry_after_s": 30})


@pytest.mark.parametrize(
    ("signed", "error"),
    [
        (signed_record(identity(2)), IdentityError),
        (signed_heartbeat(), PeerError),
        (b"garbage", PeerError),
        (b"", PeerError),
    ],
)
async def test_a_lying_registry_is_found_out(signed, error):
    async with answering(http_answer(200, signed)) as url, RegistryClient(url) as client:
        with pytest.raises(error):
            await client.record(PEER)


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(200, b"<html>"),
        http_answer(200, b"[]"),
        http_answer(200, b"{}"),
        http_answer(200, b"\xff"),
        http_answer(200, b"[" * 100_000),
        http_answer(200, b'{"result": 7, "total_records": "1"}'),
        http_answer(302, b""),
        http_answer(204, b""),
    ],
)
async def test_an_answer_that_is_none_of_a_registrys_is_a_peer_error(answer):
    async with answering(answer) as url, RegistryClient(url) as client:
        with pytest.raises(PeerError):
            await client.flows()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"reason": 7, "retry_after_s": "soon"}', b"[" * 100_000])
async def test_a_refusal_that_is_no_problem_document_is_a_refusal_still(body):
    async with answering(http_answer(502, body)) as url, RegistryClient(url) as client:
        with pytest.raises(CallError) as caught:
            await client.flows()
    assert (caught.value.code, caught.value.reason, caught.value.data) == (502, "refused", {})


async def test_an_endless_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1000)
    async with answering(http_answer(200, bytes(2 << 20))) as url, RegistryClient(url) as client:
        with pytest.raises(CapacityError):
            await client.record(PEER)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"])
async def test_a_connection_that_breaks_is_a_network_error(answer):
    async with answering(answer) as url, RegistryClient(url) as client:
        with pytest.raises(BrokenSessionError):
            await client.flows()


async def test_a_server_that_does_not_speak_http_is_an_error_of_ours():
    async with answering(b"\x15\x03\x03\x00\x02\x02\x28" * 10 + b"\r\n\r\n") as url, RegistryClient(url) as client:
        with pytest.raises((PeerError, BrokenSessionError)):
            await client.flows()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"])
async def test_silence_ends_at_the_deadline(answer):
    async with answering(answer, close=False) as url, RegistryClient(url, timeout=0.2) as client:
        with pytest.raises(DeadlineError):
            await client.flows()


async def test_a_registry_that_is_away_is_unreachable(registry):
    url = registry.url
    await registry.aclose()
    async with RegistryClient(url) as client:
        with pytest.raises(UnreachableError):
            await client.up(signed_record())


@pytest.mark.parametrize("url", ["", "registry", "ftp://x", "http://", "http://x?y", "http://[", "http://x:99999"])
def test_what_is_no_url_is_local_misuse(url):
    with pytest.raises(UsageError):
        RegistryClient(url)


async def test_what_is_no_peer_id_is_local_misuse(client):
    with pytest.raises(UsageError):
        await client.record("../state")


async def test_a_closed_client_says_so(client):
    await client.aclose()
    await client.aclose()
    with pytest.raises(UsageError):
        await client.flows()
