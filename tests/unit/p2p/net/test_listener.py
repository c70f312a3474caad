"""A link follows its peer, and nobody else: NATs that forget, users who move, and those who would use it for harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kodo.p2p.core import stun
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.sctp import wire
from kodo.p2p.net.calls import Call
from kodo.p2p.net.endpoint import Source
from kodo.p2p.net.host import Host
from kodo.p2p.net.listener import AMPLIFICATION, FOLLOW_TRIES, WebRtcListener
from kodo.p2p.net.session import Session
from tests.support.air import NODE, PORT, USER, Address, Air, air_pair
from tests.support.virtual_time import run_virtual

OTHER, ATTACKER, VICTIM = "198.51.100.2", ("203.0.113.6", 6666), ("203.0.113.9", 53)
TO_NODE = (NODE, PORT)


class Scene:
    """A node and a user with a session, whose packets may be watched and forged."""

    def __init__(self, air: Air, node: Host, user: Host, address: Multiaddr) -> None:
        self.air, self.node, self.user, self.address = air, node, user, address
        self.records: list[bytes] = []
        self.checks: list[bytes] = []
        self.session: Session

    async def begin(self) -> None:
        self.air.drop = self._watch
        self.session = await self.user.connect([self.address])
        await pull(self.session)
        [self.at_node] = self.node.sessions

    def _watch(self, data: bytes, source: Address, to: Address) -> bool:
        if to == TO_NODE and source[0] == self.air.home:
            (self.checks if stun.is_stun(data) else self.records).append(data)
        return False

    @property
    def username(self) -> str:
        return stun.read_binding_request(self.checks[0]).server_ufrag

    def check_from(
        self, source: Address, username: str | None = None, own: str | None = None, *, controlling: bool = True
    ) -> int:
        """Have the node hear a check from anywhere; return its bytes."""
        ufrag = username or self.username
        check = stun.binding_request(
            ufrag, own or ufrag, b"t" * 12, tie_breaker=1, priority=1, controlling=controlling
        )
        self.air.carry(check, source, TO_NODE)
        return len(check)

    def record_from(self, source: Address, record: bytes) -> int:
        self.air.carry(record, source, TO_NODE)
        return len(record)

    def new_record(self) -> bytes:
        """Make a record of the user's that is newer than all before and that nobody has been sent."""
        link: Any = self.session._link
        beat = wire.encode_chunk(wire.HEARTBEAT, wire.encode_parameter(1, b"beat"))
        record: bytes = link._dtls.encrypt(link._sctp._codec_out.encode(beat))
        return record

    @property
    def listener(self) -> WebRtcListener:
        [listener] = self.node._listeners
        assert isinstance(listener, WebRtcListener)
        return listener


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]:
    """Play a scene in virtual time."""

    async def whole(work: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.timeout(600), air_pair(monkeypatch) as parts:
            scene = Scene(*parts)
            await scene.begin()
            await work(scene)

    return lambda work: run_virtual(whole(work))


Play = Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]


async def pull(session: Session, n: int = 1, size: int = 0) -> None:
    """Have the node send so many items."""
    async with Call(session, "any", {"n": n, "size": size}, timeout=None) as call:
        assert len([item async for item in call]) == n


async def longest_gap(session: Session, at: dict[int, Callable[[], None]], n: int = 300) -> float:
    """Follow what comes every 20 ms, do things at some of the items, and return the longest wait for one."""
    loop, longest = asyncio.get_running_loop(), 0.0
    async with Call(session, "any", {"n": n, "every": 0.02}) as call:
        last, count = loop.time(), 0
        async for _ in call:
            longest, last, count = max(longest, loop.time() - last), loop.time(), count + 1
            if count in at:
                at[count]()
    assert count == n
    return longest


def test_a_stream_goes_on_when_a_nat_forgets_the_user(play: Play) -> None:
    async def scene(it: Scene) -> None:
        # The user had an open way; from now on a NAT is on it, which is one more change.
        it.air.nat = True
        assert await longest_gap(it.session, {50: it.air.rebind, 150: it.air.rebind}) < 0.5
        assert it.at_node.remote_address != (USER, 0)
        assert [it.at_node] == it.node.sessions

    play(scene)


def test_a_stream_goes_on_soon_even_if_the_first_check_after_a_change_is_lost(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.air.nat = True
        lost: list[bytes] = []

        def rebind() -> None:
            it.air.rebind()
            it.air.drop = lambda data, source, to: bool(
                stun.is_binding_request(data) and not lost and not lost.append(data)
            )

        assert await longest_gap(it.session, {50: rebind}) < 0.45
        assert lost

    play(scene)


def test_a_stream_goes_on_when_the_user_moves_to_another_network(play: Play) -> None:
    async def scene(it: Scene) -> None:
        assert await longest_gap(it.session, {50: lambda: setattr(it.air, "home", OTHER)}) < 0.5
        assert it.at_node.remote_address[0] == OTHER
        assert [it.at_node] == it.node.sessions

    play(scene)


def test_an_upload_goes_on_when_the_user_moves(play: Play) -> None:
    async def scene(it: Scene) -> None:
        async def upload() -> Any:
            for number in range(200):
                if number == 50:
                    it.air.home = OTHER
                yield bytes(1000)
                await asyncio.sleep(0.02)

        async with Call(it.session, "any", {"n": 0, "reads": True}, upload=upload()) as call:
            await call.done()
        assert await longest_gap(it.session, {}, 20) < 0.5
        assert it.at_node.remote_address[0] == OTHER

    play(scene)


def test_an_idle_user_who_has_moved_is_answered_at_once(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await asyncio.sleep(4)
        it.air.home = OTHER
        began = asyncio.get_running_loop().time()
        await pull(it.session)
        assert asyncio.get_running_loop().time() - began < 0.5
        await asyncio.sleep(60)
        it.air.home = USER
        await asyncio.sleep(60)
        assert it.at_node.remote_address[0] == USER
        assert [it.at_node] == it.node.sessions

    play(scene)


def test_after_a_move_the_node_sends_little_until_the_user_has_echoed_something(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.air.received.clear()
        pulling = asyncio.create_task(pull(it.session, 400, 1000))
        await asyncio.sleep(0.03)
        record = it.new_record()
        it.air.drop = lambda data, source, to: source[0] == USER
        sent = it.check_from(VICTIM) + it.record_from(VICTIM, record)
        await asyncio.sleep(5)
        assert it.at_node.remote_address == VICTIM
        assert 0 < it.air.received[VICTIM] <= AMPLIFICATION * sent
        pulling.cancel()

    play(scene)


def test_a_peer_cannot_have_a_victim_flooded_however_often_it_writes_its_address(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.air.received.clear()
        pulling = asyncio.create_task(pull(it.session, 2000, 1000))
        sent = it.check_from(VICTIM)
        for _ in range(20):
            await asyncio.sleep(0.15)  # meanwhile its own records bring the link back, and acknowledge
            sent += it.check_from(VICTIM) + it.record_from(VICTIM, it.new_record())
        await asyncio.sleep(1)
        assert 0 < it.air.received[VICTIM] <= AMPLIFICATION * sent
        await pulling

    play(scene)


def test_an_address_that_a_peer_has_left_has_to_be_proved_again(play: Play) -> None:
    async def scene(it: Scene) -> None:
        for home in (OTHER, USER):
            it.air.home = home
            await pull(it.session)
            await asyncio.sleep(0.5)
        left = (OTHER, it.at_node.remote_address[1])
        it.air.received.clear()
        pulling = asyncio.create_task(pull(it.session, 400, 1000))
        await asyncio.sleep(0.03)
        it.air.drop = lambda data, source, to: source[0] == USER
        sent = it.check_from(left) + it.record_from(left, it.new_record())
        await asyncio.sleep(5)
        assert it.at_node.remote_address == left
        assert 0 < it.air.received[left] <= AMPLIFICATION * sent
        pulling.cancel()

    play(scene)


def test_replayed_records_move_nothing(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.check_from(ATTACKER)
        await asyncio.sleep(0.1)
        answered = it.air.received[ATTACKER]
        encrypted = [record for record in it.records if not stun.is_dtls_plain(record)]
        assert len(encrypted) > 5
        for record in encrypted:
            it.record_from(ATTACKER, record)
        await asyncio.sleep(0.1)
        assert it.at_node.remote_address[0] == USER
        assert it.air.received[ATTACKER] == answered
        assert await longest_gap(it.session, {}, 50) < 0.2

    play(scene)


def test_forged_records_move_nothing_and_harm_nothing(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.check_from(ATTACKER)
        await asyncio.sleep(0.1)
        answered = it.air.received[ATTACKER]
        record = it.new_record()
        for forged in (
            record[:5] + b"\xff" * 6 + record[11:],  # the number is part of what is authenticated
            record[:-1] + bytes([record[-1] ^ 1]),
            record[:20],
            record[:13] + bytes(len(record) - 13),
            b"\x17\xfe\xfd\0\1" + b"\xff" * 6 + b"\0\0" + record,  # a number of its own before another's record
            b"\x15\xfe\xfd\0\1" + b"\xff" * 6 + b"\0\x02\x02\x28",
        ):
            it.record_from(ATTACKER, forged)
        await asyncio.sleep(0.1)
        assert it.at_node.remote_address[0] == USER
        assert it.air.received[ATTACKER] == answered
        assert await longest_gap(it.session, {10: lambda: setattr(it.air, "home", OTHER)}, 100) < 0.5

    play(scene)


def test_records_in_a_peers_name_that_are_not_its_own_keep_no_dead_session(play: Play) -> None:
    async def scene(it: Scene) -> None:
        user, old = it.at_node.remote_address, it.records[-1]
        number = b"\x17\xfe\xfd\0\1\0\0\xff\xff\xff\xff"
        plain = b"\x16\xfe\xfd" + bytes(8)
        forged = [old, number + b"\0\x28" + bytes(40), number, b"\x17", plain + b"\0\1\0", plain]
        it.air.drop = lambda data, source, to: data not in forged
        for second in range(30):
            await asyncio.sleep(1)
            for data in forged:
                it.air.carry(data, user, TO_NODE)
                it.air.carry(data, TO_NODE, user)
            if second == 5:
                assert not it.session.closed
        assert it.session.closed
        assert it.at_node not in it.node.sessions

    play(scene)


def test_a_record_from_an_address_that_has_passed_no_check_is_not_taken(play: Play) -> None:
    async def scene(it: Scene) -> None:
        record = it.new_record()
        it.record_from(ATTACKER, record)
        await asyncio.sleep(0.1)
        assert it.at_node.remote_address[0] == USER
        assert not it.air.received[ATTACKER]

    play(scene)


def test_a_check_with_another_username_moves_nothing(play: Play) -> None:
    async def scene(it: Scene) -> None:
        record = it.new_record()
        it.check_from(ATTACKER, stun.UFRAG_PREFIXES[1] + "0" * 32)
        await asyncio.sleep(0.1)
        answered = it.air.received[ATTACKER]
        it.record_from(ATTACKER, record)
        await asyncio.sleep(0.1)
        assert it.at_node.remote_address[0] == USER
        assert it.air.received[ATTACKER] == answered

    play(scene)


def test_who_forwards_the_newest_record_gets_little_and_loses_the_link_to_the_next_one(play: Play) -> None:
    async def scene(it: Scene) -> None:
        record = it.new_record()
        sent = it.check_from(ATTACKER) + it.record_from(ATTACKER, record)
        await asyncio.sleep(0.03)
        assert it.at_node.remote_address == ATTACKER
        assert await longest_gap(it.session, {}, 100) < 0.5
        assert it.at_node.remote_address[0] == USER
        assert it.air.received[ATTACKER] <= AMPLIFICATION * sent

    play(scene)


def test_an_older_record_that_comes_late_by_another_way_is_taken_and_moves_nothing(play: Play) -> None:
    async def scene(it: Scene) -> None:
        late = it.new_record()
        await pull(it.session)
        it.check_from((OTHER, 1))
        it.record_from((OTHER, 1), late)
        await asyncio.sleep(0.1)
        assert it.at_node.remote_address[0] == USER

    play(scene)


def test_handshakes_with_a_users_name_neither_end_nor_hold_its_link(play: Play) -> None:
    async def scene(it: Scene) -> None:
        for port in range(1, FOLLOW_TRIES):
            source = (ATTACKER[0], port)
            it.check_from(source)
            await asyncio.sleep(0.05)
            it.record_from(source, it.records[0])  # the user's own first flight
        await asyncio.sleep(0.1)
        assert len(it.listener._live[f"{it.username}:{it.username}"]) == FOLLOW_TRIES
        assert await longest_gap(it.session, {10: lambda: setattr(it.air, "home", OTHER)}, 100) < 0.5
        assert it.at_node.remote_address[0] == OTHER

    play(scene)


def test_sources_that_are_only_checked_are_forgotten_and_links_are_not(play: Play) -> None:
    async def scene(it: Scene) -> None:
        most = it.listener._limits.usernames
        for number in range(most + 100):
            source = Source(f"203.0.{number >> 8 & 255}.{number & 255}", 7)
            ufrag = stun.UFRAG_PREFIXES[1] + f"{number:032x}"
            it.listener._datagram_received(
                stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1), source
            )
        assert len(it.listener._sources) <= most + 1
        assert await longest_gap(it.session, {}, 20) < 0.2

    play(scene)


@pytest.mark.parametrize("prefix", stun.UFRAG_PREFIXES)
@pytest.mark.parametrize("client", ["the same", "a name", "a listener's", "a listener's with a tag"])
@pytest.mark.parametrize("tag", ["", "/" + 20 * "t"])
@pytest.mark.parametrize("controlling", [True, False])
def test_a_listener_answers_diallers_and_no_relay(
    play: Play, prefix: str, client: str, tag: str, controlling: bool
) -> None:
    # A relay asks in the same way whether there is a dialler, whose address anybody may have written on a check.
    ufrag = f"{prefix}{32 * 'a'}{tag}"
    tagged = f"{stun.UFRAG_PREFIXES[1]}{32 * 'b'}/{20 * 'u'}"
    own = {"the same": ufrag, "a name": "name", "a listener's": f"{prefix}abcd"}.get(client, tagged)

    async def scene(it: Scene) -> None:
        it.check_from(VICTIM, ufrag, own, controlling=controlling)
        await asyncio.sleep(1)
        assert (it.air.received[VICTIM] > 0) == (controlling or not (tag or own == tagged))

    play(scene)


def test_when_a_link_ends_nothing_is_left_of_it_wherever_it_went(play: Play) -> None:
    async def scene(it: Scene) -> None:
        for home in (OTHER, USER, OTHER):
            it.air.home = home
            await pull(it.session)
            await asyncio.sleep(0.5)
        await it.session.aclose()
        await asyncio.sleep(0.1)
        listener = it.listener
        assert not listener._live
        assert not listener._ways
        assert not listener._links
        assert all(known.link is None for known in listener._sources.values())

    play(scene)
