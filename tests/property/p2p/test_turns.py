"""Whoever comes, and however often somebody new: each line that waits has its turn, and who is known has a share."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.net.turns import LONGEST_EVERY, NEW_SECONDS, SLICE_SECONDS, FairLoop, line_of, line_of_account
from tests.support.virtual_time import JumpingSelector


class _VirtualFairLoop(FairLoop):
    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return self.now


class Scene:
    """Work that takes a slice or more each, so that each piece is one slice."""

    def __init__(self, loop: _VirtualFairLoop) -> None:
        self.loop = loop
        self.slices = self.lines = 0
        self.waiting: Counter[str] = Counter()
        self.due: dict[str, int] = {}
        self.done: Counter[str] = Counter()

    def ask(self, source: str, seconds: float) -> None:
        if not self.waiting[source]:
            self._begin_to_wait(source)
        self.waiting[source] += 1
        self.loop.call_soon(self._work, source, seconds, context=self.context(source))

    def context(self, source: str) -> contextvars.Context:
        found = (line_of_account if source == "account" else line_of)(self.loop, source)
        assert found is not None
        return found

    def _begin_to_wait(self, source: str) -> None:
        self.lines += 1
        self.due[source] = self.slices + LONGEST_EVERY * self.lines

    def _work(self, source: str, seconds: float) -> None:
        self.slices += 1
        self.loop.now += seconds
        self.done[source] += 1
        assert self.slices <= self.due[source], f"{source} waited longer than the bound"
        self.waiting[source] -= 1
        self.lines -= 1
        if self.waiting[source]:
            self._begin_to_wait(source)


def play(looks: list[list[tuple[str, int, float]]]) -> None:
    """Ask for work between looks: `(kind, count, seconds)`; `new` is another source each time."""
    failed: list[object] = []

    async def scene(loop: _VirtualFairLoop) -> None:
        loop.set_exception_handler(lambda _, context: failed.append(context.get("exception")))
        parts, number = Scene(loop), 0
        for look in looks:
            for kind, count, seconds in look:
                for _ in range(count):
                    number += 1
                    parts.ask(f"new {number}" if kind == "new" else kind, seconds)
            await asyncio.sleep(0)
        for _ in range(number + 1):
            await asyncio.sleep(0)
        assert parts.lines == 0

    run(scene)
    assert failed == []


def run(scene: Callable[[_VirtualFairLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=_VirtualFairLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _VirtualFairLoop)
        runner.run(scene(loop))


KINDS = st.sampled_from(["new", "new", "new", "account", "a", "b", "c"])
ASKED = st.tuples(KINDS, st.integers(1, 8), st.floats(SLICE_SECONDS, 0.05))


@given(st.lists(st.lists(ASKED, max_size=4), min_size=1, max_size=40))
def test_each_line_that_waits_has_its_turn_within_the_bound(looks: list[list[tuple[str, int, float]]]) -> None:
    play(looks)


@pytest.mark.parametrize("each", [4, 12])
@pytest.mark.parametrize("seconds", [SLICE_SECONDS, 0.004])
@pytest.mark.parametrize("used", [NEW_SECONDS, 0.1])
def test_who_used_something_keeps_half_while_ever_new_sources_come(each: int, seconds: float, used: float) -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        parts, number = Scene(loop), 0
        loop.line("known").used(used, loop.now)
        until = loop.now + 2
        while loop.now < until:
            parts.ask("known", 0.001)
            parts.ask("known", 0.001)
            for _ in range(each):
                number += 1
                parts.ask(f"new {number}", seconds)
            await asyncio.sleep(0)
        assert parts.done["known"] * 0.001 > 0.4 * 2

    run(scene)
