"""A runner on Ray as the node holds it: which waits have a deadline of their own."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import pytest

from kodo.node.ray_link import RayLink
from kodo.node.ray_runner import CALL_TIMEOUT, Keeper, RayRunner


class Link:
    """Answers each call at once, and keeps the deadline that it had."""

    def __init__(self, answer: Any):
        self.answer = answer
        self.deadlines: list[float | None] = []

    async def ask(self, call: Any, seconds: float | None, what: str) -> Any:
        self.deadlines.append(seconds)
        return self.answer


@pytest.mark.parametrize(
    ("method", "args", "answer", "deadline"),
    [
        ("poll", (0, 20.0), msgpack.packb([1, [], False]), None),
        ("read_output", ("a", 0, 1), b"", None),
        ("asked", (0, 20.0), msgpack.packb([1, []]), 20.0 + CALL_TIMEOUT),
        ("answer", ("lid", "cid", 1), None, CALL_TIMEOUT),
        ("expire", ("lid",), None, CALL_TIMEOUT),
    ],
)
async def test_who_waits_for_a_runner_that_hangs_is_one_owner_of_one_deadline(
    method: str, args: tuple[Any, ...], answer: Any, deadline: float | None
) -> None:
    link = Link(answer)
    runner = RayRunner(cast(Keeper, None), cast(RayLink, link), "runner-1", None, "0" * 26)
    await getattr(runner, method)(*args)
    assert link.deadlines == [deadline]
