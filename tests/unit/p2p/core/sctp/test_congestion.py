import random

import pytest

from kodo.p2p.core.sctp import Cubic, RateController
from tests.support.sctp_network import Bulk, Network, Path, share

MEGABYTE = 1e6


def throughput(seconds, *, controller, **path):
    """Bytes per virtual second that one association gets through a path, at the reader."""
    network = Network(5, controllers=(controller, None), **path)
    back = network.paths[id(network.server)]
    network.paths[id(network.server)] = Path(random.Random(9), delay=back.delay, loss=back.loss)
    bulk = Bulk(network.connect(), ahead=8 << 20)
    end = network.now + seconds
    assert network.run(lambda: network.now >= end)
    return bulk.read / seconds


LONG = {"delay": 0.025, "rate": 25 * MEGABYTE, "queue": 1_250_000}


@pytest.mark.parametrize(("loss", "reach"), [(0.0, 18), (0.001, 15), (0.01, 10)])
def test_a_long_fast_link_stays_full_in_spite_of_losses(loss, reach):
    assert throughput(2.5, controller=RateController(1200), loss=loss, **LONG) >= reach * MEGABYTE


def test_a_short_queue_is_enough():
    found = throughput(2.5, controller=RateController(1200), delay=0.025, rate=25 * MEGABYTE, queue=200_000)
    assert found >= 14 * MEGABYTE


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


def test_a_local_peer_whose_socket_holds_little_loses_little():
    class Counting(RateController):
        lost = delivered = 0

        def acknowledged(self, now, news):
            super().acknowledged(now, news)
            self.lost, self.delivered = self.lost + news.lost, news.delivered

    controller = Counting(1200)
    found = throughput(2.0, controller=controller, delay=0.0002, rate=30 * MEGABYTE, queue=80_000)
    assert found >= 25 * MEGABYTE
    assert controller.lost < 0.03 * controller.delivered


def test_cubic_fills_a_long_link_without_losses():
    found = throughput(6.0, controller=Cubic(1200), delay=0.025, rate=5 * MEGABYTE, queue=250_000)
    assert found >= 3 * MEGABYTE


def test_a_timeout_shrinks_both_to_a_few_packets():
    for controller in (RateController(1200), Cubic(1200)):
        controller.timed_out(1.0)
        assert controller.window <= 4 * 1200


@pytest.mark.parametrize(("queue", "loss"), [(0.25, 0.0), (4, 0.0), (1, 0.01)])
def test_two_flows_share_a_bottleneck_whatever_its_queue(queue, loss):
    rate, delay = 1e6, 0.025
    flows = share(
        [RateController(1200), RateController(1200)],
        seconds=28.0,
        after=14.0,
        rate=rate,
        delay=delay,
        loss=loss,
        queue=int(queue * rate * 2 * delay),
    )
    assert max(flows) <= 2 * min(flows)
    assert sum(flows) >= 0.75 * rate


def test_cubic_beside_ours_keeps_a_part_of_a_queue_as_long_as_the_path():
    rate, delay = 1e6, 0.025
    ours, cubic = share(
        [RateController(1200), Cubic(1200)],
        seconds=18.0,
        after=8.0,
        rate=rate,
        delay=delay,
        queue=int(2 * rate * delay),
    )
    assert min(ours, cubic) >= 0.2 * (ours + cubic)
