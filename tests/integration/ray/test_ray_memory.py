"""What a run leaves in the node's own process once its runner has gone: nothing that grows with each."""

import asyncio
import itertools
import os
import time

import pytest

from kodo.node.executors.executor import RunSpec
from kodo.protocol.ids import make_id
from tests.support.census import BLOCKS, grown, take_census

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUND = 6
BLOCKS_OF_RAY = 50
"""What Ray keeps itself of each actor that it has ended, and a margin: it is a dozen."""


async def say_hello(executor):
    fid = make_id(time.time_ns() // 1_000_000, os.urandom(10))
    runner = await executor.launch(RunSpec(fid, "ray_flows.hello", "ray_flows:hello", {"topic": "x"}))
    seen = 0
    while True:
        for event in await runner.poll(seen, 20.0):
            seen = event.rseq
            if event.event == "final":
                return await runner.release()


async def after_some_runs(executor):
    for _ in range(ROUND):
        await say_hello(executor)
    async with asyncio.timeout(60):
        while executor.load().free != 2 or not executor._warm.settled:  # noqa: ASYNC110 (Ray has no event for it)
            await asyncio.sleep(0.05)
    return await take_census()


async def test_no_kind_of_object_is_left_by_each_run(executor):
    censuses = [await after_some_runs(executor) for _ in range(4)]
    rounds = [grown(before, after, ROUND) for before, after in itertools.pairwise(censuses)]
    always = {kind for kind in rounds[0] if all(each.get(kind, 0) >= 1 for each in rounds)}
    assert always <= {BLOCKS}, rounds
    assert min(each.get(BLOCKS, 0) for each in rounds) < BLOCKS_OF_RAY, rounds
