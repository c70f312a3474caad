"""Associations over a simulated network, in virtual time."""

import random
from struct import pack, unpack_from

import pytest

from kodo.p2p.core.sctp import (
    ChannelClosed,
    ChannelOpened,
    Drained,
    Ended,
    Established,
    MessageReceived,
    Settings,
    wire,
)
from kodo.p2p.errors import (
    BrokenSessionError,
    CapacityError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
    UsageError,
)
from tests.support.sctp_network import Network


def kinds(packet):
    """The chunk types in a packet."""
    found, position = [], 12
    while position < len(packet):
        kind, _, length = unpack_from(">BBH", packet, position)
        found.append(kind)
        position += length + (-length & 3)
    return found


def events(network, side, kind):
    return [event for event in network.events[id(side)] if isinstance(event, kind)]


def messages(network, side, channel=None):
    return [
        event.data
        for event in events(network, side, MessageReceived)
        if channel is None or event.channel_id == channel
    ]


def errors(network, side):
    return [event.error for event in events(network, side, Ended)]


def reading(network):
    """Make both sides read what they are given at once."""
    keep = network.on_event

    def on_event(side, event):
        keep(side, event)
        if isinstance(event, MessageReceived):
            side.consumed(len(event.data))

    network.on_event = on_event
    return network


def drop_first(network, side, kind, count=1):
    """Lose the first packets of a side that hold a chunk of a kind."""
    lost = []

    def drop(packet):
        if kind in kinds(packet) and len(lost) < count:
            lost.append(packet)
            return True
        return False

    network.paths[id(side)].drop = drop
    return lost


def forge(network, side, chunks):
    """A packet that `side` takes for one of its peer."""
    tag = 11 if side is network.client else 22
    return wire.PacketCodec(5000, tag).encode(chunks)


def give(network, side, chunks):
    side.receive_datagram(forge(network, side, chunks), network.now)
    network.flush(side)


def data_chunk(tsn, stream=0, sequence=0, protocol=53, data=b"x", flags=3):
    body = pack(">IHHI", tsn & 0xFFFFFFFF, stream, sequence, protocol) + data
    return wire.encode_chunk(wire.DATA, body, flags)


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


# messages


def test_messages_of_every_kind_and_size_arrive():
    network = reading(Network()).connect()
    channel = network.client.open_channel(label="name", protocol="sub")
    sent = [b"", b"a", b"ab", b"abc", bytes(1172), bytes(1173), bytes(16_384), bytes(262_144)]
    for data in sent:
        network.client.send(channel, data)
    network.client.send(channel, "ü".encode(), text=True)
    network.client.send(channel, b"", text=True)
    network.run(lambda: network.client.queued == 0)
    assert events(network, network.server, ChannelOpened) == [ChannelOpened(channel, "name", "sub")]
    found = [(event.data, event.text) for event in events(network, network.server, MessageReceived)]
    assert found == [*((data, False) for data in sent), ("ü".encode(), True), (b"", True)]


def test_the_queue_is_told_as_it_drains():
    network = reading(Network()).connect()
    channel = network.client.open_channel()
    network.client.send(channel, bytes(100_000))
    assert network.client.queued >= 100_000
    network.run(lambda: network.client.queued == 0)
    told = [event.queued for event in events(network, network.client, Drained)]
    assert told == sorted(told, reverse=True)
    assert told[-1] == 0


def test_no_packet_is_longer_than_the_path_takes():
    network = reading(Network(settings=Settings(mtu=1000))).connect()
    longest = 0

    def look(packet):
        nonlocal longest
        longest = max(longest, len(packet))
        return False

    network.paths[id(network.client)].drop = look
    channel = network.client.open_channel()
    chance = random.Random(1)
    for _ in range(200):
        network.client.send(channel, bytes(chance.randrange(5000)))
    network.run(lambda: network.client.queued == 0)
    assert 980 <= longest <= 1000


def test_small_messages_share_packets():
    network = reading(Network()).connect()
    channel = network.client.open_channel()
    count = 0

    def look(packet):
        nonlocal count
        count += wire.DATA in kinds(packet)
        return False

    network.paths[id(network.client)].drop = look
    for _ in range(1000):
        network.client.send(channel, bytes(100))
    network.run(lambda: network.client.queued == 0)
    assert len(messages(network, network.server)) == 1000
    assert count <= 101


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1, 0.2])
def test_everything_arrives_once_and_in_order_whatever_the_network_does(loss):
    network = reading(
        Network(7, loss=loss, duplicates=loss / 2, delay=0.01, jitter=0.02, tsn=(0xFFFFFF00, 0xFFFFFFF0))
    ).connect()
    chance = random.Random(3)
    sent = {}
    for side in (network.client, network.server):
        for _ in range(3):
            sent[id(side), side.open_channel()] = []
    for _ in range(300):
        side, channel = chance.choice(list(sent))
        data = chance.randbytes(chance.choice([1, 50, 1000, 5000, 20_000]))
        sent[side, channel].append(data)
        (network.client if side == id(network.client) else network.server).send(channel, data)
    assert network.run(lambda: network.client.queued == network.server.queued == 0)
    for (side, channel), expected in sent.items():
        reader = network.server if side == id(network.client) else network.client
        assert messages(network, reader, channel) == expected


def test_a_loss_on_one_channel_holds_up_no_other():
    network = reading(Network(delay=0.05)).connect()
    first, second = network.client.open_channel(), network.client.open_channel()
    network.run(seconds=1)
    network.client.send(first, b"lost")
    drop_first(network, network.client, wire.DATA)
    network.flush(network.client)
    network.client.send(second, b"goes through")
    assert network.run(lambda: bool(messages(network, network.server)))
    assert messages(network, network.server) == [b"goes through"]
    assert network.run(lambda: network.client.queued == 0)
    assert messages(network, network.server) == [b"goes through", b"lost"]


def test_a_loss_among_many_packets_costs_a_round_trip_not_a_timeout():
    network = reading(Network(delay=0.05)).connect()
    channel = network.client.open_channel()
    network.run(seconds=1)
    drop_first(network, network.client, wire.DATA)
    begin = network.now
    network.client.send(channel, bytes(50_000))
    assert network.run(lambda: bool(messages(network, network.server)))
    assert network.now - begin < 0.17


def test_the_loss_of_the_last_packet_is_noticed_before_the_timeout():
    network = reading(Network(delay=0.005)).connect()
    channel = network.client.open_channel()
    network.client.send(channel, b"first")
    network.run(seconds=1)
    drop_first(network, network.client, wire.DATA)
    begin = network.now
    network.client.send(channel, b"last")
    assert network.run(lambda: len(messages(network, network.server)) == 2)
    assert network.now - begin < 0.1


def test_unordered_messages_are_delivered_as_they_come():
    network = reading(Network()).connect()
    network.server.open_channel(channel_id=0, negotiated=True)
    give(network, network.server, data_chunk(1001, sequence=1))
    give(network, network.server, data_chunk(1002, data=b"loose", flags=7))
    assert messages(network, network.server) == [b"loose"]


def test_data_that_comes_twice_is_delivered_once_and_reported():
    network = reading(Network()).connect()
    network.server.open_channel(channel_id=0, negotiated=True)
    give(network, network.server, data_chunk(1000))
    network.server.receive_datagram(forge(network, network.server, data_chunk(1000)), network.now)
    (packet,) = network.server.datagrams_to_send(network.now)
    assert messages(network, network.server) == [b"x"]
    assert wire.parse_sack(packet, 12, len(packet)) == (1000, 4 << 20, (), (1000,))


def test_every_fourth_packet_is_acknowledged_at_once_and_the_rest_soon():
    network = Network().connect()
    network.run()
    network.server.open_channel(channel_id=0, negotiated=True)
    for number in range(3):
        network.server.receive_datagram(
            forge(network, network.server, data_chunk(1000 + number, sequence=number)), network.now
        )
    timer = network.server.get_timer()
    assert timer == pytest.approx(network.now + 0.02)
    network.server.receive_datagram(forge(network, network.server, data_chunk(1003, sequence=3)), network.now)
    (packet,) = network.server.datagrams_to_send(network.now)
    assert wire.parse_sack(packet, 12, len(packet))[0] == 1003
    assert network.server.get_timer() is None


# the window


def test_a_stopped_reader_closes_the_window_and_goes_on_when_it_reads():
    network = Network(settings=Settings(window=100_000)).connect()
    channel = network.client.open_channel()
    for _ in range(50):
        network.client.send(channel, bytes(10_000))
    network.run(seconds=300)
    given = messages(network, network.server)
    assert 5 <= len(given) <= 10
    assert network.client.queued >= 400_000
    assert errors(network, network.client) == []
    network.server.consumed(sum(map(len, given)))
    reading(network)
    assert network.run(lambda: network.client.queued == 0, seconds=5)
    assert len(messages(network, network.server)) == 50


def test_a_window_that_opens_is_announced_without_waiting_for_a_probe():
    network = Network(settings=Settings(window=100_000)).connect()
    channel = network.client.open_channel()
    for _ in range(50):
        network.client.send(channel, bytes(10_000))
    network.run(seconds=100)
    begin = network.now
    given = len(messages(network, network.server))
    network.server.consumed(sum(map(len, messages(network, network.server))))
    assert network.run(lambda: len(messages(network, network.server)) > given)
    assert network.now - begin < 0.1


def test_a_window_update_that_is_lost_is_made_up_by_a_probe():
    network = Network(settings=Settings(window=100_000)).connect()
    channel = network.client.open_channel()
    for _ in range(50):
        network.client.send(channel, bytes(10_000))
    network.run(seconds=100)
    drop_first(network, network.server, wire.SACK)
    network.server.consumed(sum(map(len, messages(network, network.server))))
    reading(network)
    assert network.run(lambda: network.client.queued == 0, seconds=60)


def test_a_peer_that_ignores_the_window_is_not_kept():
    network = Network(settings=Settings(window=50_000)).connect()
    network.server.open_channel(channel_id=0, negotiated=True)
    for number in range(2000):
        network.server.receive_datagram(
            forge(network, network.server, data_chunk(1000 + number, sequence=number, data=bytes(1000))), network.now
        )
    network.flush(network.server)
    assert sum(map(len, messages(network, network.server))) <= 52_000


def test_tiny_fragments_count_more_than_their_bytes():
    network = Network(settings=Settings(window=50_000)).connect()
    for number in range(5000):
        give(network, network.server, data_chunk(1001 + 2 * number, stream=1, sequence=5, flags=0))
    receiver = network.server._receiver
    assert len(receiver._received.gaps) < 500
    assert receiver.window == 0


# channels


def test_ids_are_even_for_the_client_and_odd_for_the_server():
    network = Network().connect()
    assert [network.client.open_channel() for _ in range(3)] == [0, 2, 4]
    assert [network.server.open_channel() for _ in range(3)] == [1, 3, 5]


def test_a_negotiated_channel_is_not_announced():
    network = reading(Network()).connect()
    for side in (network.client, network.server):
        assert side.open_channel(channel_id=0, negotiated=True) == 0
    network.client.send(0, b"hello")
    network.server.send(0, b"you")
    network.run()
    assert messages(network, network.server) == [b"hello"]
    assert messages(network, network.client) == [b"you"]
    assert events(network, network.server, ChannelOpened) == []


def test_messages_may_be_sent_before_the_handshake():
    network = reading(Network())
    channel = network.client.open_channel()
    network.client.send(channel, b"early")
    network.connect().run()
    assert messages(network, network.server) == [b"early"]


def test_a_closed_channel_takes_no_messages():
    network = Network().connect()
    channel = network.client.open_channel()
    network.client.close_channel(channel)
    for closed in (channel, 77):
        with pytest.raises(BrokenSessionError):
            network.client.send(closed, b"")


def test_a_channel_that_is_closed_still_delivers_what_was_queued():
    network = reading(Network(delay=0.01)).connect()
    channel = network.client.open_channel()
    network.client.send(channel, bytes(200_000))
    network.client.close_channel(channel)
    network.run()
    assert messages(network, network.server) == [bytes(200_000)]
    for side in (network.client, network.server):
        assert events(network, side, ChannelClosed) == [ChannelClosed(channel)]


@pytest.mark.parametrize("seed", range(10))
def test_a_channel_closes_on_both_sides_in_spite_of_losses(seed):
    network = reading(Network(seed, loss=0.3, delay=0.01, jitter=0.01)).connect()
    channel = network.client.open_channel()
    network.client.send(channel, bytes(20_000))
    assert network.run(lambda: network.client.queued == 0)
    network.client.close_channel(channel)
    network.server.close_channel(channel)
    assert network.run(lambda: all(events(network, side, ChannelClosed) for side in (network.client, network.server)))
    assert messages(network, network.server) == [bytes(20_000)]


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_an_id_is_used_again_with_fresh_sequence_numbers(loss):
    network = reading(Network(4, loss=loss, delay=0.01)).connect()
    for number in range(10):
        assert network.client.open_channel(channel_id=6) == 6
        network.client.send(6, b"one %d" % number)
        network.client.send(6, b"two %d" % number)
        network.client.close_channel(6)
        closed = len(events(network, network.client, ChannelClosed))
        assert network.run(lambda: len(events(network, network.client, ChannelClosed)) > closed)  # noqa: B023
    network.run(seconds=10)
    assert messages(network, network.server) == [
        b"%s %d" % (word, number) for number in range(10) for word in (b"one", b"two")
    ]
    assert len(events(network, network.server, ChannelOpened)) == 10
    assert len(events(network, network.server, ChannelClosed)) == 10


def test_thousands_of_channels_one_after_the_other_keep_nothing():
    network = reading(Network()).connect()
    for _ in range(500):
        channel = network.client.open_channel()
        network.client.send(channel, b"call")
        network.client.close_channel(channel)
        network.run(seconds=0.1)
    network.run(seconds=5)
    assert len(messages(network, network.server)) == 500
    for side in (network.client, network.server):
        assert side._channels.by_id == {}
        assert side._receiver._reassembly.streams == []
    assert channel < 200


def test_a_reset_waits_for_data_that_was_sent_before_it():
    network = reading(Network(delay=0.01)).connect()
    channel = network.client.open_channel()
    network.run(seconds=1)
    drop_first(network, network.client, wire.DATA)
    network.client.send(channel, b"late")
    network.flush(network.client)
    network.client.close_channel(channel)
    network.run(seconds=10)
    assert messages(network, network.server) == [b"late"]
    assert events(network, network.server, ChannelClosed) == [ChannelClosed(channel)]


def test_too_many_channels_of_a_peer_are_closed_again():
    network = reading(Network(settings=Settings(max_channels=3))).connect()
    network.server.open_channel()
    for _ in range(3):
        network.client.open_channel()
    network.run()
    assert len(events(network, network.server, ChannelOpened)) == 2
    assert ChannelClosed(4) in events(network, network.client, ChannelClosed)


def test_a_side_opens_no_more_channels_than_it_may():
    network = Network(settings=Settings(max_channels=3)).connect()
    for _ in range(3):
        network.client.open_channel()
    with pytest.raises(CapacityError):
        network.client.open_channel()


def test_misuse_is_told():
    network = Network().connect()
    network.client.open_channel(channel_id=8)
    with pytest.raises(UsageError):
        network.client.open_channel(channel_id=8)
    with pytest.raises(UsageError):
        network.client.open_channel(negotiated=True)
    with pytest.raises(UsageError):
        network.client.send(8, bytes(300_000))


def test_channels_share_the_way_fairly():
    network = reading(Network(delay=0.01, rate=2e6)).connect()
    first, second = network.client.open_channel(), network.client.open_channel()
    for _ in range(100):
        network.client.send(first, bytes(10_000))
    network.client.send(second, b"call")
    network.run(lambda: bool(messages(network, network.server, second)))
    assert len(messages(network, network.server, first)) <= 2


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
