"""An association over a simulated network, in virtual time: how it begins and ends, and what hostile peers can do."""

import random
from struct import pack

import pytest

from kodo.p2p.core.sctp import (
    Established,
    wire,
)
from kodo.p2p.errors import (
    BrokenSessionError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
)
from tests.support.sctp_network import Network
from tests.support.sctp_packets import data_chunk, drop_first, errors, events, forge, give, kinds, messages, reading

# the handshake


def test_both_sides_are_established_once():
    network = Network().connect()
    network.run()
    for side in (network.client, network.server):
        assert events(network, side, Established) == [Established()]


def test_one_side_that_connects_is_enough():
    network = Network()
    network.client.connect(network.now)
    assert network.run(lambda: network.client.established and network.server.established)


@pytest.mark.parametrize("kind", [wire.INIT, wire.INIT_ACK, wire.COOKIE_ECHO, wire.COOKIE_ACK])
@pytest.mark.parametrize("both", [False, True])
def test_a_lost_step_of_the_handshake_is_repeated(kind, both):
    network = Network()
    drop_first(network, network.client, kind)
    drop_first(network, network.server, kind)
    network.client.connect(network.now)
    if both:
        network.server.connect(network.now)
    assert network.run(lambda: network.client.established and network.server.established)


def test_a_peer_that_never_answers_ends_the_association():
    network = Network(loss=1.0)
    network.client.connect(network.now)
    network.run()
    assert [type(error) for error in errors(network, network.client)] == [BrokenSessionError]


def test_a_cookie_that_is_not_ours_is_ignored():
    network = Network()
    give(network, network.server, wire.encode_chunk(wire.COOKIE_ECHO, bytes(60)))
    assert not network.server.established


def test_a_peer_that_starts_again_ends_the_association():
    network = Network().connect()
    init = wire.encode_init(wire.INIT, wire.Init(99, 1 << 20, 10, 10, 5))
    network.server.receive_datagram(wire.PacketCodec(5000, 0).encode(init), network.now)
    network.flush(network.server)
    assert [type(error) for error in errors(network, network.server)] == [PeerError]


# the end


def test_an_abort_ends_the_other_side():
    network = Network().connect()
    network.client.abort("enough")
    network.run()
    (error,) = errors(network, network.server)
    assert isinstance(error, RemotelyClosedError)
    assert "enough" in str(error)
    assert errors(network, network.client) == []
    assert network.client.get_timer() is None
    with pytest.raises(BrokenSessionError):
        network.client.open_channel()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_shutdown_delivers_what_is_queued_and_ends_both(loss, both):
    network = reading(Network(2, loss=loss, delay=0.01)).connect()
    channel = network.client.open_channel()
    network.client.send(channel, bytes(100_000))
    network.client.shutdown(network.now)
    if both:
        network.server.shutdown(network.now)
    network.run(lambda: all(errors(network, side) for side in (network.client, network.server)))
    assert messages(network, network.server) == [bytes(100_000)]
    for side in (network.client, network.server):
        (error,) = errors(network, side)
        assert isinstance(error, (LocallyClosedError, RemotelyClosedError, BrokenSessionError))


def test_unanswered_data_ends_the_association():
    network = Network().connect()
    channel = network.client.open_channel()
    network.paths[id(network.client)].loss = 1.0
    network.client.send(channel, b"anybody?")
    network.run()
    assert [type(error) for error in errors(network, network.client)] == [BrokenSessionError]


def test_an_unanswered_heartbeat_ends_the_association_and_an_answered_one_does_not():
    network = Network().connect()
    network.client.heartbeat(network.now)
    network.run()
    assert errors(network, network.client) == []
    network.paths[id(network.server)].loss = 1.0
    network.client.heartbeat(network.now)
    network.run()
    assert [type(error) for error in errors(network, network.client)] == [BrokenSessionError]


# hostile peers


def test_wrong_checksums_tags_and_short_packets_are_dropped():
    network = Network().connect()
    network.run()
    good = forge(network, network.server, data_chunk(1000))
    for bad in (b"", good[:11], good[:-1], good[:8] + b"\0\0\0\0" + good[12:], b"\0" * len(good)):
        network.server.receive_datagram(bad, network.now)
    network.flush(network.server)
    assert network.server.established
    assert network.server.get_timer() is None


@pytest.mark.parametrize(
    "chunks",
    [
        wire.encode_sack(500_000, 1),
        pack(">BBH", 0, 3, 16) + bytes(12),
        pack(">BBH", 3, 0, 200) + bytes(20),
        pack(">BBH", 130, 0, 12) + pack(">HHI", 13, 90, 0),
        data_chunk(1000, protocol=50, data=b"\x03"),
        data_chunk(1000, flags=2) + data_chunk(1001, flags=2),
    ],
    ids=["acknowledges the unsent", "empty", "overlong", "bad parameter", "bad OPEN", "begins twice"],
)
def test_a_broken_rule_ends_the_association_and_tells_the_peer(chunks):
    network = Network().connect()
    give(network, network.server, chunks)
    assert [type(error) for error in errors(network, network.server)] == [PeerError]
    network.run()
    assert [type(error) for error in errors(network, network.client)] == [RemotelyClosedError]


def test_chunks_that_are_not_known_are_treated_as_their_high_bits_say():
    network = reading(Network()).connect()
    network.server.open_channel(channel_id=0, negotiated=True)
    give(network, network.server, wire.encode_chunk(0x3F) + data_chunk(1000))
    assert messages(network, network.server) == []
    give(network, network.server, wire.encode_chunk(0xBF) + data_chunk(1000))
    assert messages(network, network.server) == [b"x"]
    network.server.receive_datagram(forge(network, network.server, wire.encode_chunk(0xFF)), network.now)
    packets = network.server.datagrams_to_send(network.now)
    assert [kind for packet in packets for kind in kinds(packet)][-1] == wire.ERROR


def test_a_flood_of_control_chunks_is_answered_within_bounds():
    network = Network().connect()
    for _ in range(1000):
        network.server.receive_datagram(
            forge(network, network.server, wire.encode_chunk(wire.HEARTBEAT, bytes(500))), network.now
        )
    assert len(network.server.datagrams_to_send(network.now)) <= 64


def test_nothing_that_a_peer_sends_raises():
    chance = random.Random(11)
    for _ in range(300):
        network = Network(chance.random()).connect()
        network.server.open_channel(channel_id=0, negotiated=True)
        for _ in range(20):
            body = chance.randbytes(chance.randrange(60))
            kind = chance.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130, 192, chance.randrange(256)])
            chunks = wire.encode_chunk(kind, body, chance.randrange(256))
            if chance.random() < 0.3:
                chunks = chunks[: chance.randrange(len(chunks) + 1)]
            network.server.receive_datagram(forge(network, network.server, chunks), network.now)
            network.server.datagrams_to_send(network.now)
            timer = network.server.get_timer()
            if timer is not None:
                network.now = max(network.now, timer)
                network.server.handle_timer(network.now)
