"""What has arrived: which TSNs, and the messages put together from them, per stream.

Ordered messages of a stream come out by their stream sequence number, whatever is missing on other streams; that is
why a loss on one channel never holds up another. A stream keeps the message that is being put together as a list of
its fragments so far and the TSN that continues it; what comes too early is kept by TSN until its turn. Each fragment
is touched a fixed number of times. Unordered messages come out when their run of TSNs is whole; runs are known by
both their ends, so joining two is one step.

TSNs are counted without wrapping here (see `Received.unwrap`); stream sequence numbers are not, because they wrap
with at most a window's worth of messages under way.

What is kept is charged: bytes, and `CHUNK_COST` for each fragment, so that a peer cannot make this side keep a
million tiny ones; the association closes its window by it.

Source: RFC 9260, 6.5, 6.6, 6.7, 6.9.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from kodo.p2p.core.sctp.wire import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED

__all__ = ["CHUNK_COST", "MAX_AHEAD", "MAX_RUNS", "Message", "Reassembly", "Received"]

CHUNK_COST: Final = 128
"""Bytes that keeping one more fragment or message is taken to cost beside its payload."""
MAX_AHEAD: Final = 0xFFFF
"""TSNs behind the first gap that a SACK can speak of."""
MAX_RUNS: Final = 1024
"""Runs of TSNs that are told apart behind the first gap: three times what a SACK can speak of. What would begin one
more is left to be sent again, as if the network had lost it."""
_MAX_DUPLICATES: Final = 16

Message = tuple[int, int, bytes]
"""Stream, payload protocol, data."""


class Received:
    """The TSNs that have arrived. `first` is the peer's first TSN."""

    __slots__ = ("duplicates", "gaps", "last")

    def __init__(self, first: int) -> None:
        # One cycle up, so that nothing before the first TSN is negative.
        self.last = first + (1 << 32) - 1
        """The last TSN before the first gap."""
        self.gaps: list[list[int]] = []
        """First and last TSN of each run behind the first gap, ascending."""
        self.duplicates: list[int] = []
        """What came again since the last SACK; the first few."""

    def unwrap(self, tsn: int) -> int:
        """Return the TSN nearest to the last one that has these low 32 bits."""
        return self.last + ((tsn - self.last + 0x80000000) & 0xFFFFFFFF) - 0x80000000

    def fills_gap(self, tsn: int) -> bool:
        """Return whether something later has arrived already."""
        return bool(self.gaps) and tsn < self.gaps[-1][1]

    def add(self, tsn: int) -> bool:
        """Note an arrival; False if it had arrived before (it is noted as a duplicate then) or is not taken."""
        last, gaps = self.last, self.gaps
        if tsn == last + 1:
            if gaps and gaps[0][0] == tsn + 1:
                self.last = gaps.pop(0)[1]
            else:
                self.last = tsn
            return True
        if tsn > last:
            if not gaps or tsn > gaps[-1][1] + 1:
                if len(gaps) >= MAX_RUNS:
                    return False
                gaps.append([tsn, tsn])
                return True
            if tsn == gaps[-1][1] + 1:
                gaps[-1][1] = tsn
                return True
            index = bisect_left(gaps, [tsn + 1])
            # The run before may hold or touch it, the run at `index` begins behind it.
            before = gaps[index - 1] if index else None
            if before is None or before[1] < tsn:
                after = gaps[index] if index < len(gaps) else None
                joins_before = before is not None and before[1] == tsn - 1
                joins_after = after is not None and after[0] == tsn + 1
                if joins_before and joins_after:
                    gaps[index - 1][1] = gaps.pop(index)[1]
                elif joins_before:
                    gaps[index - 1][1] = tsn
                elif joins_after:
                    gaps[index][0] = tsn
                elif len(gaps) >= MAX_RUNS:
                    return False
                else:
                    gaps.insert(index, [tsn, tsn])
                return True
        if len(self.duplicates) < _MAX_DUPLICATES:
            self.duplicates.append(tsn)
        return False


class _Stream:
    """What one inbound stream keeps."""

    __slots__ = ("begins", "kept", "loose", "next_tsn", "parts", "protocol", "sequence", "size")

    def __init__(self) -> None:
        self.sequence = 0
        """The stream sequence number that comes out next."""
        self.parts: list[bytes] = []
        """The message with that number as far as it is there from its beginning."""
        self.size = 0
        self.protocol = 0
        self.next_tsn = -1
        """The TSN that continues it; -1 while there is none."""
        self.kept: dict[int, tuple[int, int, int, bytes]] = {}
        """Ordered fragments whose turn has not come: TSN → flags, sequence number, protocol, payload."""
        self.begins: dict[int, int] = {}
        """Sequence number → TSN of the first fragment among them."""
        self.loose: _Loose | None = None


class _Loose:
    """The unordered fragments of one stream; a run is known by the TSNs of both its ends."""

    __slots__ = ("fragments", "run_first", "run_last")

    def __init__(self) -> None:
        self.fragments: dict[int, tuple[int, int, bytes]] = {}
        self.run_last: dict[int, int] = {}
        self.run_first: dict[int, int] = {}


class Reassembly:
    """Puts messages together.

    Args:
        max_message: bytes of one message.
        max_streams: streams that have carried something and were not reset since.
    """

    __slots__ = ("_max_message", "_max_streams", "_streams", "held")

    def __init__(self, max_message: int, max_streams: int) -> None:
        self._max_message = max_message
        self._max_streams = max_streams
        self._streams: dict[int, _Stream] = {}
        self.held = 0
        """What is kept, in bytes, `CHUNK_COST` for each fragment included."""

    def add(
        self, tsn: int, flags: int, stream_id: int, sequence: int, protocol: int, data: bytes, out: list[Message]
    ) -> None:
        """Take a fragment that arrived for the first time; append to `out` what came out because of it.

        Raises:
            ValueError: when it breaks a rule: a message too long or begun twice, too many streams.
        """
        if flags & 7 == 7:  # whole and unordered
            out.append((stream_id, protocol, data))
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if len(self._streams) >= self._max_streams:
                raise ValueError("too many streams are in use")
            stream = self._streams[stream_id] = _Stream()
        if flags & FLAG_UNORDERED:
            self._add_loose(stream, tsn, flags, stream_id, protocol, data, out)
            return
        if tsn == stream.next_tsn:
            if flags & FLAG_BEGIN or sequence != stream.sequence:
                raise ValueError("a message begins inside another")
        elif sequence == stream.sequence and flags & FLAG_BEGIN:
            if stream.next_tsn >= 0:
                raise ValueError("a message begins twice")
            if flags & FLAG_END and not stream.kept:
                stream.sequence = (sequence + 1) & 0xFFFF
                out.append((stream_id, protocol, data))
                return
            stream.protocol = protocol
        else:
            stream.kept[tsn] = (flags, sequence, protocol, data)
            self.held += len(data) + CHUNK_COST
            if flags & FLAG_BEGIN:
                if sequence in stream.begins:
                    raise ValueError("a message begins twice")
                stream.begins[sequence] = tsn
            return
        self._continue(stream, tsn, flags, stream_id, data, out)

    def _continue(
        self, stream: _Stream, tsn: int, flags: int, stream_id: int, data: bytes, out: list[Message]
    ) -> None:
        """Append to the message at the head, and then whatever is kept and follows."""
        while True:
            stream.size += len(data)
            if stream.size > self._max_message:
                raise ValueError("a message is too long")
            if flags & FLAG_END:
                if stream.parts:
                    self.held -= stream.size - len(data) + CHUNK_COST * len(stream.parts)
                    stream.parts.append(data)
                    data = b"".join(stream.parts)
                    stream.parts.clear()
                out.append((stream_id, stream.protocol, data))
                stream.size = 0
                stream.next_tsn = -1
                stream.sequence = (stream.sequence + 1) & 0xFFFF
                if not stream.begins or (first := stream.begins.pop(stream.sequence, None)) is None:
                    return
                tsn = first
                stream.protocol = stream.kept[tsn][2]
            else:
                stream.parts.append(data)
                self.held += len(data) + CHUNK_COST
                tsn += 1
                stream.next_tsn = tsn
                if not stream.kept or (kept := stream.kept.get(tsn)) is None:
                    return
                if kept[0] & FLAG_BEGIN or kept[1] != stream.sequence:
                    raise ValueError("a message begins inside another")
            flags, _, _, data = stream.kept.pop(tsn)
            self.held -= len(data) + CHUNK_COST

    def _add_loose(
        self, stream: _Stream, tsn: int, flags: int, stream_id: int, protocol: int, data: bytes, out: list[Message]
    ) -> None:
        loose = stream.loose
        if loose is None:
            loose = stream.loose = _Loose()
        fragments = loose.fragments
        fragments[tsn] = (flags, protocol, data)
        self.held += len(data) + CHUNK_COST
        first = last = tsn
        if not flags & FLAG_BEGIN and tsn - 1 in loose.run_first and not fragments[tsn - 1][0] & FLAG_END:
            first = loose.run_first.pop(tsn - 1)
        if not flags & FLAG_END and tsn + 1 in loose.run_last and not fragments[tsn + 1][0] & FLAG_BEGIN:
            last = loose.run_last.pop(tsn + 1)
        loose.run_last[first] = last
        loose.run_first[last] = first
        if last - first > self._max_message:
            raise ValueError("a message is too long")
        if fragments[first][0] & FLAG_BEGIN and fragments[last][0] & FLAG_END:
            del loose.run_last[first], loose.run_first[last]
            protocol = fragments[first][1]
            parts = [fragments.pop(number)[2] for number in range(first, last + 1)]
            message = b"".join(parts)
            self.held -= len(message) + CHUNK_COST * len(parts)
            if len(message) > self._max_message:
                raise ValueError("a message is too long")
            out.append((stream_id, protocol, message))

    def reset(self, stream_id: int) -> None:
        """Begin a stream anew; what it still kept is thrown away."""
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        kept = [data for _, _, _, data in stream.kept.values()] + stream.parts
        if stream.loose is not None:
            kept += [data for _, _, data in stream.loose.fragments.values()]
        self.held -= sum(map(len, kept)) + CHUNK_COST * len(kept)

    @property
    def streams(self) -> list[int]:
        """The streams that have carried something and were not reset since."""
        return list(self._streams)
