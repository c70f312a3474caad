import asyncio
from typing import Any

import msgpack
import pytest

from kodo.flow._runtime import node_requests
from kodo.flow._runtime.node_requests import AskQueue, error_of, pack_error
from kodo.p2p.errors import CallError, CapacityError, KodoError, NotFoundError, UsageError


async def polled(queue: AskQueue, after: int = 0) -> Any:
    return msgpack.unpackb(await queue.poll(after, 1e6))


async def test_questions_are_numbered_and_kept_until_they_are_answered() -> None:
    queue = AskQueue()
    first, second = queue.ask("a", {"x": 1}), queue.ask("b", {})
    assert await polled(queue) == [1, [[1, "a", {"x": 1}], [2, "b", {}]]]
    assert await polled(queue, 1) == [1, [[2, "b", {}]]]
    queue.reply(1, msgpack.packb({"done": 3}))
    queue.reply(1, msgpack.packb({"done": 4}))
    assert (first.result(), second.done()) == (3, False)
    assert await polled(queue) == [2, [[2, "b", {}]]]
    queue.reply(2, msgpack.packb({"error": {"code": 409, "reason": "changed", "message": "m"}}))
    with pytest.raises(CallError, match="changed"):
        second.result()


async def test_a_poll_is_woken_by_a_question_from_another_thread() -> None:
    queue = AskQueue()
    polling = asyncio.ensure_future(polled(queue))
    await asyncio.sleep(0)
    await asyncio.to_thread(queue.ask, "a", {})
    assert await polling == [1, [[1, "a", {}]]]


async def test_who_does_not_poll_yet_is_told_there_is_a_question() -> None:
    told: list[int] = []
    queue = AskQueue(lambda: told.append(1))
    queue.ask("a", {})
    await polled(queue)
    queue.ask("b", {})
    assert told == [1]


async def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = AskQueue()
    with pytest.raises(CapacityError):
        queue.ask("a", {"x": b"x" * node_requests.MAX_ASK_BYTES})
    monkeypatch.setattr(node_requests, "MAX_OPEN", 1)
    queue.ask("a", {})
    with pytest.raises(CapacityError):
        queue.ask("b", {})


async def test_large_questions_come_in_several_batches() -> None:
    queue = AskQueue()
    for _ in range(5):
        queue.ask("a", {"x": b"x" * (1 << 20)})
    _, first = await polled(queue)
    _, rest = await polled(queue, first[-1][0])
    assert (len(first), [aid for aid, *_ in [*first, *rest]]) == (3, [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "error", [UsageError("u"), NotFoundError("n"), CapacityError("c"), CallError(409, "changed", "m", {"a": 1})]
)
def test_refusals_arrive_as_what_they_were(error: KodoError) -> None:
    got = error_of(msgpack.unpackb(msgpack.packb(pack_error(error))))
    assert (type(got), str(got)) == (type(error), str(error))


def test_any_other_error_of_the_node_arrives_with_its_words() -> None:
    got = error_of(pack_error(KodoError("gone")))
    assert "gone" in str(got)
