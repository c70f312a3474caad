import asyncio
import logging

import aiohttp
import pytest

from kodo.registry.records.signed import pack, sign, unpack
from kodo.registry.rendezvous import Presence
from tests.support.records import identity, signed_record

MSGPACK = {"Content-Type": "application/msgpack"}
SEALED = pack({"v": 1, "enc": bytes(range(32)), "ct": b"CANARY" * 20})
ANSWER = pack({"v": 1, "enc": bytes(32), "ct": b"YRANAC" * 20})
NODE = identity(1)


@pytest.fixture
async def host(registry, client):
    await client.up(signed_record(NODE))
    return registry.url.removeprefix("http://")


async def enter(http, at, of=NODE, **fields):
    """Wait as a node; gives the WebSocket, and what the registry said to the proof."""
    socket = await http.ws_connect("/rendezvous")
    challenge = unpack(await socket.receive_bytes(timeout=10))["challenge"]
    given = {"peer_id": str(of.peer_id), "host": at, "challenge": challenge}
    await socket.send_bytes(sign(Presence(**{**given, **fields}), of))
    return socket, await socket.receive(timeout=10)


async def offer(http, body=SEALED, to=NODE, **headers):
    return await http.post(f"/rendezvous/{to.peer_id}", data=body, headers={**MSGPACK, **headers})


async def test_an_offer_goes_to_the_node_and_its_answer_comes_back(http, host, caplog):
    caplog.set_level(logging.DEBUG, "kodo")
    socket, said = await enter(http, host)
    assert unpack(said.data)["waiting"] is True
    calling = asyncio.ensure_future(offer(http))
    frame = unpack(await socket.receive_bytes(timeout=10))
    assert frame["offer"] == SEALED
    await socket.send_bytes(pack({"id": frame["id"], "answer": ANSWER}))
    response = await calling
    assert (response.status, response.content_type, await response.read()) == (200, "application/msgpack", ANSWER)
    assert not [record for record in caplog.records if "CANARY" in record.getMessage()]
    await socket.close()


async def test_who_left_is_not_here(http, host):
    socket, _ = await enter(http, host)
    await socket.close()
    async with asyncio.timeout(10):
        while (response := await offer(http)).status != 404:
            assert response.status == 502
    assert (await response.json(content_type=None))["reason"] == "not-here"


@pytest.mark.parametrize(
    ("of", "fields", "code"),
    [
        (NODE, {"host": "other.example"}, 4001),
        (NODE, {"challenge": bytes(32)}, 4001),
        (identity(2), {}, 4003),
    ],
    ids=["proof for another registry", "proof of another challenge", "a node nobody announced"],
)
async def test_a_node_without_proof_or_record_does_not_wait(http, host, of, fields, code):
    socket, said = await enter(http, host, of, **fields)
    assert (said.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, code)


@pytest.mark.parametrize("frame", [b"", b"\xc0", pack({"id": 1}), pack({"id": 1, "answer": b"v=0"}), b"x" * 17000])
async def test_a_node_that_babbles_is_cut_off(http, host, frame):
    socket, _ = await enter(http, host)
    await socket.send_bytes(frame)
    said = await socket.receive(timeout=10)
    assert said.type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code in (4001, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)
    assert (await offer(http)).status == 404


async def test_the_newer_socket_of_a_node_counts(http, host):
    first, _ = await enter(http, host)
    second, _ = await enter(http, host)
    assert (await first.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    assert first.close_code == 4000
    calling = asyncio.ensure_future(offer(http))
    frame = unpack(await second.receive_bytes(timeout=10))
    await second.send_bytes(pack({"id": frame["id"], "refused": True}))
    assert (await calling).status == 403
    await second.close()


async def test_two_nodes_with_one_key_are_told_and_one_that_comes_back_is_not(http, host, caplog):
    caplog.set_level(logging.WARNING, "kodo")
    gone, _ = await enter(http, host)
    first, _ = await enter(http, host)
    # Whoever is at the end of a connection that lives answers its end; on one that is lost nobody does.
    second, _ = await enter(http, host)
    assert (await first.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    async with asyncio.timeout(10):
        while not caplog.messages:  # noqa: ASYNC110 - another program
            await asyncio.sleep(0.01)
    third, _ = await enter(http, host)
    assert (await second.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    async with asyncio.timeout(10):
        while len(caplog.messages) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert all(text.startswith(f"two nodes have the key of {NODE.peer_id}") for text in caplog.messages)
    assert (await gone.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    assert len(caplog.messages) == 2
    await third.close()


@pytest.mark.parametrize("body", [b"", b"v=0 in the clear", pack({"sdp": "v=0"}), SEALED + b"\x00"])
async def test_what_is_not_sealed_reaches_nobody(http, host, body):
    socket, _ = await enter(http, host)
    response = await offer(http, body)
    assert (response.status, (await response.json(content_type=None))["reason"]) == (400, "malformed")
    calling = asyncio.ensure_future(offer(http))
    assert unpack(await socket.receive_bytes(timeout=10))["offer"] == SEALED
    calling.cancel()
    await socket.close()


async def test_too_much_too_often_and_the_wrong_door(http, host):
    assert (await offer(http, bytes(17000))).status == 413
    assert (await offer(http, **{"Content-Type": "text/plain"})).status == 415
    assert (await http.get("/rendezvous")).status == 426
    assert (await http.post("/rendezvous/nobody", data=SEALED, headers=MSGPACK)).status == 404
    assert (await offer(http, Origin="https://evil.example")).status == 403
    async with asyncio.timeout(20):
        while (response := await offer(http)).status != 429:
            assert response.status == 404
    assert int(response.headers["Retry-After"]) >= 1


async def test_a_registry_that_closes_says_so_to_who_waits(http, host, registry):
    socket, _ = await enter(http, host)
    closing = asyncio.ensure_future(registry.aclose())
    said = await socket.receive(timeout=10)
    await closing
    assert said.type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
