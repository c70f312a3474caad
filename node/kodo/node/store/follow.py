"""Followers of runs: each gets every event once and in order, from any offset, as fast as it takes them.

A follower has a position and nothing else: what it has not read lies in the log, so a slow one costs no memory and
holds up nobody. Those who are up to date share one short tail in memory and need no read of the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import msgpack

from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit
from kodo.p2p.core.callframe import packed_item
from kodo.protocol.events import Event, visible

__all__ = ["Batch", "Feed"]

_TAIL_BYTES = 1 << 20
"""What a followed run's shared tail holds of its latest commits, in bytes as packed."""

_BATCH = 512

_FEW = 8
"""Followers of a run that are woken at each commit. More wait a moment first, and get more at a time: what a message
costs is its own, not that of the events in it."""

_PAUSE_S = 0.0002
"""How long, for each of them."""

_MAX_PAUSE_S = 0.05


class Batch:
    """Events that follow each other in a run's log; iterating gives them. Encoded once for all who see the same."""

    __slots__ = ("_frames", "_packed", "events", "size")

    def __init__(self, events: list[Event], packed: list[bytes]):
        self.events = events
        self.size = sum(map(len, packed))
        self._packed = packed
        self._frames: dict[tuple[int, bool], bytes] = {}

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @property
    def first_seq(self) -> int:
        """The number of the first event."""
        return self.events[0].seq

    @property
    def last_seq(self) -> int:
        """The number of the last event."""
        return self.events[-1].seq

    def after(self, seq: int) -> Batch:
        """Return the part that comes after `seq`, which is not before the batch."""
        skip = seq + 1 - self.first_seq
        return Batch(self.events[skip:], self._packed[skip:]) if skip else self

    def until(self, seq: int) -> Batch | None:
        """Return the part up to `seq`, None when there is none."""
        keep = seq + 1 - self.first_seq
        if keep >= len(self.events):
            return self
        return Batch(self.events[:keep], self._packed[:keep]) if keep > 0 else None

    def frames(self, level: int, *, manages: bool = True) -> bytes:
        """Return the frames of the items that a reader of `level` may see; `manages` as for `visible`."""
        frames = self._frames.get((level, manages))
        if frames is None:
            found: list[bytes] = []
            for event, packed in zip(self.events, self._packed, strict=True):
                shown = visible(event, level, manages=manages)
                if shown is not None:
                    data = packed if shown is event else msgpack.packb(shown.data)
                    found.append(packed_item(event.pack_wire(data)))
            frames = self._frames[level, manages] = b"".join(found)
        return frames


@dataclass(slots=True)
class _Channel:
    """What the followers of one run share. `last_seq` and `over` are those of the log's end, once `known`."""

    followers: int = 0
    last_seq: int = 0
    over: bool = False
    known: bool = False
    deleted: Batch | None = None
    tail: deque[Batch] = field(default_factory=deque)
    tail_bytes: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    waking: asyncio.TimerHandle | None = None


class Feed:
    """Hands the events of a store to followers."""

    def __init__(self, store: Store):
        self._store = store
        self._channels: dict[str, _Channel] = {}
        store.subscribe(self._committed)

    @property
    def followed(self) -> int:
        """How many runs have followers."""
        return len(self._channels)

    async def follow(self, fid: str, after: int = 0, *, follow: bool = True) -> AsyncGenerator[Batch, None]:
        """Yield the events with `seq` > `after` in batches; with `follow`, until the run is over.

        A run that does not exist gives nothing. Use with `contextlib.aclosing`; cancelling is safe.
        """
        channel = self._channels.setdefault(fid, _Channel())
        channel.followers += 1
        try:
            if not channel.known and not await self._learn(fid, channel):
                return
            last = channel.last_seq if not follow else None
            while True:
                batch: Batch | None = None
                if channel.last_seq > after:
                    batch = _recent(channel, after) or await self._logged(fid, after)
                    if batch is None:
                        # The run was deleted meanwhile: a follower that was still reading is told.
                        if channel.deleted is not None:
                            yield channel.deleted
                        return
                    if last is not None:
                        batch = batch.until(last)
                if batch is not None:
                    after = batch.last_seq
                    yield batch
                elif last is not None or (channel.over and channel.last_seq <= after):
                    return
                else:
                    channel.woken.clear()
                    await channel.woken.wait()
        finally:
            channel.followers -= 1
            if not channel.followers:
                self._channels.pop(fid, None)

    async def _learn(self, fid: str, channel: _Channel) -> bool:
        """Learn the log's end. Commits that come in between have told the channel more than the row can."""
        row = await self._store.run(fid)
        if row is None:
            return False
        channel.last_seq = max(channel.last_seq, row.last_seq)
        channel.over = channel.over or row.state.over
        channel.known = True
        return True

    async def _logged(self, fid: str, after: int) -> Batch | None:
        events, packed = await self._store.packed_events(fid, after, limit=_BATCH)
        return Batch(events, packed) if events else None

    def _committed(self, commit: Commit) -> None:
        channel = self._channels.get(commit.fid)
        if channel is None:
            return
        batch = Batch(commit.events, commit.packed)
        channel.tail.append(batch)
        channel.tail_bytes += batch.size
        while channel.tail_bytes > _TAIL_BYTES:
            channel.tail_bytes -= channel.tail.popleft().size
        channel.last_seq = batch.last_seq
        channel.over = channel.over or commit.state.over
        if commit.events[-1].event == "delete":
            channel.deleted = batch
            channel.tail.clear()
            channel.tail_bytes = 0
        pause = min(channel.followers * _PAUSE_S, _MAX_PAUSE_S)
        if channel.followers <= _FEW:
            channel.woken.set()
        elif channel.waking is None:
            channel.waking = asyncio.get_running_loop().call_later(pause, _wake, channel)


def _wake(channel: _Channel) -> None:
    channel.waking = None
    channel.woken.set()


def _recent(channel: _Channel, after: int) -> Batch | None:
    """Return a batch out of the tail, None when only the database has it."""
    for batch in reversed(channel.tail):
        if batch.first_seq <= after + 1:
            return batch.after(after)
    return None
