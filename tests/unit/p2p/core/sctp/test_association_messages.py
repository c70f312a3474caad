"""Messages over a simulated network, in virtual time: what arrives, and how a reader that stops is waited for."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from kodo.p2p.core.sctp import (
    ChannelOpened,
    Drained,
    MessageReceived,
    Settings,
    wire,
)
from tests.support.operations import operations
from tests.support.sctp_network import Network
from tests.support.sctp_packets import data_chunk, drop_first, errors, events, forge, give, kinds, messages, reading

# messages


def test_who_speaks_to_a_peer_that_is_gone_does_so_ever_more_rarely():
    network = reading(Network()).connect()
    channel = network.client.open_channel()
    network.client.send(channel, b"hello")
    network.run(lambda: network.client.queued == 0)
    sent = []
    path = network.paths[id(network.client)]
    path.drop = lambda packet: sent.append(network.now) is None
    network.client.send(channel, b"anybody there?")
    network.flush(network.client)
    network.run(seconds=8)
    pauses = [later - before for before, later in pairwise(sent)]
    assert len(sent) <= 20
    assert pauses[-1] >= 1.0


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


def test_a_peer_of_another_kind_is_acknowledged_for_every_second_packet_of_a_batch():
    network = Network()
    init = network.client._init
    network.client._init = lambda *args: replace(init(*args), pads=False)
    network.connect()
    network.run()
    network.server.open_channel(channel_id=0, negotiated=True)
    for number in range(7):
        network.server.receive_datagram(
            forge(network, network.server, data_chunk(1000 + number, sequence=number)), network.now
        )
    packets = network.server.datagrams_to_send(network.now)
    assert [wire.parse_sack(packet, 12, len(packet))[0] for packet in packets] == [1001, 1003, 1005, 1006]


def sack(tsn, *runs, window=1 << 20, duplicates=()):
    return wire.encode_sack(tsn, window, [(tsn + first, tsn + last) for first, last in runs], duplicates)


def sender(count=40):
    """A network whose client has sent packets that nobody has acknowledged, numbers 1000 and on."""
    network = Network().connect()
    channel = network.client.open_channel()
    network.run()
    for _ in range(count):
        network.client.send(channel, bytes(1000))
    network.client.datagrams_to_send(network.now)
    return network


def standing(network):
    recovery = network.client._sender.recovery
    return recovery.acknowledged, recovery.outstanding, recovery.in_flight, network.client._sender.peer_window


TOGETHER = {
    "in order": [sack(1000 + number) for number in range(2, 40)],
    "with gaps": [sack(1003), *(sack(1003, (2, 4), (6, 6 + number)) for number in range(20)), sack(1007, (2, 25))],
    "a gap that is filled": [*(sack(1002, (2, 2 + number)) for number in range(8)), sack(1012)],
    "overtaken": [sack(1030), sack(1010), sack(1020)],
    "with duplicates": [sack(1005), sack(1010, duplicates=(1009,)), sack(1020)],
    "a window that closes": [sack(1005), sack(1010, window=0), sack(1020)],
    "with data between": [sack(1005), data_chunk(2000), sack(1020), sack(1030)],
}


@pytest.mark.parametrize("chunks", TOGETHER.values(), ids=TOGETHER)
def test_acknowledgements_that_come_together_say_what_they_would_one_by_one(chunks):
    alone, together = sender(), sender()
    packets = [forge(alone, alone.client, chunk) for chunk in chunks]
    for packet in packets:
        alone.client.receive_datagram(packet, alone.now)
    together.client.receive_datagrams(packets, together.now)
    assert standing(together) == standing(alone)
    assert standing(together) != standing(sender())
    assert together.client.established


def test_many_acknowledgements_that_come_together_cost_hardly_more_than_one():
    packets = [forge(network := sender(), network.client, sack(1000 + number)) for number in range(2, 40)]
    one, all_of_them = sender(), sender()
    last = operations(lambda: one.client.receive_datagrams(packets[-1:], one.now))
    each = operations(lambda: all_of_them.client.receive_datagrams(packets, all_of_them.now)) - last
    assert each / (len(packets) - 1) < last / 6


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


def test_a_closed_window_is_probed_ever_more_slowly():
    network = Network(settings=Settings(window=100_000), delay=0.001, mtu=20_000).connect()
    channel = network.client.open_channel()
    for _ in range(50):
        network.client.send(channel, bytes(10_000))
    network.run(seconds=20)
    sent = []
    network.paths[id(network.client)].drop = lambda packet: bool(sent.append(network.now))
    network.run(seconds=60)
    assert 5 <= len(sent) <= 8
    assert network.client.mtu > 9000  # the path carried them
    assert errors(network, network.client) == []


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
