"""Runners without Ray, for each module of tests in a home of its own; they run the flows of the tests on Ray."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kodo.node.executors.executor import RunSpec
from kodo.node.executors.process.executor import ProcessExecutor
from tests.integration.ray.conftest import SCOPE as RAY_SCOPE
from tests.integration.ray.conftest import Run, new_id

SCOPES = [Path(__file__).parent / "scope", RAY_SCOPE]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(home: Path) -> AsyncIterator[ProcessExecutor]:
    made = ProcessExecutor(home, roots=SCOPES, preload=lambda: ["ray_flows:hello"], stays=False)
    await made.start()
    yield made
    await made.aclose()
    assert [path.name for path in (home / "runners").iterdir()] == ["server.log"]


@pytest_asyncio.fixture(loop_scope="module")
async def run(executor: ProcessExecutor) -> AsyncIterator[Callable[..., Awaitable[Run]]]:
    """Launch a flow of `ray_flows`, or `module:flow`; what still runs after the test is killed."""
    made: list[Run] = []

    async def launch(name: str, resources: dict[str, Any] | None = None, **inputs: Any) -> Run:
        entry = name if ":" in name or name.endswith(".yaml") else f"ray_flows:{name}"
        spec = RunSpec(new_id(), entry.replace(":", "."), entry, inputs, resources or {})
        made.append(Run(await executor.launch(spec)))
        return made[-1]

    yield launch
    for one in made:
        await one.runner.kill()
