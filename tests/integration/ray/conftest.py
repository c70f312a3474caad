"""One real Ray for each module of tests, in a home of its own.

With `KODO_TEST_RUNNER_USER` it is of that account, and the process of the tests is a node that runs flows as it does:
`tests/integration/apart` runs some of the modules so.
"""

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kodo.node.executors.apart.account import FOLDER, Account, leave_folder, settle
from kodo.node.executors.apart.executor import ApartExecutor
from kodo.node.executors.apart.spawn import as_account
from kodo.node.executors.executor import Executor, Runner, RunnerEvent, RunSpec
from kodo.node.executors.ray.cluster import stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from kodo.protocol.ids import make_id

RUNNER_USER = os.environ.get("KODO_TEST_RUNNER_USER")
SCOPE = Path(__file__).parent / "scope"
OBJECT_STORE_BYTES = 150_000_000


def new_id() -> str:
    return make_id(time.time_ns() // 1_000_000, os.urandom(10))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not RUNNER_USER:
        yield tmp_path_factory.mktemp("home")
        return
    made = Path(tempfile.mkdtemp(prefix="kodo-home-"))  # where pytest has its own nobody else may enter
    yield made
    leave_folder(made)
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def account(home: Path) -> Account | None:
    """The account that runs the flows, where it is not the node's own."""
    return settle(home, RUNNER_USER, [SCOPE])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(home: Path, account: Account | None) -> AsyncIterator[Executor]:
    if account is not None:
        settings = {
            "home": str(home / FOLDER),
            "namespace": "kodo-test",
            "roots": [str(SCOPE)],
            "preload": ["ray_flows:hello"],
            "num_cpus": 2,
            "object_store_bytes": OBJECT_STORE_BYTES,
            "runners": 2,
            "log_s": 0.0,
            "on_ray": True,
            "stays": True,
        }
        apart = ApartExecutor(as_account(account), settings)
        await apart.start()
        yield apart
        await apart.aclose()
        return
    made = RayExecutor(
        home, "kodo-test", [SCOPE], lambda: ["ray_flows:hello"], num_cpus=2, object_store_bytes=OBJECT_STORE_BYTES
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
        deadline = time.monotonic() + 120
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
async def run(executor: Executor) -> AsyncIterator[Callable[..., Awaitable[Run]]]:
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
