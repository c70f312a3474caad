"""Whose turn it is on a loop: virtual time, so that a piece of work takes exactly as long as it says."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kodo.p2p.net.turns import (
    HALF_LIFE_SECONDS,
    LONGEST_EVERY,
    TURN_SECONDS,
    FairLoop,
    FairSemaphore,
    Line,
    for_nobody,
    join_account,
    line_of,
    line_of_account,
)
from kodo.p2p.net.turns import _line as current_line
from tests.support.virtual_time import JumpingSelector

MS = 0.001


class _VirtualFairLoop(FairLoop):
    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return self.now


def virtual(work: Callable[[_VirtualFairLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a scene in virtual time."""
    with asyncio.Runner(loop_factory=_VirtualFairLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _VirtualFairLoop)
        runner.run(work(loop))


def context(loop: asyncio.AbstractEventLoop, source: str) -> contextvars.Context:
    found = line_of(loop, source)
    assert found is not None
    return found


def busy(loop: _VirtualFairLoop, done: list[str], source: str, seconds: float = MS) -> Callable[[], None]:
    """Make a piece of work that takes so long."""

    def work() -> None:
        loop.now += seconds
        done.append(source)

    return work


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_who_used_little_goes_before_all_that_others_have_waiting() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for source in ("a", "b", "c"):
            loop.line(source).used(0.1, loop.now)
        for _ in range(100):
            for source in ("a", "b", "c"):
                loop.call_soon(busy(loop, done, source), context=context(loop, source))
        await _turns(10)
        done.clear()
        loop.call_soon(busy(loop, done, "user"), context=context(loop, "user"))
        await _turns(2)
        assert done[0] == "user"

    virtual(scene)


def test_sources_share_the_time_not_the_number_of_their_callbacks() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for _ in range(1000):
            loop.call_soon(busy(loop, done, "short", MS), context=context(loop, "short"))
            loop.call_soon(busy(loop, done, "long", 4 * MS), context=context(loop, "long"))
        await _turns(200)
        assert done.count("short") == pytest.approx(4 * done.count("long"), rel=0.1)

    virtual(scene)


def test_a_source_of_many_sessions_has_one_share() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        crowd = [context(loop, "crowd") for _ in range(50)]
        for _ in range(100):
            for each in crowd:
                loop.call_soon(busy(loop, done, "crowd"), context=each)
            loop.call_soon(busy(loop, done, "one"), context=context(loop, "one"))
        await _turns(80)
        assert done.count("crowd") == pytest.approx(done.count("one"), abs=3)

    virtual(scene)


def test_the_loop_looks_for_what_came_between_turns_whatever_waits() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for _ in range(100):
            loop.call_soon(busy(loop, done, "crowd"), context=context(loop, "crowd"))
        before = loop.now
        await _turns(1)
        assert loop.now - before <= TURN_SECONDS + MS

    virtual(scene)


def test_what_tasks_begin_waits_in_the_line_of_their_source() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []

        async def serve() -> None:
            async def part() -> None:
                for _ in range(20):
                    busy(loop, done, "crowd")()
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(part())

        serving = loop.create_task(serve(), context=context(loop, "crowd"))
        await _turns(5)
        before = len(done)
        loop.call_soon(busy(loop, done, "user"), context=context(loop, "user"))
        await _turns(1)
        assert done[before] == "user"
        await serving

    virtual(scene)


def test_an_account_that_used_less_than_all_strangers_together_goes_before_each_of_them() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        account = line_of_account(loop, "ana")
        assert account is not None
        loop.line("ana").used(0.02, loop.now)
        for number in range(60):
            loop.call_soon(busy(loop, done, "crowd"), context=context(loop, f"crowd {number}"))
        await _turns(30)
        before = len(done)
        for number in range(60):
            loop.call_soon(busy(loop, done, "crowd"), context=context(loop, f"fresh {number}"))
        for _ in range(5):
            loop.call_soon(busy(loop, done, "ana"), context=account)
        await _turns(100)
        last = max(place for place, source in enumerate(done) if source == "ana") - before
        assert last + 1 - 5 <= last // LONGEST_EVERY + 1  # but for the turns of who has waited longest
        assert len(done) == 125

    virtual(scene)


@pytest.mark.parametrize("accounts", [1, 4])
def test_who_is_new_has_a_turn_beside_accounts_and_a_crowd_that_always_want_more(accounts: int) -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []

        def hog(name: str, found: contextvars.Context | None) -> None:
            loop.line(name).used(1.0, loop.now)

            def again() -> None:
                busy(loop, done, name)()
                loop.call_soon(again, context=found)

            loop.call_soon(again, context=found)

        for number in range(accounts):
            hog(f"account {number}", line_of_account(loop, f"account {number}"))
        for number in range(35):
            hog(f"crowd {number}", context(loop, f"crowd {number}"))
        await _turns(LONGEST_EVERY)

        async def shake_hands() -> None:
            for _ in range(20):
                busy(loop, done, "new")()
                await asyncio.sleep(0)

        before = len(done)
        await loop.create_task(shake_hands(), context=context(loop, "new"))
        assert len(done) - before < 20 * 4 * (accounts + 1)

    virtual(scene)


def test_an_account_that_is_called_like_an_address_does_not_make_who_comes_from_there_known() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        for name in ("192.0.2.7", "2001:db8::/64", "::1"):
            line_of_account(loop, name)
            assert not loop.line(name).known

    virtual(scene)


def test_among_accounts_goes_first_who_used_least() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for name, used in (("ana", 0.2), ("ben", 0.1)):
            loop.line(name).used(used, loop.now)
            loop.call_soon(busy(loop, done, name), context=line_of_account(loop, name))
        await _turns(2)
        assert done == ["ben", "ana"]

    virtual(scene)


@pytest.mark.parametrize("before", ["source", None])
def test_a_task_that_joins_an_account_goes_on_in_its_line_unless_it_is_nobodys(before: str | None) -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        async def serve() -> Line | None:
            join_account("ana")
            await asyncio.sleep(0)
            return current_line.get()

        here = for_nobody() if before is None else context(loop, before)
        line = await loop.create_task(serve(), context=here)
        assert line is (None if before is None else loop.line("ana"))
        assert line is None or line.known

    virtual(scene)


def test_what_a_source_has_used_is_forgiven_in_time() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        line_a, line_b = loop.line("a"), loop.line("b")
        line_a.used(1.0, loop.now)
        loop.now += 10 * HALF_LIFE_SECONDS
        line_b.used(0.1, loop.now)
        assert line_a.rank < line_b.rank

    virtual(scene)


def test_a_cancelled_callback_is_not_called_and_one_that_fails_keeps_none_from_its_turn() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        told: list[object] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        done: list[str] = []
        here = context(loop, "a")
        loop.call_soon(busy(loop, done, "cancelled"), context=here).cancel()
        loop.call_soon(lambda: 1 // 0, context=here)
        loop.call_soon(busy(loop, done, "after"), context=here)
        await _turns(3)
        assert done == ["after"]
        assert isinstance(told[0], ZeroDivisionError)

    virtual(scene)


def test_a_source_keeps_its_order() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[int] = []
        for number in range(50):
            loop.call_soon(done.append, number, context=context(loop, "a"))
        await _turns(50)
        assert done == list(range(50))

    virtual(scene)


def test_work_for_many_waits_in_nobodys_line_though_a_source_began_it() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for _ in range(100):
            loop.call_soon(busy(loop, done, "crowd"), context=context(loop, "crowd"))

        async def begin() -> None:
            loop.call_soon(busy(loop, done, "shared"), context=for_nobody())

        await loop.create_task(begin(), context=context(loop, "crowd"))
        await _turns(1)
        assert "shared" in done[:105]

    virtual(scene)


def test_on_another_loop_there_are_no_lines() -> None:
    async def scene() -> None:
        assert line_of(asyncio.get_running_loop(), "a") is None

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(scene())


def test_of_those_that_wait_for_a_semaphore_who_used_least_goes_first_whenever_it_came() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        starts = FairSemaphore(1)
        order: list[str] = []

        async def start(source: str) -> None:
            async with starts:
                order.append(source)
                await asyncio.sleep(1)

        loop.line("crowd").used(0.5, loop.now)
        tasks = [loop.create_task(start("crowd"), context=context(loop, "crowd")) for _ in range(5)]
        await _turns(3)
        tasks.append(loop.create_task(start("user"), context=context(loop, "user")))
        await asyncio.wait(tasks)
        assert order == ["crowd", "user", *["crowd"] * 4]

    virtual(scene)


def test_an_account_gets_a_semaphore_before_sources() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        starts = FairSemaphore(1)
        order: list[str] = []

        async def start(name: str) -> None:
            async with starts:
                order.append(name)
                await asyncio.sleep(1)

        loop.line("ana").used(0.5, loop.now)
        tasks = [loop.create_task(start("crowd"), context=context(loop, "crowd")) for _ in range(3)]
        await _turns(3)
        tasks.append(loop.create_task(start("ana"), context=line_of_account(loop, "ana")))
        await asyncio.wait(tasks)
        assert order == ["crowd", "ana", "crowd", "crowd"]

    virtual(scene)


def test_who_waits_for_a_semaphore_gets_it_though_ever_new_sources_come() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        starts = FairSemaphore(1)
        order: list[str] = []

        async def start(source: str) -> None:
            async with starts:
                order.append(source)
                await asyncio.sleep(1)

        loop.line("known").used(0.5, loop.now)
        tasks = [loop.create_task(start("first"), context=context(loop, "first"))]
        await _turns(3)
        tasks.append(loop.create_task(start("known"), context=context(loop, "known")))
        for number in range(2 * LONGEST_EVERY):
            tasks.append(loop.create_task(start(f"new {number}"), context=context(loop, f"new {number}")))
        await asyncio.wait(tasks)
        assert order.index("known") <= LONGEST_EVERY

    virtual(scene)


def test_a_semaphore_is_not_lost_when_those_who_wait_for_it_give_up() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        starts = FairSemaphore(1)
        await starts.acquire()
        waiting = [asyncio.ensure_future(starts.acquire()) for _ in range(3)]
        await _turns(1)
        waiting[0].cancel()
        starts.release()  # it is the second one's, which gives up before it knows
        waiting[1].cancel()
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [True, True, False]
        starts.release()
        await starts.acquire()

    virtual(scene)


def test_what_the_selector_finds_for_a_source_waits_in_its_line_once() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        ready = asyncio.Handle(busy(loop, done, "crowd"), (), loop, context(loop, "crowd"))
        loop.line("crowd").used(0.5, loop.now)
        for _ in range(3):
            loop.call_soon(busy(loop, done, "user"), context=context(loop, "user"))
        for _ in range(3):
            loop._add_callback(ready)  # found again at each look, until it was read
        await _turns(10)
        assert done == ["user", "user", "user", "crowd"]
        loop._add_callback(ready)
        await _turns(2)
        assert done[4:] == ["crowd"]
        loop._add_callback(ready)
        ready.cancel()  # as whoever reads no more does
        await _turns(2)
        assert len(done) == 5

    virtual(scene)


def test_what_the_selector_finds_for_nobody_is_done_at_once() -> None:
    async def scene(loop: _VirtualFairLoop) -> None:
        done: list[str] = []
        for _ in range(3):
            loop.call_soon(busy(loop, done, "user"), context=context(loop, "user"))
        loop._add_callback(asyncio.Handle(busy(loop, done, "nobody"), (), loop, for_nobody()))
        await _turns(5)
        assert done.index("nobody") <= 1 + TURN_SECONDS / MS

    virtual(scene)
