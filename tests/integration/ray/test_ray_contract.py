"""The executor on Ray, held to the contract of executors; one Ray serves all tests, until one of them closes it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kodo.node.executors.executor import Executor
from kodo.node.executors.ray.cluster import stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from tests.contract.test_executor_contract import Bench, ProcessContract
from tests.integration.ray.conftest import OBJECT_STORE_BYTES

FLOWS = Path(__file__).parents[2] / "contract" / "scope"


class RayBench:
    """Runs the flows of `contract_flows`."""

    def __init__(self, home: Path):
        self._home = home
        self.preload: list[str] = []
        self.executor: RayExecutor | None = None

    def entry(self, name: str) -> str:
        return f"contract_flows:{name}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Executor]:
        if self.executor is None:
            self.executor = RayExecutor(
                self._home,
                "kodo-test",
                [FLOWS],
                preload=lambda: self.preload,
                num_cpus=2,
                object_store_bytes=OBJECT_STORE_BYTES,
                runners=1,
            )
            await self.executor.start()
        yield self.executor
        for runner in list(self.executor._live.values()):
            await runner.kill()
        if self.executor._closed:
            self.executor = None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(home: Path) -> AsyncIterator[Bench]:
    made = RayBench(home)
    try:
        yield made
    finally:
        if made.executor is not None:
            await made.executor.aclose()
        stop_cluster(home)


@pytest.mark.asyncio(loop_scope="module")
class TestRay(ProcessContract):
    """The suite, with the fixture of this module."""
