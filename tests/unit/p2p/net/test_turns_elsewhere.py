"""What is done for a source beside its callbacks: reading its sockets, and work in other threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial

import pytest

from kodo.p2p.net.turns import FairLoop, FairThreads, Line, count_work, join_source, line_of
from kodo.p2p.net.turns import _line as current_line


def fair_loop() -> FairLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FairLoop)
    return loop


def test_what_a_socket_has_brought_waits_in_the_line_of_whose_it_is() -> None:
    async def scene() -> None:
        loop = fair_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            order: list[str] = []
            read = asyncio.Event()

            def receive() -> None:
                order.append(ours.recv(100).decode())
                read.set()

            context = line_of(loop, "crowd")
            assert context is not None
            context.run(loop.add_reader, ours, receive)
            crowd = loop.line("crowd")
            crowd.used(1.0, loop.time())
            theirs.send(b"crowd")
            # The selector tells of it once a turn for as long as it waits.
            for _ in range(50):
                loop.call_soon(order.append, "user", context=line_of(loop, "user"))
                await asyncio.sleep(0)
                assert len(crowd.handles) <= 1
            await read.wait()
            loop.remove_reader(ours)
            assert order.count("crowd") == 1
            assert order.index("crowd") > 0

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())


def test_a_socket_that_is_read_no_more_is_not_read_in_a_turn_that_waited() -> None:
    async def scene() -> None:
        loop = fair_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            context = line_of(loop, "crowd")
            assert context is not None
            order: list[str] = []
            context.run(loop.add_reader, ours, order.append, "read")
            theirs.send(b"x")
            for _ in range(3):
                await asyncio.sleep(0)
            assert order, "it is read as long as it is wanted"
            loop.remove_reader(ours)
            order.clear()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not order
            again = asyncio.Event()
            context.run(loop.add_reader, ours, again.set)
            await again.wait()
            loop.remove_reader(ours)

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())


def test_work_in_a_thread_counts_against_whom_it_is_done_for() -> None:
    async def work() -> Line:
        join_source("crowd")
        count_work(0.25)
        line = current_line.get()
        assert line is not None
        return line

    async def scene() -> None:
        loop = fair_loop()
        count_work(5.0)  # for nobody
        line = await asyncio.create_task(work())
        assert line is loop.line("crowd")
        assert 0.25 <= line.total < 5
        assert line.rank > loop.line("user").rank

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_without_turns())


def test_threads_work_for_who_used_least_first_and_count_it() -> None:
    async def scene() -> None:
        loop = fair_loop()
        threads = FairThreads(1)
        order: list[str] = []
        go_on = threading.Event()

        begun = asyncio.Event()

        def work(source: str) -> str:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(30)
            order.append(source)
            return str(sum(range(20_000)))

        def ask(source: str) -> asyncio.Task[str]:
            return loop.create_task(threads.do(partial(work, source)), context=line_of(loop, source))

        loop.line("crowd").used(0.5, loop.time())
        tasks = [ask("crowd") for _ in range(3)]
        await begun.wait()
        tasks.append(ask("user"))
        for _ in range(10):
            await asyncio.sleep(0)
        go_on.set()
        done, _ = await asyncio.wait(tasks)
        assert order[:2] == ["crowd", "user"]  # the first has begun already
        assert {task.result() for task in done} == {"199990000"}
        assert loop.line("user").total > 0

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())


def test_what_work_in_a_thread_raises_is_raised_and_its_place_is_free_again() -> None:
    def fail() -> None:
        raise ValueError("it")

    async def scene() -> None:
        threads = FairThreads(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="it"):
                await threads.do(fail)
        assert await threads.do(lambda: 1) == 1

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())


def test_work_that_nobody_waits_for_any_more_keeps_its_place_until_it_ends_and_is_counted() -> None:
    async def scene() -> None:
        loop = fair_loop()
        threads = FairThreads(1)
        begun, go_on = asyncio.Event(), threading.Event()
        order: list[str] = []

        def long() -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(30)
            sum(range(20_000))
            order.append("long")

        given_up = loop.create_task(threads.do(long), context=line_of(loop, "crowd"))
        await begun.wait()
        before = loop.line("crowd").total
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        after = loop.create_task(threads.do(partial(order.append, "next")))
        for _ in range(10):
            await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        begun_beside = list(order)
        go_on.set()
        await after
        assert not begun_beside
        assert order == ["long", "next"]
        assert loop.line("crowd").total > before

    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(scene())


async def _without_turns() -> None:
    join_source("crowd")
    count_work(1.0)
    assert current_line.get() is None
