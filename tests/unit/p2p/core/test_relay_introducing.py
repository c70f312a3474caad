"""A relay that carries nothing: it introduces diallers to nodes, and nobody can make it do anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.relay import AMPLIFICATION, RelayBounds, Stream
from tests.unit.p2p.core.test_relay import (
    AT_NODE,
    AT_OTHER,
    DIALLER,
    FIRST,
    HELLO,
    NODE,
    RECORD,
    TOKEN,
    VICTIM,
    Scene,
    check_to,
)

ELSEWHERE = stun.alternate_response(stun.read_binding_request(check_to(NODE)), tuple(DIALLER), tuple(AT_NODE))
SUCCESS = stun.binding_response(stun.read_binding_request(check_to(NODE)), tuple(DIALLER), relayed=True)
PLAIN = stun.plain_request(b"t" * 12)


def off() -> Scene:
    return Scene(**{name: getattr(RelayBounds.introducing_only(), name) for name in RelayBounds.__slots__})


def test_a_dialler_is_introduced_and_told_where_else_to_ask() -> None:
    it = off()
    channel = it.connect()
    assert it.give(AT_NODE, *relay_wire.frame(channel, [ELSEWHERE])) == {DIALLER: [ELSEWHERE]}
    # As often as it asks again, since it has shown that it receives.
    for _ in range(5):
        [frame] = it.give(DIALLER, check_to(NODE))[AT_NODE]
        assert relay_wire.read_check(relay_wire.read_frame(frame)[1], TOKEN).address == tuple(DIALLER)


@pytest.mark.parametrize("joined", [False, True])
def test_nothing_of_a_session_passes_either_way(joined: bool) -> None:
    it = off()
    channel = it.connect()
    for data in (HELLO, RECORD, SUCCESS):
        frames = relay_wire.frame(channel, [data] * 3)
        if not joined:
            assert it.give(DIALLER, *[data] * 3) == it.give(AT_NODE, *frames) == {}
            continue
        it.relay.received_block(data * 3, len(data), DIALLER, it.now)
        it.relay.received_block(b"".join(frames), len(frames[0]), AT_NODE, it.now)
        assert it.relay.take(it.now) == []
    for data in (check_to(NODE), PLAIN, b"\x01\x11" + bytes(50), b"\xff" * 60):
        assert it.give(AT_NODE, *relay_wire.frame(channel, [data])) == {}


def test_a_check_with_a_victims_address_on_it_brings_the_victim_little_and_the_node_one_check() -> None:
    it = off()
    check = check_to(NODE)
    heard = 0
    for _ in range(50):
        sent = it.give(VICTIM, check)
        heard += len(sent.get(AT_NODE, []))
        # The node says where it is each time, and the relay has its own question.
        it.give(AT_NODE, *relay_wire.frame(FIRST, [ELSEWHERE] * 20))
    assert heard == 1
    assert 0 < it.sent[VICTIM] <= AMPLIFICATION * 50 * len(check)


def test_nothing_goes_to_those_who_did_not_ask() -> None:
    it = off()
    channel = it.connect()
    assert it.give(AT_NODE, *relay_wire.frame(channel + 1, [ELSEWHERE])) == {}
    assert it.give(AT_OTHER, *relay_wire.frame(channel, [ELSEWHERE])) == {}


def test_introductions_keep_to_a_rate() -> None:
    it = off()
    channel = it.connect()
    before, seconds = it.sent[AT_NODE], 20
    for _ in range(seconds):
        it.give(DIALLER, *[check_to(NODE)] * 1000)
        it.wait(1)
    bounds = RelayBounds.introducing_only()
    assert it.sent[AT_NODE] - before <= bounds.burst + seconds * bounds.rate_per_channel
    assert channel == FIRST


def test_who_comes_by_a_connection_is_introduced_to_nobody() -> None:
    it = off()
    stream = Stream("198.51.100.1", 1)
    it.relay.received(check_to(NODE), stream, it.now)
    assert it.relay.take(it.now) == []
    assert not it.relay.serves(stream)
    assert not it.relay.reaches(relay_wire.tag_of(NODE))


CHANGES: list[Callable[[bytes], bytes]] = [
    lambda data: SUCCESS,
    lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    lambda data: data[:8] + b"u" * 12 + data[20:],
    lambda data: relay_wire.unattached_answer(
        b"t" * 12, b"nonce", stun.read_binding_request(check_to(NODE)).server_ufrag
    ),
]


def test_where_else_to_ask_is_read_as_it_was_said_and_not_when_it_was_changed() -> None:
    key = stun.read_binding_request(check_to(NODE)).server_ufrag
    assert stun.read_alternate_response(ELSEWHERE, b"t" * 12, key) == (tuple(DIALLER), False, tuple(AT_NODE))
    for change in CHANGES:
        with pytest.raises(ValueError, match=r"."):
            stun.read_alternate_response(change(ELSEWHERE), b"t" * 12, key)
    with pytest.raises(ValueError, match=r"."):
        stun.read_binding_response(ELSEWHERE, b"t" * 12, key)
