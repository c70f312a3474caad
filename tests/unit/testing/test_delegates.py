"""Flows that delegate, in tests: what stands for the other node, and who answers its questions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from kodo.flow import DelegatedError, delegate
from kodo.p2p.errors import CallError, NotFoundError
from kodo.testing import Ask, Makes, Tells, run, tries

OTHER = "node.example/Other"


def even(value: int) -> str | None:
    return "it is odd" if value % 2 else None


def asks(topic: str) -> Generator[Any, Any, list[Any]]:
    """Stand for a flow that asks two questions."""
    yield Tells("progress", {"percent": 10})
    number = yield Ask("Even?", int, even)
    sure = yield Ask("Sure?")
    return [topic, number, sure]


async def relays(topic: str) -> Any:
    """Leave all questions to people."""
    return await delegate(OTHER, topic=topic)


def test_a_function_stands_for_another_nodes_flow() -> None:
    assert run(relays, topic="a", delegates={OTHER: lambda topic: f"made of {topic}"}).result == "made of a"


def test_what_it_raises_is_its_fatal() -> None:
    def fails(topic: str) -> None:
        raise ValueError(topic)

    with pytest.raises(DelegatedError, match="ValueError: a"):
        run(relays, topic="a", delegates={OTHER: fails})


def test_questions_that_the_flow_leaves_alone_become_its_own() -> None:
    done = run(
        relays, topic="a", delegates={OTHER: asks}, answers={"Even?": tries(3, "no number", 4), "Sure?": False}
    )
    assert done.result == ["a", 4, False]
    assert [lock.title for lock in done.locks] == ["Even?", "Sure?"]
    assert done.locks[0].denied[0] == ["it is odd"]
    assert len(done.locks[0].denied) == 2
    assert [lock.answer for lock in done.locks] == [4, False]


def test_questions_of_a_flow_that_is_not_async_become_its_own_too() -> None:
    def plainly() -> Any:
        other = delegate(OTHER, topic="b")
        events = [event.event for event in other]
        return [events, other.result]

    done = run(plainly, delegates={OTHER: asks}, answers=[2, True])
    assert done.result == [["progress", "lock", "unlock", "lock", "unlock", "final"], ["b", 2, True]]


def test_a_flow_answers_questions_itself_and_they_are_shown_to_nobody() -> None:
    async def answers() -> Any:
        other, denied = delegate(OTHER, topic="c"), []
        async for event in other:
            if event.event == "lock" and event.data["title"] == "Even?":
                with pytest.raises(CallError) as refused:
                    await other.answer(event, 3)
                denied.append(refused.value.data["reasons"])
                await other.answer(event.data["lid"], 6)
            elif event.event == "lock":
                unlock = await other.answer(event, True)
                denied.append(unlock["answer"])
        return [other.result, denied]

    done = run(answers, delegates={OTHER: asks})
    assert done.result == [["c", 6, True], [["it is odd"], True]]
    assert done.locks == []


def test_outputs_are_fetched() -> None:
    def makes() -> Generator[Any, None, None]:
        yield Makes("a.txt", b"content")

    async def fetches() -> list[Any]:
        other = delegate(OTHER)
        async for _ in other:
            pass
        with pytest.raises(NotFoundError):
            await other.fetch("b.txt")
        return [(await other.fetch("a.txt")).read_text(), list(other.view.outputs)]

    assert run(fetches, delegates={OTHER: makes}).result == ["content", ["a.txt"]]


def test_an_answer_that_comes_too_late_is_refused() -> None:
    async def answers_twice() -> Any:
        other = delegate(OTHER, topic="d")
        async for event in other:
            if event.event == "lock":
                await other.answer(event, 2 if event.data["title"] == "Even?" else True)
                with pytest.raises(CallError, match="answered"):
                    await other.answer(event, 2)
        return other.result

    assert run(answers_twice, delegates={OTHER: asks}).result == ["d", 2, True]
