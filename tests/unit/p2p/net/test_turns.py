"""Whose turn it is on a loop: virtual time, so that a piece of work takes exactly as long as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kodo.p2p.net.turns import CREDIT_SECONDS, LINE_SECONDS, RENEWED, Turns
from tests.support.virtual_time import VirtualTimeLoop

MS = 0.001


class Scene:
    """Sources that do work, and what was done in which turn of the loop."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.turns = Turns(loop)
        self.turn = 0
        self.done: list[tuple[int, str]] = []

    def work(self, source: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.loop.now += seconds
            self.done.append((self.turn, source))

        return work

    def ask(self, source: str, seconds: float = MS) -> None:
        self.turns.take_or_wait(source, self.work(source, seconds))

    async def go(self, turns: int = 1) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
            self.turn += 1

    def spend_all(self, source: str) -> None:
        assert self.turns.take(source, self.work(source, 2 * CREDIT_SECONDS))
        self.done.clear()


def play(script: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        await script(Scene(loop))

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scene())


def test_who_costs_little_goes_at_once_whoever_waits() -> None:
    async def script(scene: Scene) -> None:
        scene.spend_all("heavy")
        for _ in range(50):
            scene.ask("heavy")
        scene.done.clear()
        scene.ask("light", MS / 10)
        assert scene.done == [(0, "light")]

    play(script)


def test_those_over_their_credit_share_a_bounded_part_of_each_turn() -> None:
    async def script(scene: Scene) -> None:
        for name in ("a", "b", "c", "d"):
            scene.spend_all(name)
        for _ in range(8):
            for name in ("a", "b", "c", "d"):
                scene.ask(name)
        await scene.go(20)
        each_turn = [turn for turn, _ in scene.done]
        assert len(each_turn) == 32
        assert max(each_turn.count(turn) for turn in each_turn) <= LINE_SECONDS / MS
        # A source after the other, none twice before the others.
        names = [name for _, name in scene.done]
        assert all(sorted(names[at : at + 4]) == ["a", "b", "c", "d"] for at in range(0, 32, 4))

    play(script)


def test_many_links_of_one_source_have_the_turns_of_one() -> None:
    async def script(scene: Scene) -> None:
        scene.spend_all("many")
        scene.spend_all("one")
        for _ in range(30):
            scene.ask("many")
        for _ in range(10):
            scene.ask("one")
        await scene.go(9)
        names = [name for _, name in scene.done]
        assert abs(names.count("many") - names.count("one")) <= 1

    play(script)


def test_somebody_in_line_goes_on_however_busy_the_others_are() -> None:
    async def script(scene: Scene) -> None:
        scene.spend_all("heavy")
        scene.ask("other", CREDIT_SECONDS)
        scene.ask("heavy", 10 * LINE_SECONDS)
        scene.ask("heavy", 10 * LINE_SECONDS)
        await scene.go(3)
        assert [name for _, name in scene.done].count("heavy") == 2

    play(script)


def test_credit_comes_back_with_time() -> None:
    async def script(scene: Scene) -> None:
        scene.spend_all("heavy")
        scene.spend_all("other")
        scene.ask("other")
        assert not scene.turns.take("heavy", scene.work("heavy", MS))
        scene.loop.now += 2 * CREDIT_SECONDS / RENEWED
        assert scene.turns.take("heavy", scene.work("heavy", MS))

    play(script)


def test_who_is_alone_need_not_wait_while_the_turn_lasts() -> None:
    async def script(scene: Scene) -> None:
        scene.spend_all("alone")
        await scene.go(2)
        assert scene.turns.take("alone", scene.work("alone", 2 * LINE_SECONDS))
        assert not scene.turns.take("alone", scene.work("alone", LINE_SECONDS))
        await scene.go(2)
        assert scene.turns.take("alone", scene.work("alone", LINE_SECONDS))

    play(script)


def test_what_fails_in_line_keeps_no_other_from_its_turn() -> None:
    async def script(scene: Scene) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        told: list[Any] = []
        scene.loop.set_exception_handler(lambda loop, context: told.append(context))
        scene.spend_all("a")
        scene.spend_all("b")
        scene.turns.take_or_wait("a", fail)
        scene.ask("b")
        await scene.go(3)
        assert [name for _, name in scene.done] == ["b"]
        assert len(told) == 1

    play(script)
