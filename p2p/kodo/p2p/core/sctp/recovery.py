"""What was sent and is not acknowledged: which of it is lost, when to send it again, and how long a round trip takes.

Every transmission has an order number, one per packet. Once something is acknowledged, whatever was sent
`reordering` packets before it and is still out counts as lost: the same as three reports of a gap (RFC 9260, 7.2.4),
but for retransmissions too, and without looking at anything twice: transmissions stand in a queue by their order, and
a SACK only takes from its front. Each acknowledged record knows a later TSN up to which everything is acknowledged,
so that a run of a SACK is walked along once, however many SACKs repeat it (union-find with path compression).
Duplicates that the peer reports mean that the path reorders: then the limit rises.

When nothing comes back at all, the last packet is sent once more after two round trips (a probe, so that a SACK
shows what is missing), and again after twice as long (RFC 9002, 6.2); after the retransmission timeout T3 everything
counts as lost. The timeout is the smoothed round trip plus at least `rto_min`, which covers the 200 ms for which a
peer may delay a SACK; RFC 9260 would wait a whole second, too long for a call that waits for its answer.

Records stay until the cumulative acknowledgement passes them. A peer may take back what it had acknowledged in gaps;
after the second timeout in a row these acknowledgements are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from kodo.p2p.core.sctp.congestion import Controller, News

__all__ = ["Recovery", "Sent"]

_FLYING: Final = 0
_LOST: Final = 1
_ACKED: Final = 2
_PROBE_SLACK: Final = 0.03
"""Seconds that a peer may take to answer beside two round trips."""
_MAX_PROBE_DOUBLINGS: Final = 16
_MAX_REORDERING: Final = 64
_VAIN_TIMEOUTS: Final = 2
_VAIN_REPEATS: Final = 5
"""A tenth of all packets being lost, one in 100,000 is lost as often."""
_MAX_RUNS: Final = 1024
"""Runs of one SACK that are looked at; behind a packet's worth of them nobody needs more."""

_Stamp = tuple[float, int, float, float, bool]
"""When sent; what had been delivered then, and when the last of it was; when that had been sent; sender was idle."""


class Sent:
    """One DATA chunk that is out."""

    __slots__ = ("again", "chunk", "order", "size", "stamp", "state", "tsn", "unknown")

    def __init__(self, tsn: int, chunk: bytes, size: int, order: int, stamp: _Stamp) -> None:
        self.tsn = tsn
        self.chunk = chunk
        self.size = size
        self.order = order
        self.stamp = stamp
        self.state = _FLYING
        self.again = 0
        """How many times it was sent again."""
        self.unknown = tsn + 1
        """Once it is acknowledged: everything before this TSN and behind it is, too."""


class Recovery:
    """The records of all that is out. Sizes are payload bytes."""

    def __init__(
        self, first_tsn: int, controller: Controller, *, rto_initial: float, rto_min: float, rto_max: float
    ) -> None:
        self.next_tsn = first_tsn
        self.acknowledged = first_tsn - 1
        """The last TSN before the first that is out."""
        self.controller = controller
        self.in_flight = 0
        """Bytes out that do not count as lost."""
        self.outstanding = 0
        """Bytes out, lost ones too."""
        self.order = 0
        self.rtt = 0.0
        """Smoothed round trip time, seconds; 0.0 while unknown."""
        self.rto = rto_initial
        """The timeout as it stands, doubled by each failure, seconds."""
        self._calm_rto = self._rto_initial = rto_initial
        self.timeout_at: float | None = None
        self.probe_at: float | None = None
        self._probes = 0
        """Probes since anything was acknowledged; each waits twice as long as the one before."""
        self.failures = 0
        """Timeouts since anything was acknowledged."""
        self.reordering = 3
        self._rto_min = rto_min
        self._rto_max = rto_max
        self._variation = 0.0
        self._records: list[Sent] = []
        self._head = 0
        self._transmissions: deque[Sent] = deque()
        self._lost: deque[Sent] = deque()
        self._last_offsets: tuple[int, ...] = ()
        self._highest_order = -1
        self._newest: Sent | None = None
        self._delivered = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._idle = True
        self._stamp: _Stamp = (0.0, 0, 0.0, 0.0, True)
        self._retransmitted = False
        self.in_vain = False
        """Whether what `resend` gave last went so often, or amid such silence, that its size may be the cause."""

    # sending

    def begin(self, now: float) -> None:
        """Prepare for sending at `now`: everything sent until the next call shares one stamp."""
        if not self.in_flight:
            self._first_sent_at = self._delivered_at = now
        self._stamp = (now, self._delivered, self._delivered_at, self._first_sent_at, self._idle)

    def end(self, now: float, *, idle: bool) -> None:
        """Set the timers after sending; `idle` says that only a lack of data ended it."""
        self._idle = idle
        if self.timeout_at is None:
            self.timeout_at = now + self.rto
        self.look_soon(now)

    def look_soon(self, now: float) -> None:
        """Send the last packet once more if nothing comes back for two round trips."""
        if self.rtt:
            self.probe_at = now + (2 * self.rtt + _PROBE_SLACK) * 2.0 ** min(self._probes, _MAX_PROBE_DOUBLINGS)

    def sent(self, chunk: bytes, size: int) -> None:
        """Note that the chunk with `next_tsn` goes, in the packet number `order`."""
        record = Sent(self.next_tsn, chunk, size, self.order, self._stamp)
        self.next_tsn += 1
        self.in_flight += size
        self.outstanding += size
        self._records.append(record)
        self._transmissions.append(record)

    @property
    def silences(self) -> int:
        """How many times since the last acknowledgement one was waited for in vain."""
        return self._probes + self.failures

    @property
    def first_repeated(self) -> int:
        """Bytes of the first chunk that is out, which all others wait for; 0 if there is none or it was sent once."""
        if self._head >= len(self._records) or not self._records[self._head].again:
            return 0
        return len(self._records[self._head].chunk)

    @property
    def has_lost(self) -> bool:
        """Whether something is to be sent again."""
        lost = self._lost
        while lost and lost[0].state is not _LOST:
            lost.popleft()
        return bool(lost)

    def resend(self, room: int, *, alone: bool = False) -> bytes | None:
        """Return a lost chunk of at most `room` bytes that goes again now; None if there is none.

        `alone` says that a packet's whole room is meant: a chunk from before the path shrank goes then nevertheless.
        """
        if not self.has_lost or (len(self._lost[0].chunk) > room and not alone):
            return None
        record = self._lost.popleft()
        record.state = _FLYING
        record.again += 1
        self._retransmitted = True
        self.in_vain = self.failures >= _VAIN_TIMEOUTS or record.again >= _VAIN_REPEATS
        record.order = self.order
        record.stamp = self._stamp
        self.in_flight += record.size
        self._transmissions.append(record)
        return record.chunk

    # acknowledgements

    def acknowledge(self, tsn: int, offsets: tuple[int, ...], duplicates: Sequence[int], now: float) -> int:
        """Take a SACK that is not older than the last one; give the bytes it newly acknowledges.

        Args:
            tsn: the cumulative acknowledgement, unwrapped.
            offsets: runs behind it, as in `wire.parse_sack`.
            duplicates: TSNs that reached the peer more than once.

        Raises:
            ValueError: when it acknowledges what was never sent.
        """
        if tsn >= self.next_tsn:
            raise ValueError("a SACK acknowledges what was never sent")
        before = self.outstanding
        advanced = tsn > self.acknowledged
        if advanced:
            self._advance(tsn)
        if offsets and (advanced or offsets != self._last_offsets):
            self._take_runs(tsn, offsets)
        self._last_offsets = offsets
        acked = before - self.outstanding
        if duplicates and self._retransmitted and self.reordering < _MAX_REORDERING:
            self.reordering = min(self.reordering * 2, _MAX_REORDERING)
            self._retransmitted = False
        newest = self._newest
        if newest is None:
            return 0
        self._newest = None
        self.failures = self._probes = 0
        self.rto = self._calm_rto
        self._delivered += acked
        lost = self._detect_losses(now)
        self._sample(newest, acked, lost, now)
        if self.outstanding:
            self.timeout_at = now + self.rto
            self.look_soon(now)
        else:
            self.timeout_at = self.probe_at = None
        return acked

    def _advance(self, tsn: int) -> None:
        records, head = self._records, self._head
        end = head + tsn - self.acknowledged
        in_flight = outstanding = 0
        highest = self._highest_order
        for record in records[head:end]:
            state = record.state
            if state != _ACKED:
                size = record.size
                outstanding += size
                if state == _FLYING:
                    in_flight += size
                record.state = _ACKED
                if record.order >= highest:
                    highest = record.order
                    self._newest = record
                elif self._newest is None:
                    self._newest = record
        self._highest_order = highest
        self.in_flight -= in_flight
        self.outstanding -= outstanding
        self.acknowledged = tsn
        if end > 512 and end * 2 > len(records):
            del records[:end]
            end = 0
        self._head = end

    def _take_runs(self, tsn: int, offsets: tuple[int, ...]) -> None:
        """Acknowledge what the runs hold and was not acknowledged before."""
        records, base = self._records, self._head - self.acknowledged - 1
        for place in range(0, min(len(offsets) - 1, 2 * _MAX_RUNS), 2):
            first, last = tsn + offsets[place], tsn + offsets[place + 1]
            if first <= tsn or last >= self.next_tsn:
                continue
            while (first := self._skip_acknowledged(first)) <= last:
                record = records[base + first]
                if record.state == _FLYING:
                    self.in_flight -= record.size
                self.outstanding -= record.size
                record.state = _ACKED
                record.unknown = first + 1
                if record.order >= self._highest_order:
                    self._highest_order = record.order
                    self._newest = record
                elif self._newest is None:
                    self._newest = record

    def _skip_acknowledged(self, tsn: int) -> int:
        """Return the first TSN from `tsn` on that is not acknowledged."""
        records, base = self._records, self._head - self.acknowledged - 1
        passed: list[Sent] = []
        while tsn < self.next_tsn and (record := records[base + tsn]).state == _ACKED:
            passed.append(record)
            tsn = record.unknown
        for record in passed:
            record.unknown = tsn
        return tsn

    def _detect_losses(self, now: float) -> int:
        limit = self._highest_order - self.reordering
        transmissions = self._transmissions
        lost = 0
        while transmissions:
            record = transmissions[0]
            if record.state == _FLYING:
                if record.order > limit:
                    break
                record.state = _LOST
                self.in_flight -= record.size
                lost += record.size
                self._lost.append(record)
            transmissions.popleft()
        return lost

    def _sample(self, newest: Sent, acked: int, lost: int, now: float) -> None:
        sent_at, delivered, delivered_at, first_sent_at, idle = newest.stamp
        rtt = 0.0
        if not newest.again:
            rtt = max(now - sent_at, 1e-6)
            self.measured(rtt)
        interval = max(sent_at - first_sent_at, now - delivered_at)
        self._first_sent_at = sent_at
        self._delivered_at = now
        rate = (self._delivered - delivered) / interval if interval > 0 else 0.0
        news = News(acked, lost, rate, idle, rtt, self.in_flight, self._delivered, delivered)
        self.controller.acknowledged(now, news)

    def measured(self, rtt: float) -> None:
        """Take a round trip time, seconds (RFC 9260, 6.3.1)."""
        if not self.rtt:
            self.rtt, self._variation = rtt, rtt / 2
        else:
            self._variation += (abs(self.rtt - rtt) - self._variation) / 4
            self.rtt += (rtt - self.rtt) / 8
        self.rto = self._calm_rto = min(self.rtt + max(4 * self._variation, self._rto_min), self._rto_max)

    # timers

    def probe(self) -> None:
        """Send the last packet once more, so that the peer says what is missing."""
        self.probe_at = None
        self._probes += 1
        while self._transmissions and self._transmissions[-1].state != _FLYING:
            self._transmissions.pop()
        if self._transmissions and not self._lost:
            record = self._transmissions.pop()
            record.state = _LOST
            self.in_flight -= record.size
            self._lost.append(record)

    def dropped(self) -> None:
        """Note that the peer answers and its window is closed: the path carried what it dropped."""
        self.failures = 0
        if self._head < len(self._records):
            first = self._records[self._head]
            first.again = min(first.again, 1)

    def timed_out(self, now: float, *, probing: bool) -> None:
        """Take the end of T3; `probing` says that the peer's window is closed, so nothing is wrong with the path."""
        self.failures += 1
        self.rto = min(self.rto * 2, self._rto_max)
        self.timeout_at = now + self.rto
        self.probe_at = None
        if not probing:
            self.controller.timed_out(now)
        if self.failures > 1:
            self._last_offsets = ()
        self._transmissions.clear()
        self._lost.clear()
        self.in_flight = 0
        for record in self._records[self._head :]:
            if record.state == _ACKED:
                if self.failures == 1:
                    continue
                self.outstanding += record.size
            record.state = _LOST
            self._lost.append(record)

    def change_path(self, now: float) -> None:
        """Begin anew on another path: what is out was sent on the old one and counts as lost."""
        self.lose_all()
        self.controller.restart()
        self.rtt = 0.0
        # The old path is the best guess of what the new one takes; twice as long, for it is a guess.
        self.rto = self._calm_rto = min(2 * self._calm_rto, self._rto_initial)
        self.failures = self._probes = 0
        self.probe_at = None
        if self.timeout_at is not None:
            self.timeout_at = now + self.rto

    def lose_all(self) -> None:
        """Count everything that is out as lost; costs what flies, so a peer cannot make it cost anything twice."""
        flying = [record for record in self._transmissions if record.state == _FLYING]
        for record in flying:
            record.state = _LOST
        self._transmissions.clear()
        self.in_flight = 0
        flying.sort(key=lambda record: record.tsn)
        # The first that the peer misses goes first, for it may take no other.
        if self.has_lost and flying and flying[0].tsn > self._lost[0].tsn:
            self._lost.extend(flying)
        else:
            self._lost.extendleft(reversed(flying))
