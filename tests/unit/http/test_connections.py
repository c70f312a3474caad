"""Who is connected to an HTTP server, how many, and for how long without a word: virtual time, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from kodo.http.connections import HEAD_S, TAKE_S, Connection, Door
from kodo.p2p.core.hosts import THIS_MACHINE
from tests.support.virtual_time import run_virtual


def test_one_source_leaves_room_for_others_and_all_of_them_for_files() -> None:
    door = Door(120)
    mine = [door.enter("192.0.2.1") for _ in range(120)]
    assert 0 < sum(mine) <= 120 // 4
    inside = sum(mine) + sum(door.enter(f"198.51.100.{number}") for number in range(200))
    assert inside == 90
    door.leave("192.0.2.1")
    assert door.enter("203.0.113.1")
    assert not door.enter("203.0.113.2")


@pytest.mark.parametrize("source", [THIS_MACHINE, "192.0.2.1", "2001:db8:1:2::/64"])
def test_who_speaks_for_many_leaves_a_quarter_to_those_who_come_directly(source: str) -> None:
    door = Door(160, proxies=["192.0.2.1", "2001:db8:1:2::7"])
    assert sum(door.enter(source) for _ in range(120)) == 90
    assert sum(door.enter("198.51.100.1") for _ in range(120)) == 30


class Wire(asyncio.Transport):
    """What goes out, as far as it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.taking = True
        self.aborted = False
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self.unsent += 0 if self.taking else len(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


class Client:
    """One connection and its other side."""

    def __init__(self) -> None:
        self.ended = 0
        self.wire = Wire()
        server = web.Server(self._answer)
        loop = asyncio.get_running_loop()
        self.connection = Connection(server, loop=loop, left=self._left, access_log=None)
        self.connection.connection_made(self.wire)

    def _left(self) -> None:
        self.ended += 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.connection.begin()
        try:
            await request.read()
            if request.path == "/slow":
                await asyncio.sleep(10 * HEAD_S)
            return web.Response(body=b"x" * 1000)
        finally:
            self.connection.end()

    async def says(self, data: bytes, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        if not self.wire.aborted:
            self.connection.data_received(data)
        await asyncio.sleep(0.01)


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def play(script: Callable[[Client], Awaitable[None]]) -> Client:
    async def scene() -> Client:
        client = Client()
        try:
            await script(client)
        finally:
            client.connection.connection_lost(None)
            await asyncio.sleep(0)
        return client

    return run_virtual(scene())


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"GET / HT"],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n", *[b"X: y\r\n"] * 20],
        [REQUEST, b"GET /"],
        [REQUEST, REQUEST, b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 20],
    ],
    ids=["nothing", "no bytes", "half a line", "a line at a time", "the second half", "the third a line at a time"],
)
def test_half_a_head_is_not_waited_for(pieces: list[bytes]) -> None:
    async def script(client: Client) -> None:
        for piece in pieces:
            await client.says(piece, after=1.0)
        await asyncio.sleep(HEAD_S)
        assert client.wire.aborted

    assert play(script).ended == 1


def test_whoever_asks_in_time_may_wait_and_ask_again() -> None:
    async def script(client: Client) -> None:
        await client.says(REQUEST, after=HEAD_S - 1)
        await client.says(REQUEST, after=60.0)
        await client.says(REQUEST.replace(b"/ ", b"/slow "), after=60.0)
        await asyncio.sleep(15 * HEAD_S)
        assert client.wire.written.count(b"200 OK") == 3
        assert not client.wire.aborted

    play(script)


def test_an_answer_that_nobody_takes_is_not_kept() -> None:
    async def script(client: Client) -> None:
        client.wire.taking = False
        await client.says(REQUEST)
        await asyncio.sleep(2 * TAKE_S + 1)
        assert client.wire.aborted

    play(script)


def test_a_second_answer_may_be_longer_than_what_was_left_of_the_first() -> None:
    async def script(client: Client) -> None:
        client.wire.taking = False
        await client.says(REQUEST)
        await asyncio.sleep(TAKE_S)
        # All of the first is taken, then nothing of a second one that is as long, for less than the time it has.
        client.wire.unsent = 0
        await client.says(REQUEST, after=TAKE_S / 2)
        await asyncio.sleep(TAKE_S)
        assert not client.wire.aborted
        await asyncio.sleep(2 * TAKE_S)
        assert client.wire.aborted

    play(script)


def test_asking_again_and_again_does_not_keep_answers_that_nobody_takes() -> None:
    async def script(client: Client) -> None:
        client.wire.taking = False
        for _ in range(4):
            await client.says(REQUEST, after=TAKE_S / 2)
        await asyncio.sleep(1)
        assert client.wire.aborted

    play(script)


def test_an_answer_that_is_taken_slowly_is_sent() -> None:
    async def script(client: Client) -> None:
        client.wire.taking = False
        await client.says(REQUEST)
        while client.wire.unsent > 0:
            await asyncio.sleep(TAKE_S)
            client.wire.unsent -= 200
        await asyncio.sleep(0.1)
        assert not client.wire.aborted

    play(script)
