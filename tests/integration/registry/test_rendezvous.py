import asyncio
import logging

import aiohttp
import pytest

from kodo.registry.records.signed import pack, sign, unpack
from kodo.registry.rendezvous import Presence
from tests.support.records import identity, signed_record

MSGPACK = {"Content-Type": "application/msgpack"}
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


async def test_a_node_that_waits_is_told_so_and_one_that_left_is_not_counted(http, host):
    socket, said = await enter(http, host)
    assert unpack(said.data)["waiting"] is True
    await socket.close()


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


@pytest.mark.parametrize("frame", [b"", b"\xc0", pack({"id": 1, "refused": True}), "text", b"x" * 17000])
async def test_a_node_that_babbles_is_cut_off(http, host, frame):
    socket, _ = await enter(http, host)
    await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
    said = await socket.receive(timeout=10)
    assert said.type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code in (4001, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)


async def test_the_newer_socket_of_a_node_counts(http, host):
    first, _ = await enter(http, host)
    second, _ = await enter(http, host)
    assert (await first.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
    assert first.close_code == 4000
    assert not second.closed
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


async def test_the_wrong_door_is_told_so_and_one_that_was_closed_too(http, host):
    assert (await http.get("/rendezvous")).status == 426
    socket, _ = await enter(http, host)
    for body in (b"", pack({"v": 1, "enc": bytes(32), "ct": bytes(64)}), bytes(1 << 20)):
        response = await http.post(f"/rendezvous/{NODE.peer_id}", data=body, headers=MSGPACK)
        assert (response.status, (await response.json(content_type=None))["reason"]) == (410, "gone")
    assert not socket.closed
    await socket.close()


async def test_a_registry_that_closes_says_so_to_who_waits(http, host, registry):
    socket, _ = await enter(http, host)
    closing = asyncio.ensure_future(registry.aclose())
    said = await socket.receive(timeout=10)
    await closing
    assert said.type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
