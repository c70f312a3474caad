"""Followers: every event once and in order, from any offset, at any speed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from kodo.node.store.follow import Feed
from kodo.node.store.rows import NewEvent
from kodo.node.store.store import Store
from kodo.p2p.core.callframe import FrameReader, encode_frame, item
from kodo.protocol.events import visible
from tests.unit.node.conftest import FIRST, fid_of, logs, new_run, settled

FID = fid_of(1)
FINAL = NewEvent.make("final", {"result": None}, 10_001)


async def taken(feed: Feed, after: int = 0, *, follow: bool = True, turns: int = 0) -> list[int]:
    """Follow to the end; give up the turn `turns` times after each batch."""
    found: list[int] = []
    async with contextlib.aclosing(feed.follow(FID, after, follow=follow)) as batches:
        async for batch in batches:
            found += [event.seq for event in batch]
            for _ in range(turns):
                await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("after", [0, 1, 3, 4, 500, 1003, 1004, 2000])
async def test_a_finished_run_is_read_from_any_offset(store: Store, after: int) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    await store.append(FID, [*logs(1, 1000), FINAL])
    assert await taken(feed, after) == list(range(after + 1, 1005))
    assert feed.followed == 0


async def test_followers_of_all_speeds_get_everything_once_and_in_order(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(taken(feed, n % 3, turns=n * 7)) for n in range(12)]
        for start in range(1, 2001, 50):
            await store.append(FID, logs(start, start + 49))
            if start % 500 == 1:
                followers.append(group.create_task(taken(feed, start)))
        await store.append(FID, [FINAL])
    for number, follower in enumerate(followers):
        found = follower.result()
        assert found == list(range(found[0], 2005)), number
        assert len(found) > 1
    assert [follower.result()[0] for follower in followers[:3]] == [1, 2, 3]


async def test_a_follower_that_is_up_to_date_is_woken_by_the_next_event(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    found: list[int] = []

    async def follow() -> None:
        async with contextlib.aclosing(feed.follow(FID, 3)) as batches:
            async for batch in batches:
                found.extend(event.seq for event in batch)

    task = asyncio.create_task(follow())
    await store.append(FID, logs(1, 1))
    await settled(lambda: found == [4])
    await store.append(FID, logs(2, 2))
    await settled(lambda: found == [4, 5])
    await store.append(FID, [FINAL])
    await task


async def test_an_up_to_date_follower_reads_no_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    found: list[int] = []

    async def follow() -> None:
        async with contextlib.aclosing(feed.follow(FID)) as batches:
            async for batch in batches:
                found.extend(event.seq for event in batch)

    task = asyncio.create_task(follow())
    await settled(lambda: found == [1, 2, 3])
    monkeypatch.setattr(store, "events", None)
    monkeypatch.setattr(store, "run", None)
    for number in range(1, 40):
        await store.append(FID, logs(number, number))
    await store.append(FID, [FINAL])
    await task
    assert found == list(range(1, 44))


async def test_large_events_do_not_stay_in_memory(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    batches = feed.follow(FID)
    await anext(batches)
    for number in range(1, 21):
        await store.append(FID, [NewEvent.make("log", {"text": "x" * 200_000}, number)])
    channel = feed._channels[FID]
    assert channel.tail_bytes <= 1 << 20
    assert len(channel.tail) <= 6
    await store.append(FID, [FINAL])
    rest = [event.seq async for batch in batches for event in batch]
    assert rest == list(range(4, 25))


async def test_without_following_the_log_is_read_to_its_end(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    assert await taken(feed, follow=False) == [1, 2, 3]
    assert await taken(feed, 3, follow=False) == []


async def test_a_run_that_is_not_there_has_no_events(store: Store) -> None:
    assert await taken(Feed(store)) == []


async def test_a_follower_that_goes_away_leaves_nothing_behind(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    task = asyncio.create_task(taken(feed))
    await settled(lambda: feed.followed)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert feed.followed == 0


async def test_events_are_encoded_once_for_all_who_see_the_same(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    trace = {"type": "E", "message": "m", "where": "w", "traceback": "secret"}
    said = [*logs(1, 20), NewEvent.make("result", {"n": 1.5}, 21), NewEvent.make("fatal", trace, 22)]
    async with contextlib.aclosing(feed.follow(FID)) as one, contextlib.aclosing(feed.follow(FID, 2)) as other:
        assert (await anext(one)).last_seq == (await anext(other)).last_seq == 3
        await store.append(FID, said)
        batch = await anext(one)
        assert batch is await anext(other)
    stored = Feed(store)
    async with contextlib.aclosing(stored.follow(FID, 3)) as batches:
        read = await anext(batches)
    for level in (0, 1, 2):
        shown = [event for event in (visible(event, level) for event in batch) if event is not None]
        frames = b"".join(encode_frame(item(event.to_wire())) for event in shown)
        assert batch.frames(level) == read.frames(level) == frames
        assert batch.frames(level) is batch.frames(level)
        assert (b"secret" in frames) == (level == 2)


async def test_a_follower_in_the_middle_of_a_commit_gets_the_rest_of_it(store: Store) -> None:
    feed = Feed(store)
    await store.create(new_run(), FIRST)
    async with contextlib.aclosing(feed.follow(FID)) as batches:
        await anext(batches)
        await store.append(FID, logs(1, 10))
        async with contextlib.aclosing(feed.follow(FID, 8)) as late:
            rest = await anext(late)
        assert [event.seq for event in rest] == [9, 10, 11, 12, 13]
        items = [frame["item"]["seq"] for frame in FrameReader().feed(rest.frames(2))]
        assert items == [9, 10, 11, 12, 13]
        async with contextlib.aclosing(feed.follow(FID, 3, follow=False)) as known:
            await store.append(FID, logs(11, 12))
            assert [event.seq async for batch in known for event in batch] in (list(range(4, 14)), list(range(4, 16)))
