import random

import pytest

from kodo.p2p.core.sctp import Cubic, MessageReceived, RateController
from tests.support.sctp_network import Network, Path

MEGABYTE = 1e6


def throughput(seconds, *, controller, **path):
    """Bytes per virtual second that one association gets through a path, at the reader."""
    network = Network(5, controllers=(controller, None), **path)
    back = network.paths[id(network.server)]
    network.paths[id(network.server)] = Path(random.Random(9), delay=back.delay, loss=back.loss)
    network.connect()
    channel = network.client.open_channel()
    read = 0

    def on_event(side, event):
        nonlocal read
        if isinstance(event, MessageReceived):
            read += len(event.data)
            side.consumed(len(event.data))

    def refill(side):
        if side is network.client:
            while side.queued < 8 << 20:
                side.send(channel, bytes(16_384))

    network.on_event, network.before_sending = on_event, refill
    end = network.now + seconds
    assert network.run(lambda: network.now >= end)
    return read / seconds


LONG = {"delay": 0.025, "rate": 25 * MEGABYTE, "queue": 1_250_000}


@pytest.mark.parametrize(("loss", "reach"), [(0.0, 18), (0.001, 15), (0.01, 10)])
def test_a_long_fast_link_stays_full_in_spite_of_losses(loss, reach):
    assert throughput(4.0, controller=RateController(1200), loss=loss, **LONG) >= reach * MEGABYTE


def test_a_short_queue_is_enough():
    found = throughput(4.0, controller=RateController(1200), delay=0.025, rate=25 * MEGABYTE, queue=200_000)
    assert found >= 15 * MEGABYTE


def test_a_slow_link_stays_full_without_being_flooded():
    controller = RateController(1200)
    found = throughput(10.0, controller=controller, delay=0.02, rate=1.25 * MEGABYTE, queue=60_000)
    assert found >= 1.0 * MEGABYTE
    assert controller.window < 400_000


def test_a_local_link_needs_no_pacing():
    controller = RateController(1200)
    found = throughput(0.5, controller=controller, delay=0.0002, rate=125 * MEGABYTE, queue=500_000)
    assert found >= 100 * MEGABYTE
    assert controller.pacing == 0.0


def test_cubic_fills_a_long_link_without_losses():
    assert throughput(6.0, controller=Cubic(1200), **LONG) >= 10 * MEGABYTE


def test_a_timeout_shrinks_both_to_a_few_packets():
    for controller in (RateController(1200), Cubic(1200)):
        controller.timed_out(1.0)
        assert controller.window <= 4 * 1200
