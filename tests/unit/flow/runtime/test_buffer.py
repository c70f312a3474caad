"""The buffer between a flow's threads and the node's polls."""

import asyncio
import threading

import msgpack
import pytest

from kodo.flow._runtime import buffer as module
from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.p2p.errors import CapacityError


def fill(buffer: EventBuffer, count: int, first: int = 1) -> None:
    for number in range(first, first + count):
        buffer.put(pack_event("result", {"n": number}))


async def numbers(buffer: EventBuffer, after: int, timeout: float = 0.0) -> tuple[int, list[int]]:
    first, events, _ = msgpack.unpackb(await buffer.poll(after, timeout))
    return first, [msgpack.unpackb(data)["n"] for _, data in events]


async def test_events_are_numbered_kept_until_named_and_then_forgotten():
    buffer = EventBuffer()
    fill(buffer, 4)
    assert await numbers(buffer, 0) == (1, [1, 2, 3, 4])
    assert await numbers(buffer, 0) == (1, [1, 2, 3, 4])
    assert await numbers(buffer, 3) == (4, [4])
    assert await numbers(buffer, 4) == (5, [])
    fill(buffer, 1, 5)
    assert await numbers(buffer, 4) == (5, [5])


async def test_a_poll_is_woken_by_an_event_from_another_thread():
    buffer = EventBuffer()
    waiting = asyncio.ensure_future(numbers(buffer, 0, 30.0))
    await asyncio.sleep(0)
    threading.Thread(target=fill, args=(buffer, 1)).start()
    assert await waiting == (1, [1])


async def test_a_newer_poll_ends_an_older_one():
    buffer = EventBuffer()
    older = asyncio.ensure_future(numbers(buffer, 0, 30.0))
    await asyncio.sleep(0)
    newer = asyncio.ensure_future(numbers(buffer, 0, 30.0))
    assert await older == (1, [])
    fill(buffer, 1)
    assert await newer == (1, [1])


async def test_batches_stay_below_what_ray_answers_inline():
    buffer = EventBuffer()
    for _ in range(20):
        buffer.put(pack_event("result", {"n": 0, "text": "x" * 20_000}))
    after = 0
    sizes = []
    while after < 20:
        batch = await buffer.poll(after, 0)
        sizes.append(len(batch))
        after += len(msgpack.unpackb(batch)[1])
    assert after == 20
    assert max(sizes) < 100 * 1024


async def test_a_full_buffer_blocks_the_thread_that_makes_events_until_there_is_room(monkeypatch):
    monkeypatch.setattr(module, "MAX_EVENTS", 10)
    buffer = EventBuffer()
    thread = threading.Thread(target=fill, args=(buffer, 30))
    thread.start()
    seen: list[int] = []
    while len(seen) < 30:
        _, batch = await numbers(buffer, len(seen), 5.0)
        assert len(batch) <= 10
        seen += batch
    thread.join(5)
    assert seen == list(range(1, 31))


async def test_awaiting_an_event_waits_while_the_buffer_is_half_full(monkeypatch):
    monkeypatch.setattr(module, "MAX_EVENTS", 10)
    buffer = EventBuffer()
    fill(buffer, 4)
    waiting = asyncio.ensure_future(buffer.drained())
    await waiting
    emitted = buffer.put(pack_event("result", {"n": 5}))

    async def wait() -> None:
        await emitted

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await numbers(buffer, 2)
    await waiting


async def test_nothing_follows_the_last_event():
    buffer = EventBuffer()
    buffer.put(pack_event("final", {"n": 1}), last=True)
    fill(buffer, 1, 2)
    assert buffer.closed
    assert await numbers(buffer, 0) == (1, [1])


def test_an_event_beyond_256_kib_is_refused():
    pack_event("result", {"t": "x" * (256 * 1024 - 10)})
    with pytest.raises(CapacityError, match=r"output\.write"):
        pack_event("result", {"t": "x" * 256 * 1024})


def test_what_msgpack_cannot_hold_is_converted():
    event, data = msgpack.unpackb(pack_event("result", {"a": {1, 2}, "b": 1 << 80}))
    assert (event, msgpack.unpackb(data)) == ("result", {"a": [1, 2], "b": str(1 << 80)})


@pytest.mark.parametrize("waiting", [False, True])
async def test_that_there_are_questions_is_told_at_once(waiting):
    buffer = EventBuffer()
    if not waiting:
        buffer.tell_asking()
    polling = asyncio.ensure_future(buffer.poll(0, 1e6))
    await asyncio.sleep(0)
    if waiting:
        buffer.tell_asking()
    assert msgpack.unpackb(await polling) == [1, [], True]
    polling = asyncio.ensure_future(buffer.poll(0, 1e6))
    await asyncio.sleep(0)
    fill(buffer, 1, 2)
    assert msgpack.unpackb(await polling)[2] is True
