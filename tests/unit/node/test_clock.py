"""Deadlines count the time in which the process ran."""

from __future__ import annotations

import asyncio

import pytest

from kodo.node.clock import awake_timeout
from tests.support.virtual_time import VirtualTimeLoop, run_virtual


def test_a_deadline_passes() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with awake_timeout(30.5):
                await asyncio.sleep(1000)
        return loop.time()

    assert run_virtual(work()) == pytest.approx(30.5)


def test_what_comes_in_time_is_not_disturbed_afterwards() -> None:
    async def work() -> str:
        async with awake_timeout(10):
            await asyncio.sleep(9)
        await asyncio.sleep(100)
        async with awake_timeout(None):
            await asyncio.sleep(1e6)
        return "done"

    assert run_virtual(work()) == "done"


def test_the_time_in_which_the_process_was_stopped_hardly_counts() -> None:
    async def work() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def stop() -> None:
            await asyncio.sleep(5)
            loop.now += 3600  # all timers are late at once, as after SIGSTOP and SIGCONT

        stopped = asyncio.create_task(stop())
        async with awake_timeout(30):
            await stopped
            await asyncio.sleep(20)
        return "in time"

    assert run_virtual(work()) == "in time"


def test_a_cancelled_wait_is_cancelled_and_not_late() -> None:
    async def work() -> None:
        async def wait() -> None:
            async with awake_timeout(10):
                await asyncio.sleep(100)

        task = asyncio.create_task(wait())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(work())
