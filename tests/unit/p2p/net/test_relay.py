"""Sessions through a relay: whoever cannot be reached otherwise is, and whoever can moves on to a better way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.callframe import FrameReader
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.relay import AMPLIFICATION, RelayBounds
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net.attachment import EVERY_SECONDS, Attachment
from kodo.p2p.net.calls import Call
from kodo.p2p.net.dialler import ADDRESSES_TOLD
from kodo.p2p.net.endpoint import Source
from kodo.p2p.net.host import Host
from kodo.p2p.net.openings import MOST_FAR
from kodo.p2p.net.path import PATH
from kodo.p2p.net.relay import RelayServer
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Punch
from tests.support.air import NODE, PORT, Address, Air, air_pair
from tests.support.peers import CLIENT
from tests.support.virtual_time import run_virtual

RELAY, RELAY_PORT = "203.0.113.1", 8360
AT_RELAY = (RELAY, RELAY_PORT)
DIRECT = "lan"
"""What addresses for documentation count as."""
ELSEWHERE, VICTIM = "198.51.100.2", ("203.0.113.9", 53)


class Scene:
    """A node that only a relay reaches, and a user."""

    def __init__(self, air: Air, node: Host, user: Host, address: Multiaddr) -> None:
        self.air, self.node, self.user, self.direct = air, node, user, address
        self.server = RelayServer()
        self.changes = 0
        self.changed = asyncio.Event()
        self.blocks = True
        self.lets_in = False
        """Whether the node's NAT lets those in to whom it was opened."""
        self._node_to_relay: list[bytes] = []
        air.drop = self._drop

    def _drop(self, data: bytes, source: Address, to: Address) -> bool:
        if not self.blocks or NODE not in (source[0], to[0]) or RELAY in (source[0], to[0]):
            return False
        there = to if source[0] == NODE else source
        return not self.lets_in or there not in self.air.opened

    async def attach(self, bounds: RelayBounds | None = None) -> Multiaddr:
        """Start the relay and attach the node; return the address to dial."""
        self.server = RelayServer(bounds)
        self.server.open([RELAY], RELAY_PORT)
        self.admit()
        async with asyncio.timeout(10):
            await self.changed.wait()
        [address] = self.node.relay_addresses()
        return address

    def admit(self) -> None:
        self.token = "t" + str(self.changes).zfill(31)
        self.server.core.admit(self.node.peer_id, self.token, asyncio.get_running_loop().time())
        self.node.attach(AT_RELAY, self.token, self._changed, None, self.server.carries)

    def _changed(self) -> None:
        self.changes += 1
        self.changed.set()


class Play:
    """Plays scenes in virtual time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(
        self,
        work: Callable[[Scene], Coroutine[Any, Any, None]],
        punch: Punch = "never",
        admits: Callable[[str | None], bool] = lambda host: True,
    ) -> None:
        run_virtual(self._whole(work, punch, admits))

    async def _whole(
        self, work: Callable[[Scene], Coroutine[Any, Any, None]], punch: Punch, admits: Callable[[str | None], bool]
    ) -> None:
        async with asyncio.timeout(600), air_pair(self._patch, punch=punch, admits=admits) as parts:
            scene = Scene(*parts)
            try:
                await work(scene)
            finally:
                scene.server.close()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return Play(monkeypatch)


async def pull(session: Session, n: int = 1, size: int = 0, every: float = 0.0) -> float:
    """Have the node send so many items; return the longest wait for one."""
    loop, longest, count = asyncio.get_running_loop(), 0.0, 0
    async with Call(session, "any", {"n": n, "size": size, "every": every}, timeout=None) as call:
        last = loop.time()
        async for _ in call:
            longest, last, count = max(longest, loop.time() - last), loop.time(), count + 1
    assert count == n
    return longest


def test_a_node_that_nothing_else_reaches_is_reached_through_the_relay(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        with pytest.raises(UnreachableError):
            await it.user.connect([it.direct], timeout=2)
        session = await it.user.connect([address, it.direct])
        await pull(session, 200, 5000)
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == ("relay", "relay")
        # The node sees the user, not the relay: bounds are by who comes.
        assert at_node.remote_address[0] == it.air.home

    play(scene)


def test_a_session_moves_to_the_direct_way_when_there_is_one(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        session = await it.user.connect([address, it.direct])
        assert session.route == "relay"
        it.blocks = False
        await pull(session, 1200, every=0.02)
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == (DIRECT, DIRECT)
        # And back, when it has gone: nothing is lost.
        it.blocks = True
        assert await pull(session, 300, every=0.02) < 2
        assert (session.route, at_node.route) == ("relay", "relay")
        assert [at_node] == it.node.sessions

    play(scene)


def test_a_relay_that_is_mute_costs_nothing_where_another_way_exists(play: Play) -> None:
    async def scene(it: Scene) -> None:
        loop, took = asyncio.get_running_loop(), []
        relayed = await it.attach()
        it.blocks = False
        for addresses in ([it.direct], [relayed, it.direct]):
            it.air.blocked = {RELAY} if len(addresses) > 1 else set()
            began = loop.time()
            session = await it.user.connect(addresses)
            took.append(loop.time() - began)
            assert session.route == DIRECT
            await session.aclose()
        assert took[1] == pytest.approx(took[0], abs=0.001)

    play(scene)


def test_a_session_goes_on_when_the_relay_is_started_anew(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        session = await it.user.connect([address])

        async def restart() -> None:
            await asyncio.sleep(2)
            it.server.close()
            it.server = RelayServer()
            it.server.open([RELAY], RELAY_PORT)
            it.admit()

        _, longest = await asyncio.gather(restart(), pull(session, 300, every=0.02))
        assert longest < 2
        assert len(it.node.sessions) == 1

    play(scene)


@pytest.mark.parametrize("how", ["rebind", "move"])
def test_a_relayed_session_goes_on_when_the_user_moves(play: Play, how: str) -> None:
    async def scene(it: Scene) -> None:
        it.air.nat = True
        session = await it.user.connect([await it.attach()])

        async def move() -> None:
            await asyncio.sleep(2)
            if how == "move":
                it.air.home = ELSEWHERE
            it.air.rebind()

        _, longest = await asyncio.gather(move(), pull(session, 300, every=0.02))
        assert longest < 1
        assert len(it.node.sessions) == 1

    play(scene)


def test_the_node_keeps_attached_and_says_when_the_relay_has_gone(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        await asyncio.sleep(10 * EVERY_SECONDS)
        assert it.server.core.attached == 1
        assert it.changes == 1
        it.air.blocked = {RELAY}
        await asyncio.sleep(3 * EVERY_SECONDS)
        assert it.node.relay_addresses() == []
        it.air.blocked = set()
        await asyncio.sleep(EVERY_SECONDS)
        assert len(it.node.relay_addresses()) == 1
        assert it.changes == 3

    play(scene)


def test_a_relay_with_a_new_nonce_in_each_answer_is_asked_at_most_twice_as_often_as_one_that_is_mute() -> None:
    async def work() -> None:
        token, requests = "t" * 32, 0

        def answer(data: bytes, relay: Source) -> None:
            nonlocal requests
            requests += 1
            reply = relay_wire.unattached_answer(data[8:20], str(requests).encode(), token)
            if requests < 100:
                asyncio.get_running_loop().call_soon(lambda: attachment.answered(reply))

        attachment = Attachment(AT_RELAY, relay_wire.tag_of(CLIENT.peer_id), token, answer, lambda: None)
        await asyncio.sleep(60)
        attachment.close()
        assert 20 < requests < 40

    run_virtual(work())


def test_a_node_that_is_let_go_is_reached_no_longer(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        it.node.detach(AT_RELAY)
        assert it.node.relay_addresses() == []
        it.server.core.dismiss(it.node.peer_id, it.token, asyncio.get_running_loop().time())
        await asyncio.sleep(120)
        assert it.server.core.attached == 0
        with pytest.raises(UnreachableError):
            await it.user.connect([address], timeout=2)

    play(scene)


def test_nothing_is_relayed_for_another_tag(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        with pytest.raises(UnreachableError):
            await it.user.connect([address.with_peer(CLIENT.peer_id)], timeout=2)

    play(scene)


def test_whose_address_somebody_else_has_written_on_a_check_is_sent_little(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        sent = 0
        for number in range(20):
            ufrag = f"{stun.UFRAG_PREFIXES[1]}{number:032x}/{relay_wire.tag_of(it.node.peer_id)}"
            check = stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)
            it.air.carry(check, VICTIM, AT_RELAY)
            sent += len(check)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert 0 < it.air.received[VICTIM] <= AMPLIFICATION * sent

    play(scene)


def test_frames_of_others_than_the_relay_mean_nothing_to_a_node(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach()
        session = await it.user.connect([address])
        check = stun.binding_request("x" * 30, "x" * 30, b"t" * 12, tie_breaker=1, priority=1)
        forged = [
            relay_wire.frame_of_check(0x4001, VICTIM, check, "another token"),
            relay_wire.frame_of_check(0x4777, VICTIM, check, "another token"),
            *relay_wire.frame(0x4777, [b"\x16" + bytes(100)]),
            *relay_wire.frame(0x4001, [relay_wire.frame(0x4001, [b"\x16" * 100])[0]]),
            b"\x40",
            b"\x40\x01\xff\xff",
        ]
        for source in (AT_RELAY, VICTIM):
            for data in forged:
                it.air.carry(data, source, (NODE, PORT))
        await asyncio.sleep(1)
        assert it.air.received[VICTIM] == 0
        await pull(session, 10)

    play(scene)


CLAIMED = (
    "203.0.113.77", "10.9.9.9", "192.168.0.2", NODE, RELAY, "100.64.0.9", "fc00::9", "2001:db8::9",
    "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.9.9", "fe80::9",
)  # fmt: skip
NOWHERE_ELSE = CLAIMED[8:]
"""What no relay on another machine can see: loopback and link-local addresses."""


@pytest.mark.parametrize("opened", [False, True])
def test_what_a_relay_claims_of_a_dialer_lets_nobody_in_who_would_not_be_anyway(play: Play, opened: bool) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        answered = set()
        ufrag = f"{stun.UFRAG_PREFIXES[1]}{'0' * 32}/{relay_wire.tag_of(it.node.peer_id)}"
        for host in CLAIMED:
            check = stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)
            before = it.air.received[AT_RELAY]
            it.air.carry(relay_wire.frame_of_check(0x4001, (host, 40_000), check, it.token), AT_RELAY, (NODE, PORT))
            await asyncio.sleep(0.1)
            if it.air.received[AT_RELAY] > before:
                answered.add(host)
        assert answered == (set(CLAIMED) - set(NOWHERE_ELSE) if opened else set())

    play(scene, admits=lambda host: opened or host is not None)


def test_a_peer_id_has_one_tag_which_ends_a_ufrag() -> None:
    tag = relay_wire.tag_of(PeerId(bytes(32)))
    assert len(tag) == relay_wire.TAG_CHARACTERS
    assert relay_wire.tag_in(f"{stun.UFRAG_PREFIXES[1]}{'0' * 32}/{tag}") == tag


# through the node's NAT


def test_a_session_leaves_the_relay_once_the_nat_before_the_node_is_open(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.lets_in = True
        session = await it.user.connect([await it.attach()])
        assert session.route == "relay"
        assert await pull(session, 100, every=0.02) < 0.3
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == ("punched", "punched")
        assert session.remote_address == (NODE, PORT)
        # Another NAT forgets it: the relay is there still.
        it.lets_in = False
        assert await pull(session, 200, every=0.02) < 2
        assert (session.route, at_node.route) == ("relay", "relay")

    play(scene, "early")


async def ask_path(session: Session) -> dict[str, Any]:
    """Ask the node which way packets take, as a page does."""
    stream = await session.open_stream(PATH)
    frames, told = FrameReader(), []
    while data := await stream.read():
        told += frames.feed(data)
    await stream.aclose()
    [path] = told
    return dict(path)


@pytest.mark.parametrize(("punch", "admits"), [("never", True), ("after-login", False), ("after-login", True)])
def test_a_page_is_told_where_the_node_is_if_it_may_know_and_let_in_each_time_it_asks(
    play: Play, punch: Punch, admits: bool
) -> None:
    async def scene(it: Scene) -> None:
        session = await it.user.connect([await it.attach()])
        [at_node] = it.node.sessions
        at_node.admitted = admits
        tells = admits and punch == "after-login"
        for _ in range(2):
            it.air.opened.clear()
            told = await ask_path(session)
            assert told == {
                "route": "relay",
                "relay": [*AT_RELAY],
                **({"own": [NODE, PORT]} if tells else {}),
            }
            assert bool(it.air.opened) == tells

    play(scene, punch)


def test_a_page_is_told_that_it_has_left_the_relay(play: Play) -> None:
    async def scene(it: Scene) -> None:
        session = await it.user.connect([await it.attach(), it.direct])
        assert (await ask_path(session))["route"] == "relay"
        it.blocks = False
        await pull(session, 600, every=0.02)
        assert await ask_path(session) == {"route": DIRECT}

    play(scene)


@pytest.mark.parametrize(("punch", "admits"), [("never", True), ("after-login", False), ("after-login", True)])
def test_a_node_tells_where_it_is_to_whom_it_may(play: Play, punch: Punch, admits: bool) -> None:
    async def scene(it: Scene) -> None:
        it.lets_in = True
        session = await it.user.connect([await it.attach()])
        [at_node] = it.node.sessions
        at_node.admitted = admits
        await pull(session, 300, every=0.02)
        tells = admits and punch == "after-login"
        assert session.route == ("punched" if tells else "relay")
        assert bool(it.air.opened) == tells

    play(scene, punch)


def test_a_node_whose_nat_has_another_port_for_each_destination_is_met_at_that_port(play: Play) -> None:
    other = (NODE, 50_000)

    async def scene(it: Scene) -> None:
        # What the node sends to the user goes from another port than what it sends to the relay.
        send = it.air.carry

        def carry(data: bytes, source: Address, to: Address) -> None:
            send(data, other if source == (NODE, PORT) and to[0] != RELAY else source, to)

        it.air.carry = carry  # type: ignore[method-assign]
        it.air.drop = lambda data, source, to: to == (NODE, PORT) and source[0] != RELAY
        it.air.there[other] = it.air.there[NODE, PORT]
        session = await it.user.connect([await it.attach()])
        assert await pull(session, 150, every=0.02) < 0.3
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == ("punched", "punched")
        assert session.remote_address == other

    play(scene, "early")


def test_a_relay_that_lies_has_a_node_send_few_packets_to_where_it_says_a_dialler_is(play: Play) -> None:
    async def scene(it: Scene) -> None:
        checks: list[bytes] = []
        came: list[bytes] = []

        def drop(data: bytes, source: Address, to: Address) -> bool:
            if to == AT_RELAY and stun.is_binding_request(data) and source[0] == it.air.home:
                checks.append(data)
            if source == (NODE, PORT) and to[0] == it.air.home:
                came.append(data)
            return it._drop(data, source, to)

        it.air.drop = drop
        session = await it.user.connect([await it.attach()])
        [user] = [each for each in it.air.there.values() if not each.host]
        for _ in range(600):
            it.air.carry(checks[-1], it.air.seen(user), AT_RELAY)
            await asyncio.sleep(0.02)
        assert session.route == "relay"
        # By these a dialler learns the port that a node's NAT has for it; then they end, however often it is said.
        assert len(came) == MOST_FAR
        assert all(stun.is_binding_request(each) and len(each) <= len(checks[-1]) for each in came)

    play(scene, "early")


@pytest.mark.parametrize("how", ["a dialler's own", "not the session's", "where nobody may be sent to"])
def test_a_check_from_elsewhere_leads_a_dialler_nowhere_unless_it_is_its_peers(play: Play, how: str) -> None:
    async def scene(it: Scene) -> None:
        checks: list[bytes] = []
        it.air.drop = lambda data, source, to: bool(
            it._drop(data, source, to) or (to == AT_RELAY and stun.is_binding_request(data) and checks.append(data))
        )
        session = await it.user.connect([await it.attach()])
        ufrag = stun.read_binding_request(checks[-1]).server_ufrag
        victim = ("127.0.0.1", 40_000) if how == "where nobody may be sent to" else ("203.0.113.9", 40_000)
        if how == "not the session's":
            ufrag = stun.UFRAG_PREFIXES[1] + "0" * 32
        check = stun.binding_request(
            ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1, controlling=how == "a dialler's own"
        )
        [user] = [each for each in it.air.there.values() if not each.host]
        for _ in range(20):
            it.air.carry(check, victim, it.air.seen(user))
        await pull(session, 50, every=0.02)
        assert it.air.received[victim] == 0
        assert session.route == "relay"

    play(scene)


def test_forged_checks_lead_a_dialler_to_few_addresses(play: Play) -> None:
    async def scene(it: Scene) -> None:
        checks: list[bytes] = []
        it.air.drop = lambda data, source, to: bool(
            it._drop(data, source, to) or (to == AT_RELAY and stun.is_binding_request(data) and checks.append(data))
        )
        session = await it.user.connect([await it.attach()])
        ufrag = stun.read_binding_request(checks[-1]).server_ufrag
        check = stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1, controlling=False)
        [user] = [each for each in it.air.there.values() if not each.host]
        victims = [("203.0.113.9", 40_000 + number) for number in range(20)]
        for victim in victims:
            it.air.carry(check, victim, it.air.seen(user))
        await pull(session, 50, every=0.02)
        assert sum(it.air.received[victim] > 0 for victim in victims) == ADDRESSES_TOLD
        assert session.route == "relay"

    play(scene)
