"""More and fewer warm runners, while the node runs."""

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def until_free(executor, count):
    async with asyncio.timeout(40):
        while executor.load().free != count or not executor._warm.settled:  # noqa: ASYNC110 (Ray has no event for it)
            await asyncio.sleep(0.05)


async def test_warm_runners_come_and_go_and_a_run_goes_on(executor, run):
    await until_free(executor, 2)
    ids = {warm.name for warm in executor._warm}
    executor.scale(3)
    await until_free(executor, 3)
    asked = await run("hello", topic="x")
    executor.scale(0)
    assert executor.load().free == 0
    assert (await asked.end())["event"] == "final"
    names = await asyncio.to_thread(executor._link.ray.util.list_named_actors)
    assert not ids & set(names)
    executor.scale(1)
    await until_free(executor, 1)
