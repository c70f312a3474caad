"""How far a stream of events may be ahead of its reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from kodo.node.answers.read_ahead import ReadAhead
from kodo.node.store.follow import Batch
from kodo.p2p.errors import CallError
from kodo.protocol.events import Event


class Reader:
    """Says how far it has read when the test does."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, seq: int) -> None:
        self.said.put_nowait(seq.to_bytes(8, "big"))

    async def uploads(self) -> AsyncIterator[bytes]:
        while (piece := await self.said.get()) is not None:
            yield piece

    def arrived(self) -> Iterator[bytes]:
        while not self.said.empty():
            piece = self.said.get_nowait()
            assert piece is not None
            yield piece


async def waits(window: ReadAhead, seq: int, size: int) -> asyncio.Task[None]:
    """Ask for room that is not there yet."""
    task = asyncio.ensure_future(window.room(seq, size))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_what_was_sent_waits_until_it_is_read() -> None:
    reader = Reader()
    window = ReadAhead(100, reader)
    await window.room(3, 60)
    await window.room(5, 40)
    task = await waits(window, 6, 40)
    reader.say(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done(), "of a part that was not read whole nothing counts"
    reader.say(3)
    await task


async def test_what_was_read_meanwhile_makes_room_without_waiting() -> None:
    reader = Reader()
    window = ReadAhead(100, reader)
    for seq in range(1, 50):
        await window.room(seq, 90)
        reader.say(seq)


async def test_one_part_that_is_larger_than_all_that_may_be_out_goes_alone() -> None:
    reader = Reader()
    window = ReadAhead(100, reader)
    await window.room(1, 1000)
    task = await waits(window, 2, 1)
    reader.say(1)
    await task


async def test_a_reader_that_ends_its_way_gets_the_rest() -> None:
    reader = Reader()
    window = ReadAhead(100, reader)
    await window.room(1, 100)
    task = await waits(window, 2, 100)
    reader.said.put_nowait(None)
    await task
    await window.room(3, 100)


async def test_what_says_something_else_is_refused() -> None:
    reader = Reader()
    window = ReadAhead(100, reader)
    reader.said.put_nowait(b"1")
    with pytest.raises(CallError) as refused:
        await window.room(1, 1)
    assert (refused.value.code, refused.value.reason) == (400, "bad-call")


def test_a_batch_is_cut_at_events_into_parts_that_fit() -> None:
    events = [Event(seq, 1, "process", "result", {}) for seq in range(1, 101)]
    sizes = [1 if seq % 10 else 300 for seq in range(1, 101)]
    batch = Batch(events, [bytes(size) for size in sizes])
    parts = list(ReadAhead(100, Reader()).parts(batch))
    assert [event.seq for part in parts for event in part.events] == list(range(1, 101))
    assert all(part.size <= 50 or len(part.events) == 1 for part in parts)
    assert len(parts) < 50
    assert list(ReadAhead(100_000, Reader()).parts(batch)) == [batch]
