"""Finding out how long a packet may be: the search itself, and associations over paths that are narrow or change."""

import pytest

from kodo.p2p.core.sctp import Ended, MessageReceived, lifecycle, wire
from kodo.p2p.core.sctp.pathmtu import ATTEMPTS, PROBE_SECONDS, RAISE_SECONDS, SIZES, PathMtu
from kodo.p2p.core.sctp.wire import Init
from tests.support.sctp_network import Network

BASE, MOST = 1200, 16_328


def search(path, carries, *, now=0.0, interface=MOST):
    """Run a search to its end over a path that carries packets up to a size; give the probes and the time."""
    probes = []
    while size := path.next_probe(now):
        probes.append(size)
        if size > interface:
            path.refused()
        elif size <= carries:
            path.passed()
        else:
            now += PROBE_SECONDS
            path.timed_out()
    return probes, now


@pytest.mark.parametrize("carries", [BASE, *SIZES, 1350, 1500, 5000, MOST + 100])
def test_the_largest_usual_size_that_passes_is_found(carries):
    path = PathMtu(BASE, MOST)
    search(path, carries)
    assert path.size == max([size for size in SIZES if size <= carries], default=BASE)


def test_an_ordinary_link_takes_no_time_and_few_probes():
    path = PathMtu(BASE, MOST)
    probes, now = search(path, 1435, interface=1435)
    assert path.size == 1432
    assert now == 0.0
    assert len(probes) <= 5


def test_a_lost_probe_is_repeated_before_it_says_anything():
    path = PathMtu(BASE, MOST)
    size = path.next_probe(0.0)
    for attempt in range(1, ATTEMPTS):
        path.timed_out()
        assert path.next_probe(float(attempt)) == size
    path.passed()
    assert path.size == size


def test_a_found_size_is_asked_about_again_later():
    path = PathMtu(BASE, MOST)
    _, now = search(path, 1435)
    assert path.next_probe(now + RAISE_SECONDS - 1) == 0
    search(path, MOST, now=now + RAISE_SECONDS)
    assert path.size == MOST


def test_after_a_fall_the_search_stays_below_what_failed():
    path = PathMtu(BASE, MOST)
    _, now = search(path, MOST)
    path.shrunk()
    assert path.size == BASE
    assert all(size < MOST for size in search(path, 1435, now=now)[0])
    assert path.size == 1432


class Stream:
    """Bytes from the client to the server, without end; `count` of them were read."""

    def __init__(self, network):
        self.network = network
        self.count = 0
        self.ended = []
        self.channel = network.client.open_channel()
        network.on_event, network.before_sending = self.on_event, self.refill

    def on_event(self, side, event):
        if isinstance(event, MessageReceived):
            self.count += len(event.data)
            side.consumed(len(event.data))
        elif isinstance(event, Ended):
            self.ended.append(event)

    def refill(self, side):
        if side is self.network.client:
            while not self.ended and side.queued < 1 << 20:
                side.send(self.channel, bytes(16_000))

    def run(self, seconds):
        """Let time pass; give the bytes that were read meanwhile."""
        before, end = self.count, self.network.now + seconds
        self.network.run(lambda: self.network.now >= end)
        return self.count - before


def stream(mtu, **path):
    network = Network(7, mtu=mtu, delay=0.01, rate=1e6, queue=100_000, **path).connect()
    return Stream(network), network


@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("mtu", [1200, 1355, 1435, 8935, 20_000])
def test_an_association_finds_the_paths_size_while_it_sends(mtu, loss):
    flow, network = stream(mtu, loss=loss)
    flow.run(15.0)
    assert network.client.mtu == max([size for size in SIZES if size <= mtu], default=BASE)
    assert network.server.mtu == BASE  # it has nothing to send
    assert not flow.ended


def test_a_side_that_sends_little_never_searches():
    network = Network(7, mtu=9000).connect()
    channel = network.client.open_channel()
    for _ in range(20):
        network.client.send(channel, bytes(1000))
        network.run()
    assert network.client.mtu == BASE


FORWARDS = wire.encode_parameter(wire.PARAMETER_FORWARD_TSN, b"")


@pytest.mark.parametrize(
    ("named", "window", "longest"),
    [(b"", 5 << 20, 1432), (FORWARDS, 1 << 20, 1432), (FORWARDS, 5 << 20, 2008)],
    ids=["pion", "aiortc", "dcsctp"],
)
def test_a_peer_that_names_no_padding_gets_no_longer_packets_than_its_kind_takes(monkeypatch, named, window, longest):
    monkeypatch.setattr(
        lifecycle,
        "Init",
        lambda *fields: Init(fields[0], window, *fields[2:6], False, fields[7], fields[8] + named),
    )
    flow, network = stream(20_000)
    flow.run(15.0)
    assert network.client.mtu == longest


def test_what_the_interface_refuses_is_not_waited_for():
    flow, network = stream(1435)
    network.interface = 1435
    flow.run(0.5)
    assert network.client.mtu == 1432


@pytest.mark.parametrize("fallen", [1355, 1250])
@pytest.mark.parametrize("before", [1435, 20_000])
def test_a_path_that_shrinks_is_noticed_and_nothing_is_lost(before, fallen):
    flow, network = stream(before)
    flow.run(8.0)
    network.paths[id(network.client)].mtu = fallen
    flow.run(15.0)
    assert network.client.mtu == max([size for size in SIZES if size <= fallen], default=BASE)
    assert flow.run(2.0) > 5e5
    assert not flow.ended


def test_a_path_that_shrinks_is_noticed_though_short_packets_still_pass():
    flow, network = stream(8915)
    flow.run(8.0)
    network.paths[id(network.client)].mtu = 1435
    pings = network.client.open_channel()
    refill = network.before_sending

    def refill_and_ping(side):
        refill(side)
        if side is network.client and not flow.ended:
            side.send(pings, b"ping")

    network.before_sending = refill_and_ping
    flow.run(20.0)
    assert network.client.mtu == 1432
    assert not flow.ended


def test_where_routers_fragment_nothing_a_path_that_shrinks_ends_the_association_soon():
    flow, network = stream(1435)
    flow.run(8.0)
    network.fragments = False
    began = network.now
    network.paths[id(network.client)].mtu = 1250
    network.run(lambda: bool(flow.ended))
    assert network.now - began < 4.0
    assert "shorter packets" in str(flow.ended[0].error)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("fragments", [True, False])
def test_a_pause_of_the_path_is_not_taken_for_a_shorter_one_that_ends_the_association(seconds, fragments):
    flow, network = stream(1435, loss=0.02)
    flow.run(8.0)
    network.fragments = fragments
    for path in network.paths.values():
        path.drop = lambda packet: True
    flow.run(seconds)
    for path in network.paths.values():
        path.drop = lambda packet: False
    flow.run(15.0)
    assert not flow.ended
    assert flow.run(2.0) > 5e5


def test_a_path_that_widens_is_noticed_in_time():
    flow, network = stream(1435)
    flow.run(10.0)
    network.paths[id(network.client)].mtu = 8935
    network.before_sending = lambda side: None
    network.run(seconds=10.0)
    network.now += RAISE_SECONDS
    network.before_sending = flow.refill
    flow.run(15.0)
    assert network.client.mtu == 8932
