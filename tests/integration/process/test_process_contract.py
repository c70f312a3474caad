"""The executor of plain processes, held to the contract of executors: forked ones, and each started by itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.executors.executor import Executor
from kodo.node.executors.process.executor import ProcessExecutor
from tests.contract.test_executor_contract import Bench, ProcessContract


class ProcessBench:
    """Runs the flows of `contract_flows`."""

    def __init__(self, home: Path, forks: bool):
        self._home = home
        self._forks = forks
        self.preload: list[str] = []

    def entry(self, name: str) -> str:
        return f"contract_flows:{name}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Executor]:
        roots = [Path(__file__).parents[2] / "contract" / "scope"]
        executor = ProcessExecutor(
            self._home, roots=roots, preload=lambda: self.preload, runners=1, stays=False, forks=self._forks
        )
        try:
            await executor.start()
            yield executor
        finally:
            await executor.aclose()


class TestForkedProcesses(ProcessContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        if sys.platform != "linux":
            pytest.skip("runners are forked on Linux only")
        return ProcessBench(tmp_path, True)


class TestStartedProcesses(ProcessContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return ProcessBench(tmp_path, False)
