"""Followers of runs: each gets every event once and in order, from any offset, as fast as it takes them.

A follower has a position and nothing else: what it has not read lies in the log, so a slow one costs no memory and
holds up nobody. Those who are up to date share one short tail in memory and need no read of the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from kodo.node.store import Store
from kodo.node.transaction import Commit
from kodo.protocol.events import Event

__all__ = ["Feed"]

_TAIL_BYTES = 1 << 20
"""What a followed run's shared tail holds of its latest commits, in bytes as packed."""

_BATCH = 512


@dataclass(slots=True)
class _Channel:
    """What the followers of one run share. `last_seq` and `over` are those of the log's end, once `known`."""

    followers: int = 0
    last_seq: int = 0
    over: bool = False
    known: bool = False
    deleted: Event | None = None
    tail: deque[tuple[list[Event], int]] = field(default_factory=deque)
    tail_bytes: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)


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

    async def follow(self, fid: str, after: int = 0, *, follow: bool = True) -> AsyncGenerator[list[Event], None]:
        """Give the events with `seq` > `after` in batches; with `follow`, until the run is over.

        A run that does not exist gives nothing. Use with `contextlib.aclosing`; cancelling is safe.
        """
        channel = self._channels.setdefault(fid, _Channel())
        channel.followers += 1
        try:
            if not channel.known and not await self._learn(fid, channel):
                return
            last = channel.last_seq if not follow else None
            while True:
                batch = self._recent(channel, after)
                if batch is None:
                    batch = await self._store.events(fid, after, limit=_BATCH)
                    if not batch:
                        # The run was deleted meanwhile: a follower that was still reading is told.
                        if channel.deleted is not None:
                            yield [channel.deleted]
                        return
                if last is not None:
                    batch = [event for event in batch if event.seq <= last]
                if batch:
                    after = batch[-1].seq
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

    def _recent(self, channel: _Channel, after: int) -> list[Event] | None:
        """Give a batch out of the tail, `[]` when there is nothing new, None when only the database has it."""
        if channel.last_seq <= after:
            return []
        for events, _ in reversed(channel.tail):
            if events[0].seq <= after + 1:
                batch: list[Event] = events[after + 1 - events[0].seq :]
                return batch
        return None

    def _committed(self, commit: Commit) -> None:
        channel = self._channels.get(commit.fid)
        if channel is None:
            return
        channel.tail.append((commit.events, commit.size))
        channel.tail_bytes += commit.size
        while channel.tail_bytes > _TAIL_BYTES:
            channel.tail_bytes -= channel.tail.popleft()[1]
        channel.last_seq = commit.events[-1].seq
        channel.over = channel.over or commit.state.over
        if commit.events[-1].event == "delete":
            channel.deleted = commit.events[-1]
            channel.tail.clear()
            channel.tail_bytes = 0
        channel.woken.set()
