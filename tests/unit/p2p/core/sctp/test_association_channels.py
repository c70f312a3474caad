"""Channels over a simulated network, in virtual time: how they open, close, and share the way."""

import pytest

from kodo.p2p.core.sctp import (
    ChannelClosed,
    ChannelOpened,
    Settings,
    wire,
)
from kodo.p2p.errors import (
    BrokenSessionError,
    CapacityError,
    UsageError,
)
from tests.support.sctp_network import Network
from tests.support.sctp_packets import drop_first, events, messages, reading

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
