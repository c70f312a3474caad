"""How much may be out, and how fast it may go: congestion control behind one small interface.

`RateController` knows what the path gives it per second (the highest delivery rate of the last few round trips) and
what a round trip takes when no queue stands (the shortest of the last seconds). In flight it keeps their product, a
little more, and an amount that does not grow with its rate but with the root of it. Where a queue stands, that
makes flows equal: each one's window settles at `extra / (1 - GAIN * shortest / rtt)`, the same for all that see the
same queue (the argument of FAST TCP). A loss alone says nothing (radio loses packets that no queue has dropped); a
loss while the round trip is longer than the shortest says that the queue is full, and the window shrinks until it is
not. Every few seconds it lets go of most of what it keeps, so that all flows see the round trip without a queue. On
paths of under two milliseconds rate and round trip are those of two event loops, not of a network: no pacing there,
and a window of a fixed least size that halves gently on loss.

`Cubic` is what TCP does, for reference and comparison.

Source: N. Cardwell et al., "BBR: Congestion-Based Congestion Control" (rate, start, drained round trips); C. Jin et
al., "FAST TCP: Motivation, Architecture, Algorithms, Performance"; RFC 9438.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import sqrt
from typing import Final, NamedTuple, Protocol

__all__ = ["Controller", "Cubic", "News", "RateController"]

INITIAL_WINDOW: Final = 64 << 10
"""Bytes; RFC 6928's ten segments are for paths of which nothing is known; here is a handshake's round trip."""
LOCAL_RTT: Final = 0.002
LOCAL_WINDOW: Final = 256 << 10
LOCAL_WINDOW_LEAST: Final = 48 << 10
LOCAL_WINDOW_MOST: Final = 1 << 20
RATE_ROUNDS: Final = 4
RTT_SECONDS: Final = 5.0
HEAVY_LOSS: Final = 0.1
QUEUE_LOSS: Final = 0.005
"""Share of a round trip's bytes above which a loss while a queue stands is the queue's."""
_STARTUP_GAIN: Final = 2.885
_GAIN: Final = 1.2
_PACING_GAIN: Final = 1.25
_EXTRA_PACKETS: Final = 16
_EXTRA_ROOTS: Final = 2.0
_CUT: Final = 0.75
_REGROWTH: Final = 0.05
_LEAST_SHARE: Final = 0.5
_DRAIN_SECONDS: Final = 0.2


class News(NamedTuple):
    """What one SACK tells.

    Attributes:
        acked: bytes newly acknowledged.
        lost: bytes that newly count as lost.
        rate: bytes per second delivered between the sending of the newest acknowledged packet and now.
        idle: the sender had nothing more to send then, so the path may carry more.
        rtt: round trip time in seconds; 0.0 if the SACK gives none.
        in_flight: bytes still out.
        delivered: bytes acknowledged since the beginning.
        delivered_before: the same when that packet was sent.
    """

    acked: int
    lost: int
    rate: float
    idle: bool
    rtt: float
    in_flight: int
    delivered: int
    delivered_before: int


class Controller(Protocol):
    """What the association asks of a congestion control."""

    mtu: int
    """Bytes of a packet; the association sets it."""
    window: int
    """Bytes that may be out."""
    pacing: float
    """Bytes per second at which packets go; 0.0 for as they come."""

    def acknowledged(self, now: float, news: News) -> None:
        """Take the news of one SACK."""
        ...

    def timed_out(self, now: float) -> None:
        """Take a retransmission timeout."""
        ...

    def restart(self) -> None:
        """Forget the path: packets take another one from now on."""
        ...


class _Mode(Enum):
    STARTUP = 1
    DRAIN = 2
    CRUISE = 3
    PROBE_RTT = 4


class RateController:
    """Delivery rate times shortest round trip. `mtu` is a packet's bytes."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.restart()

    def restart(self) -> None:
        """See `Controller`."""
        self.window = INITIAL_WINDOW
        self.pacing = 0.0
        self._mode = _Mode.STARTUP
        self._rates: deque[float] = deque(maxlen=RATE_ROUNDS)
        self._round_rate = 0.0
        self._rate = 0.0
        self._round_ends = 0
        self._round_acked = 0
        self._round_lost = 0
        self._full_rate = 0.0
        self._full_rounds = 0
        self._shortest = 0.0
        self._shortest_at = 0.0
        self._share = 1.0
        self._round_rtt = 0.0
        self._probe_until = 0.0
        self._local_window = LOCAL_WINDOW
        self._local_full = False
        """Whether a loss has shown how much the peer's socket holds."""
        self._timed_out = False

    @property
    def _least(self) -> int:
        return 4 * self.mtu

    @property
    def _burst(self) -> int:
        return 16 * self.mtu

    @property
    def rate(self) -> float:
        """What the path is thought to carry, bytes per second."""
        return self._rate

    def acknowledged(self, now: float, news: News) -> None:
        """See `Controller`."""
        acked, lost, rate, idle, rtt, in_flight, delivered, delivered_before = news
        self._timed_out = False
        self._round_acked += acked
        self._round_lost += lost
        expired = self._shortest > 0 and now - self._shortest_at > RTT_SECONDS
        if rtt and (not self._shortest or rtt <= self._shortest or expired):
            self._shortest, self._shortest_at = rtt, now
        if rtt and (not self._round_rtt or rtt < self._round_rtt):
            self._round_rtt = rtt
        if rate > self._round_rate and (not idle or rate > self._rate):
            self._round_rate = rate
            if rate > self._rate:
                self._rate = rate
        if delivered_before >= self._round_ends:
            self._round_ends = delivered
            self._end_round(idle)
        bandwidth_delay = self._rate * self._shortest
        self._move(now, in_flight, bandwidth_delay, expired)
        self._set(bandwidth_delay)

    def _end_round(self, idle: bool) -> None:
        if self._round_rate:
            self._rates.append(self._round_rate)
            self._rate = max(self._rates)
        self._round_rate = 0.0
        total = self._round_acked + self._round_lost
        heavy = self._round_lost > 8 * self._least // 4 and self._round_lost > HEAVY_LOSS * total
        # Where no queue stands, the path itself has lost it.
        queue = self._round_rtt > 1.05 * self._shortest + 0.001
        if queue and self._round_lost > QUEUE_LOSS * total + 2 * self.mtu:
            self._share = max(_LEAST_SHARE, self._share * _CUT)
        else:
            self._share = min(1.0, self._share + _REGROWTH)
        self._round_rtt = 0.0
        if self._round_lost:
            self._local_window = max(LOCAL_WINDOW_LEAST, int(self._local_window * 0.8))
            self._local_full = True
        elif not idle:
            # Near what the peer's socket holds every burst more is lost.
            step = self.mtu if self._local_full else self._burst
            self._local_window = min(LOCAL_WINDOW_MOST, self._local_window + step)
        self._round_acked = self._round_lost = 0
        if self._mode is _Mode.STARTUP and not idle:
            if self._rate >= 1.25 * self._full_rate and not heavy:
                self._full_rate, self._full_rounds = self._rate, 0
            else:
                self._full_rounds += 1
                if self._full_rounds >= 3 or heavy:
                    self._mode = _Mode.DRAIN
        elif heavy and self._mode is _Mode.CRUISE:
            # Beyond what radio loses: somebody's queue is full.
            kept = [rate * 0.9 for rate in self._rates]
            self._rates.clear()
            self._rates.extend(kept)
            self._rate = max(self._rates, default=0.0)

    def _move(self, now: float, in_flight: int, bandwidth_delay: float, expired: bool) -> None:
        mode = self._mode
        if mode is _Mode.DRAIN and in_flight <= bandwidth_delay:
            self._mode = _Mode.CRUISE
        elif mode is _Mode.CRUISE and expired:
            self._mode = _Mode.PROBE_RTT
            self._probe_until = now + max(_DRAIN_SECONDS, self._shortest)
        elif mode is _Mode.PROBE_RTT and now >= self._probe_until:
            self._shortest_at = now
            self._mode = _Mode.CRUISE

    def _set(self, bandwidth_delay: float) -> None:
        mode = self._mode
        if self._shortest < LOCAL_RTT:
            self.pacing = 0.0
            self.window = max(int(2 * bandwidth_delay) + self._burst, self._local_window)
            return
        extra = float(self._burst)
        if mode is _Mode.STARTUP:
            gain = window_gain = _STARTUP_GAIN
        elif mode is _Mode.DRAIN:
            gain, window_gain = 1 / _STARTUP_GAIN, 2.0
        elif mode is _Mode.PROBE_RTT:
            gain, window_gain, extra = 1.0, 0.5, float(self._least)
        else:
            gain, window_gain = _PACING_GAIN, _GAIN * self._share
            extra = self._share * max(_EXTRA_PACKETS * self.mtu, _EXTRA_ROOTS * sqrt(bandwidth_delay * self.mtu))
        # In the beginning little may be known because little was sent.
        unproven = INITIAL_WINDOW if mode is _Mode.STARTUP else self._least
        self.pacing = max(gain * self._rate, unproven / self._shortest)
        self.window = max(int(window_gain * bandwidth_delay + extra), unproven)

    def timed_out(self, now: float) -> None:
        """See `Controller`."""
        # What was known about the path may be wrong by now; the next SACK says how much of it still holds.
        self.window = self._least
        self._local_window = max(LOCAL_WINDOW_LEAST, self._local_window // 2)
        if self._timed_out:
            self._rates.clear()
            self._rate *= 0.5
        self._timed_out = True


class Cubic:
    """TCP's: slow start, then a window that follows a cubic function of the time since the last loss."""

    _SCALE: Final = 0.4
    _BETA: Final = 0.7

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.restart()

    def restart(self) -> None:
        """See `Controller`."""
        self.window = 10 * self.mtu
        self.pacing = 0.0
        self._threshold = float("inf")
        self._highest = 0.0
        self._epoch = 0.0
        self._rtt = 0.1
        self._recovered_at = 0

    def acknowledged(self, now: float, news: News) -> None:
        """See `Controller`."""
        if news.rtt:
            self._rtt += (news.rtt - self._rtt) / 8
        if news.lost:
            if news.delivered >= self._recovered_at:  # one reduction for all that was out together
                self._recovered_at = news.delivered + news.in_flight
                self._highest = self.window / self.mtu
                self.window = max(int(self.window * self._BETA), 2 * self.mtu)
                self._threshold = self.window
                self._epoch = now
            return
        if news.idle:
            return
        if self.window < self._threshold:
            self.window += news.acked
            return
        period = (self._highest * (1 - self._BETA) / self._SCALE) ** (1 / 3)
        target = self._SCALE * (now - self._epoch + self._rtt - period) ** 3 + self._highest
        segments = self.window / self.mtu
        growth = max(target - segments, 0.01 * segments) / segments
        self.window += int(min(growth, 0.5) * news.acked)

    def timed_out(self, now: float) -> None:
        """See `Controller`."""
        self._threshold = max(self.window * self._BETA, 2 * self.mtu)
        self._highest = self.window / self.mtu
        self.window = 2 * self.mtu
        self._epoch = now
