import pytest

from kodo.p2p.core.sctp.congestion import Cubic
from kodo.p2p.core.sctp.recovery import Recovery


class Sender:
    """A recovery that sends packets of one chunk of 100 bytes."""

    def __init__(self, count=0, first=1000):
        self.first = first
        self.recovery = Recovery(first, Cubic(1200), rto_initial=1.0, rto_min=0.2, rto_max=10.0)
        self.send(count, 0.0)

    def send(self, count, now):
        self.recovery.begin(now)
        for _ in range(count):
            self.recovery.order += 1
            self.recovery.sent(str(self.recovery.next_tsn - self.first).encode(), 100)
        self.recovery.end(now, idle=True)

    def resend(self, now):
        self.recovery.begin(now)
        found = []
        self.recovery.order += 1
        while (chunk := self.recovery.resend(1000)) is not None:
            self.recovery.order += 1
            found.append(int(chunk))
        self.recovery.end(now, idle=True)
        return found

    def sack(self, last, *runs, now=0.1, duplicates=()):
        return self.recovery.acknowledge(self.first + last, runs, duplicates, now)


def test_what_is_acknowledged_is_no_longer_out():
    sender = Sender(5)
    assert sender.sack(2) == 300
    assert (sender.recovery.outstanding, sender.recovery.in_flight) == (200, 200)
    assert sender.sack(4) == 200
    assert sender.recovery.timeout_at is None


def test_runs_are_acknowledged_once():
    sender = Sender(10)
    assert sender.sack(0, 2, 3) == 300
    assert sender.sack(0, 2, 3) == 0
    assert sender.sack(0, 2, 5) == 200
    assert sender.sack(0, 2, 5, 7, 7) == 100
    assert sender.sack(0, 2, 7) == 100
    assert sender.sack(9) == 300
    assert sender.recovery.outstanding == 0


def test_three_later_packets_make_a_loss():
    sender = Sender(10)
    sender.sack(0, 2, 3)
    assert sender.resend(0.1) == []
    sender.sack(0, 2, 4)
    assert sender.resend(0.1) == [1]
    assert sender.resend(0.1) == []


def test_a_retransmission_that_is_lost_too_is_noticed_without_a_timeout():
    sender = Sender(10)
    sender.sack(0, 2, 9)
    assert sender.resend(0.1) == [1]
    sender.send(4, 0.2)
    sender.sack(0, 2, 13, now=0.3)
    assert sender.resend(0.3) == [1]


def test_duplicates_make_it_more_patient_up_to_a_bound():
    sender = Sender(10)
    sender.sack(0, 2, 4)
    sender.resend(0.1)
    sender.sack(9, duplicates=(1001,))
    assert sender.recovery.reordering == 6
    for round_ in range(20):
        sender.send(100, 1.0)
        base = 10 + round_ * 100
        sender.sack(base, 2, 90, now=1.1)
        sender.resend(1.1)
        sender.sack(base + 99, now=1.2, duplicates=(1,))
    assert sender.recovery.reordering == 64


def test_a_timeout_loses_everything_and_doubles_the_wait():
    sender = Sender(3)
    sender.recovery.timed_out(1.0, probing=False)
    assert sender.recovery.timeout_at == 3.0
    assert sender.recovery.in_flight == 0
    assert sender.recovery.outstanding == 300
    assert sender.resend(1.0) == [0, 1, 2]


def test_the_second_timeout_in_a_row_forgets_runs_that_a_peer_may_have_taken_back():
    sender = Sender(6)
    sender.sack(0, 2, 2)
    sender.recovery.timed_out(1.0, probing=False)
    assert sender.resend(1.0) == [1, 3, 4, 5]
    sender.recovery.timed_out(3.0, probing=False)
    assert sender.resend(3.0) == [1, 2, 3, 4, 5]


def test_a_probe_repeats_the_last_packet_only():
    sender = Sender(5)
    sender.sack(0, now=0.05)
    assert sender.recovery.probe_at is not None
    sender.recovery.probe()
    assert sender.resend(0.2) == [4]
    sender.sack(0, 4, 4, now=0.25)
    assert sender.recovery.outstanding == 300
    sender.send(3, 0.3)
    sender.sack(0, 4, 7, now=0.4)
    assert sender.resend(0.4) == [1, 2, 3]


def test_round_trips_are_not_taken_from_retransmissions():
    sender = Sender(3)
    sender.recovery.timed_out(1.0, probing=False)
    sender.resend(1.0)
    sender.sack(2, now=1.0001)
    assert sender.recovery.rtt == 0.0


def test_the_timeout_follows_the_round_trip():
    sender = Sender(1)
    sender.sack(0, now=0.1)
    assert sender.recovery.rtt == pytest.approx(0.1)
    assert sender.recovery.rto == pytest.approx(0.3)


def test_acknowledging_what_was_never_sent_raises():
    with pytest.raises(ValueError, match="never sent"):
        Sender(3).sack(3)


def test_absurd_runs_are_ignored():
    sender = Sender(5)
    assert sender.sack(0, 5, 60_000, 4, 2, 0, 0) == 100
    assert sender.recovery.outstanding == 400


def test_runs_may_come_in_any_order():
    sender = Sender(10)
    sender.sack(0, 6, 7, 2, 3)
    sender.sack(0, 2, 7)
    sender.sack(9)
    assert sender.recovery.outstanding == 0
    assert sender.recovery.in_flight == 0


def test_the_cost_of_a_sack_does_not_grow_with_what_is_out():
    looked = 0

    class Counting(list):
        def __getitem__(self, place):
            nonlocal looked
            found = super().__getitem__(place)
            looked += len(found) if isinstance(place, slice) else 1
            return found

    sender = Sender(20_000)
    sender.recovery._records = Counting(sender.recovery._records)
    for last in range(3, 10_000):
        sender.sack(0, 2, last)
    assert looked < 7 * 10_000
