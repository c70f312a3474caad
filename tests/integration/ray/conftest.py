"""One real Ray for each module of tests, in a home of its own."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kodo.node.executors.executor import Runner, RunnerEvent, RunSpec
from kodo.node.executors.ray.cluster import stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from kodo.protocol.ids import make_id

SCOPE = Path(__file__).parent / "scope"
OBJECT_STORE_BYTES = 150_000_000


def new_id() -> str:
    return make_id(time.time_ns() // 1_000_000, os.urandom(10))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(home: Path) -> AsyncIterator[RayExecutor]:
    made = RayExecutor(
        home, "kodo-test", [SCOPE], ["ray_flows:hello"], num_cpus=2, object_store_bytes=OBJECT_STORE_BYTES
    )
    try:
        await made.start()
        yield made
    finally:
        await made.aclose()
        stop_cluster(home)


class Run:
    """A run and what it said so far."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.events: list[RunnerEvent] = []

    async def until(self, *names: str) -> RunnerEvent:
        """Poll until one of these events, which is given."""
        deadline = time.monotonic() + 40
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event.event in names:
                    return event
            seen = len(self.events)
            assert time.monotonic() < deadline, f"no {names} among {self.events}"
            self.events += await self.runner.poll(self.events[-1].rseq if self.events else 0, 5.0)

    async def end(self) -> dict[str, Any]:
        """Poll until the end and release the runner; gives the last event's data."""
        last = await self.until("final", "fatal")
        await self.runner.release()
        return {"event": last.event, **last.data}

    def texts(self, event: str) -> list[str]:
        return [made.data["text"] for made in self.events if made.event == event]


@pytest_asyncio.fixture(loop_scope="module")
async def run(executor: RayExecutor) -> AsyncIterator[Callable[..., Awaitable[Run]]]:
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
