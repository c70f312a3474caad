"""A relay that carries nothing introduces diallers to nodes: who gets in by that, and what is said else."""

from __future__ import annotations

import asyncio

import pytest

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.paths import Target
from kodo.p2p.core.relay import RelayBounds
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net.checks import Question, check
from kodo.p2p.net.openings import MOST_FAR
from kodo.p2p.net.transport import Punch
from tests.support.air import NODE, PORT, Address
from tests.unit.p2p.net import test_relay
from tests.unit.p2p.net.test_relay import AT_RELAY, ELSEWHERE, RELAY, VICTIM, Play, Scene, pull

OFF = RelayBounds.introducing_only()
play = test_relay.play


def test_a_dialler_is_let_in_by_the_nat_before_the_node_and_no_session_goes_through_the_relay(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.lets_in = True
        passed: list[bytes] = []
        it.air.drop = lambda data, source, to: bool(
            it._drop(data, source, to) or (RELAY in (source[0], to[0]) and passed.append(data))
        )
        session = await it.user.connect([await it.attach(OFF)])
        [at_node] = it.node.sessions
        assert (session.route, at_node.route) == ("punched", "punched")
        assert session.remote_address == (NODE, PORT)
        await pull(session, 100, 1000)
        payloads = [relay_wire.read_frame(data)[1] if relay_wire.is_frame(data) else data for data in passed]
        assert not any(map(stun.is_dtls, payloads))

    play(scene, "early")


def test_a_session_goes_on_after_the_users_nat_forgets_him(play: Play) -> None:
    async def scene(it: Scene) -> None:
        it.lets_in = it.air.nat = True
        session = await it.user.connect([await it.attach(OFF)])

        async def move() -> None:
            await asyncio.sleep(2)
            it.air.home = ELSEWHERE
            it.air.rebind()

        _, longest = await asyncio.gather(move(), pull(session, 300, every=0.02))
        assert longest < 3
        assert len(it.node.sessions) == 1

    play(scene, "early")


def test_where_no_packet_comes_through_it_is_said_what_to_do(play: Play) -> None:
    async def scene(it: Scene) -> None:
        address = await it.attach(OFF)
        with pytest.raises(UnreachableError, match=r"relays nothing.*koco registry --relay"):
            await it.user.connect([address, it.direct])
        assert it.node.sessions == []

    play(scene, "early")


def test_a_node_whose_nat_has_another_port_for_each_destination_is_met_at_that_port(play: Play) -> None:
    other = (NODE, 50_000)

    async def scene(it: Scene) -> None:
        send = it.air.carry

        def carry(data: bytes, source: Address, to: Address) -> None:
            send(data, other if source == (NODE, PORT) and to[0] != RELAY else source, to)

        it.air.carry = carry  # type: ignore[method-assign]
        it.air.drop = lambda data, source, to: to == (NODE, PORT) and source[0] != RELAY
        it.air.there[other] = it.air.there[NODE, PORT]
        session = await it.user.connect([await it.attach(OFF)])
        assert (session.route, session.remote_address) == ("punched", other)

    play(scene, "early")


def test_a_check_shows_that_a_registry_only_introduces(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach(OFF)
        [told] = await check([Question(Target(*AT_RELAY))], peer=it.node.peer_id)
        assert (told.introduced, told.relayed, told.mapped is not None) == (True, False, True)

    play(scene, "early")


@pytest.mark.parametrize("punch", ["after-login", "never"])
def test_a_node_that_tells_strangers_nothing_attaches_to_no_relay_where_nobody_can_log_in(
    play: Play, punch: Punch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(it: Scene) -> None:
        with pytest.raises(TimeoutError):
            await it.attach(OFF)
        assert it.node.relay_addresses() == []
        assert it.server.core.attached == 0
        it.admit()  # as with each new connection to the registry

    play(scene, punch)
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [f"punch={punch}" in each for each in told] == [True]


def test_a_node_that_tells_strangers_nothing_leaves_a_relay_that_carries_no_longer(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach()
        before = it.changes
        it.node.attach(AT_RELAY, it.token, it._changed, None, False)
        assert (it.node.relay_addresses(), it.changes) == ([], before + 1)

    play(scene, "after-login")


def test_a_relay_that_lies_has_a_node_send_few_packets_to_where_it_says_a_dialler_is(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach(OFF)
        victim = (VICTIM[0], 40_000)
        ufrag = f"{stun.UFRAG_PREFIXES[1]}{'0' * 32}/{relay_wire.tag_of(it.node.peer_id)}"
        request = stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)
        said = relay_wire.frame_of_check(0x4001, victim, request, it.token)
        for _ in range(400):
            it.air.carry(said, AT_RELAY, (NODE, PORT))
            await asyncio.sleep(0.02)
        assert it.air.received[victim] <= MOST_FAR * len(request)

    play(scene, "early")


def test_whose_address_somebody_else_has_written_on_checks_gets_none_of_the_nodes_packets(play: Play) -> None:
    async def scene(it: Scene) -> None:
        await it.attach(OFF)
        came: list[Address] = []
        victim = (VICTIM[0], 40_000)
        it.air.drop = lambda data, source, to: bool(to == victim and came.append(source))
        ufrag = f"{stun.UFRAG_PREFIXES[1]}{'0' * 32}/{relay_wire.tag_of(it.node.peer_id)}"
        request = stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)
        for _ in range(200):
            it.air.carry(request, victim, AT_RELAY)
            await asyncio.sleep(0.02)
        # The relay asks whether it is there, and passes the node's word on once; none is sent by the node itself.
        assert set(came) == {AT_RELAY}

    play(scene, "early")
