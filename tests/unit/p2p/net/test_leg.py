"""Where UDP does not get to the relay, connections do: for users, for nodes, and for as long as that is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import pytest

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.batches import pack_batch
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.relay import RelayBounds
from kodo.p2p.errors import CapacityError, UnreachableError
from kodo.p2p.net.calls import Call
from kodo.p2p.net.host import Host
from kodo.p2p.net.leg import (
    CHECK_COST,
    OWN_BYTES,
    QUEUED_BYTES,
    SEND_SECONDS,
    SHARED_BYTES,
    SHARED_PER_SOURCE_BYTES,
    Carrier,
    Leg,
    Room,
)
from kodo.p2p.net.relay import UNUSED_SECONDS, RelayServer
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Punch
from tests.support.air import NODE, USER, Address, Air, air_pair
from tests.support.peers import CLIENT
from tests.support.virtual_time import run_virtual

RELAY, RELAY_PORT = "203.0.113.1", 8360
TOKEN = "t" * 32
Messages = asyncio.Queue[bytes | None]


class Scene:
    """A node, a user and a relay; connections get to it, and UDP from those whom nothing blocks."""

    def __init__(self, server: RelayServer) -> None:
        self.server = server
        self.blocked: set[str] = set()
        """Who sends the relay no UDP."""
        self.opened = {NODE: 0, USER: 0}
        self.open: dict[str, list[tuple[Messages, Messages]]] = {NODE: [], USER: []}
        self.changed = asyncio.Event()

    def set_up(self, air: Air, node: Host, user: Host, direct: Multiaddr) -> None:
        self.node, self.user, self.direct = node, user, direct
        air.drop = self._drop
        self.server.open([RELAY], RELAY_PORT)
        self.server.core.admit(node.peer_id, TOKEN, asyncio.get_running_loop().time())

    def _drop(self, data: bytes, source: Address, to: Address) -> bool:
        ends = {source[0], to[0]}
        return ends == {NODE, USER} or bool(ends & self.blocked)

    def carrier(self, host: str) -> Carrier:
        async def carry(leg: Leg, tag: str | None) -> None:
            if tag is not None and not self.server.core.reaches(tag):
                raise UnreachableError("the node is not here")
            self.opened[host] += 1
            there: Messages = asyncio.Queue()
            back: Messages = asyncio.Queue()
            self.open[host].append((there, back))
            serving = asyncio.ensure_future(self.server.carry(host, back.put, there.get))
            serving.add_done_callback(lambda _: back.put_nowait(None))
            try:
                await leg.carry(there.put, back.get)
            finally:
                self.open[host].remove((there, back))
                there.put_nowait(None)
                await asyncio.wait([serving])

        return Carrier(RELAY, carry)

    def cut(self, host: str) -> None:
        """End somebody's connections."""
        for queues in self.open[host]:
            for queue in queues:
                queue.put_nowait(None)

    async def attach(self) -> Multiaddr:
        self.node.attach((RELAY, RELAY_PORT), TOKEN, self.changed.set, self.carrier(NODE))
        async with asyncio.timeout(20):
            await self.changed.wait()
        return self.node.relay_addresses()[0]


class Play(Protocol):
    """Plays a scene in virtual time."""

    def __call__(self, work: Callable[[Scene], Coroutine[Any, Any, None]], punch: Punch = "never", /) -> None: ...


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    async def whole(work: Callable[[Scene], Coroutine[Any, Any, None]], punch: Punch) -> None:
        scene = Scene(RelayServer())
        async with (
            asyncio.timeout(900),
            air_pair(monkeypatch, carriers=[scene.carrier(USER)], punch=punch) as (air, node, user, direct),
        ):
            # The relay's sockets are made up only from here on.
            scene.set_up(air, node, user, direct)
            try:
                await work(scene)
            finally:
                scene.server.close()

    return lambda work, punch="never": run_virtual(whole(work, punch))


async def pull(session: Session, n: int = 1, size: int = 0, every: float = 0.0) -> float:
    """Have the node send so many items; return the longest wait for one."""
    loop, longest, count = asyncio.get_running_loop(), 0.0, 0
    async with Call(session, "any", {"n": n, "size": size, "every": every}, timeout=None) as call:
        last = loop.time()
        async for _ in call:
            longest, last, count = max(longest, loop.time() - last), loop.time(), count + 1
    assert count == n
    return longest


@pytest.mark.parametrize("blocked", [{USER}, {NODE}, {USER, NODE}], ids=["the user's", "the node's", "both"])
def test_where_udp_is_blocked_a_node_is_reached_by_connections(play: Play, blocked: set[str]) -> None:
    async def scene(it: Scene) -> None:
        it.blocked = blocked
        session = await it.user.connect([await it.attach(), it.direct])
        await pull(session, 200, 5000)
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == ("relay", "relay")
        assert {host: count > 0 for host, count in it.opened.items()} == {
            host: host in blocked for host in (NODE, USER)
        }
        assert at_node.remote_address[0] == USER

    play(scene)


def test_a_second_session_does_not_wait_for_udp_again(play: Play) -> None:
    async def scene(it: Scene) -> None:
        loop, took = asyncio.get_running_loop(), []
        it.blocked = {USER}
        address = await it.attach()
        for _ in range(2):
            began = loop.time()
            session = await it.user.connect([address])
            took.append(loop.time() - began)
            await session.aclose()
        assert took[0] > 1 > 0.5 > took[1]

    play(scene)


def test_a_session_goes_on_when_udp_is_blocked_and_leaves_the_connection_when_it_passes_again(play: Play) -> None:
    async def scene(it: Scene) -> None:
        session = await it.user.connect([await it.attach()])
        for blocked in ({USER}, {USER, NODE}, {NODE}, set()):
            it.blocked = blocked
            assert await pull(session, 500, every=0.05) < 8, blocked
        assert it.open == {NODE: [], USER: []}
        assert len(it.node.sessions) == 1

    play(scene)


@pytest.mark.parametrize("whose", [USER, NODE])
def test_a_session_goes_on_when_a_connection_is_ended(play: Play, whose: str) -> None:
    async def scene(it: Scene) -> None:
        it.blocked = {USER, NODE}
        session = await it.user.connect([await it.attach()])

        async def cut() -> None:
            for _ in range(3):
                await asyncio.sleep(2)
                it.cut(whose)

        _, longest = await asyncio.gather(cut(), pull(session, 600, every=0.02))
        assert longest < 3
        assert it.opened[whose] > 3
        assert len(it.node.sessions) == 1

    play(scene)


def test_a_node_is_reached_by_a_connection_once_its_registry_relays_that_only_introduced_before(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.blocked = {NODE}
        it.node.attach((RELAY, RELAY_PORT), TOKEN, it.changed.set, None, False)
        await pull(await it.user.connect([await it.attach()]))
        assert it.opened[NODE] == 1

    play(scene, "early")


def test_who_does_not_need_it_opens_no_connection(play: Play) -> None:
    async def scene(it: Scene) -> None:
        session = await it.user.connect([await it.attach()])
        await pull(session, 300, every=0.1)
        assert it.opened == {NODE: 0, USER: 0}

    play(scene)


def test_a_node_that_is_not_there_is_said_not_to_be(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.blocked = {USER}
        address = await it.attach()
        other = address.with_peer(it.user.peer_id)
        with pytest.raises(UnreachableError):
            await it.user.connect([other], timeout=3)
        assert it.opened[USER] == 0

    play(scene)


# what a relay's connections are bounded by


def check_to(peer: Any) -> bytes:
    ufrag = f"{stun.UFRAG_PREFIXES[1]}{0:032x}/{relay_wire.tag_of(peer)}"
    return stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)


async def connection(it: Scene, host: str = USER) -> tuple[Leg, asyncio.Future[None], list[bytes]]:
    """Open a connection to the relay."""
    got: list[bytes] = []
    leg = Leg(got.append, lambda: None)
    task = asyncio.ensure_future(it.carrier(host).carry(leg, None))
    await asyncio.sleep(0.1)
    return leg, task, got


def test_a_connection_of_no_use_is_ended_and_one_with_a_channel_stays(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        leg, used, _ = await connection(it)
        other, unused, _ = await connection(it)
        leg.send([check_to(it.node.peer_id)])
        for _ in range(int(UNUSED_SECONDS)):
            other.send([check_to(it.user.peer_id), b"\x17" + bytes(50)])
            leg.send([check_to(it.node.peer_id)])
            await asyncio.sleep(2)
        assert (used.done(), unused.done()) == (False, True)
        assert it.server.core.channels == 1
        leg.close()
        await asyncio.sleep(1)
        assert (used.done(), it.server.core.channels) == (True, 0)

    play(scene)


def test_nobody_attaches_by_a_connection_with_what_he_overheard(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        tag = relay_wire.tag_of(it.node.peer_id)
        leg, _, got = await connection(it)
        leg.send([relay_wire.attach_request(tag, "w" * 32, 1, b"")])
        await asyncio.sleep(0.1)
        assert got == []
        leg.send([relay_wire.attach_request(tag, TOKEN, 1, b"")])  # of one who knows the token
        await asyncio.sleep(0.1)
        nonce = relay_wire.read_attach_answer(got.pop(), TOKEN).nonce
        overheard = relay_wire.attach_request(tag, TOKEN, 2, nonce)
        again, _, got_again = await connection(it)
        again.send([overheard])
        await asyncio.sleep(0.1)
        assert relay_wire.read_attach_answer(got_again.pop(), TOKEN).address is None
        leg.send([overheard])
        await asyncio.sleep(0.1)
        assert relay_wire.read_attach_answer(got.pop(), TOKEN).address == (USER, relay_wire.NO_UDP_PORT)

    play(scene)


def test_one_source_opens_so_many_connections(play: Play) -> None:
    async def scene(it: Scene) -> None:
        most = RelayBounds().channels_per_source
        opened = [await connection(it) for _ in range(most)]
        with pytest.raises(CapacityError, match=str(most)):
            await it.server.carry(USER, lambda message: asyncio.sleep(0), asyncio.Queue().get)
        other = await connection(it, NODE)
        assert not other[1].done()
        for leg, _, _ in opened:
            leg.close()
        await asyncio.sleep(1)
        assert not (await connection(it))[1].done()

    play(scene)


def test_a_flood_is_read_at_the_relays_rate() -> None:
    async def work() -> None:
        loop, rate, message = asyncio.get_running_loop(), 1_000_000, pack_batch([check_to(CLIENT.peer_id)])
        leg, count = Leg(lambda data: None, lambda: None), 0

        async def receive() -> bytes:
            nonlocal count
            count += 1
            return message

        began = loop.time()
        task = asyncio.ensure_future(leg.carry(lambda data: asyncio.sleep(0), receive, rate=lambda: rate))
        await asyncio.sleep(5)
        task.cancel()
        assert count * CHECK_COST < rate * (loop.time() - began + 1.5)

    run_virtual(work())


def test_what_a_slow_reader_does_not_take_is_dropped_and_then_he_is_left() -> None:
    async def work() -> None:
        loop, room = asyncio.get_running_loop(), Room()
        leg = Leg(lambda data: None, lambda: None, room=room)
        stuck: asyncio.Future[None] = loop.create_future()
        task = asyncio.ensure_future(leg.carry(lambda message: stuck, asyncio.Queue().get))
        await asyncio.sleep(0)
        for _ in range(1000):
            leg.send([bytes(1200)] * 10)
        assert QUEUED_BYTES - 1300 <= OWN_BYTES + SHARED_BYTES - room.left <= QUEUED_BYTES
        assert leg.dropped > 10_000_000
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 2 * SEND_SECONDS)
        assert (leg.is_open, room.left) == (False, SHARED_BYTES)

    run_virtual(work())


@pytest.mark.parametrize("size", [44, 1200])
def test_whoever_takes_nothing_the_others_keep_room(size: int) -> None:
    async def work() -> None:
        loop, room = asyncio.get_running_loop(), Room()
        stuck: asyncio.Future[None] = loop.create_future()
        tasks = []

        async def filled(source: str) -> int:
            """Fill the queue of one more connection; return how many bytes are in it."""
            leg = Leg(lambda data: None, lambda: None, room=room, source=source)
            tasks.append(asyncio.ensure_future(leg.carry(lambda message: stuck, asyncio.Queue().get)))
            await asyncio.sleep(0)
            datagrams = [bytes(size)] * (QUEUED_BYTES // size + 1)
            leg.send(datagrams)
            return len(datagrams) * size - leg.dropped

        most = await filled("first")
        for _ in range(20):
            await filled("greedy")
        assert room.left > SHARED_BYTES - SHARED_PER_SOURCE_BYTES - QUEUED_BYTES
        assert await filled("other") == most
        number = 0
        while room.left > 2 * QUEUED_BYTES:
            await filled(f"one of many {number // 8}")
            number += 1
        await filled("one of many")
        for _ in range(3):
            await filled("last")
        assert room.left < 2 * QUEUED_BYTES
        assert await filled("late") > OWN_BYTES * size // (size + 64) - size
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert room.left == SHARED_BYTES

    run_virtual(work())


def test_who_sends_more_work_in_one_message_than_the_rate_has_in_two_seconds_is_left_before_it_is_done() -> None:
    async def work() -> None:
        bounds = RelayBounds()
        for rate, ends in ((bounds.rate_per_channel, True), (bounds.rate_per_node, False)):
            got: list[bytes] = []
            leg = Leg(got.append, lambda: None)
            messages: asyncio.Queue[bytes | None] = asyncio.Queue()
            messages.put_nowait(pack_batch([b"\x17"] * 21_000))
            messages.put_nowait(None)
            carried = leg.carry(lambda data: asyncio.sleep(0), messages.get, rate=lambda rate=rate: rate)  # type: ignore[misc]
            if ends:
                with pytest.raises(ValueError, match="too much work"):
                    await carried
            else:
                await carried
            assert len(got) == (0 if ends else 21_000)

    run_virtual(work())


@pytest.mark.parametrize("message", [b"", b"\0\0", b"\0\2a"])
def test_who_sends_something_else_than_batches_is_left(message: bytes) -> None:
    async def work() -> None:
        leg = Leg(lambda data: None, lambda: None)
        messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        messages.put_nowait(message)
        with pytest.raises(ValueError, match="batch"):
            await leg.carry(lambda data: asyncio.sleep(0), messages.get)

    run_virtual(work())
