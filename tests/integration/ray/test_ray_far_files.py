"""Files and memory of what runs on another machine of a node's Ray cluster: a second raylet with files of its own."""

import asyncio
import gc
import hashlib
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import pytest_asyncio

from kodo.access.null import NullProvider
from kodo.node.clock import SystemClock
from kodo.node.executors.executor import InputFile, RunSpec
from kodo.node.executors.ray.cluster import _environment, driver_environment, start_cluster, stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from kodo.node.files.outputs import Outputs
from kodo.node.requests.memories import Memories
from kodo.node.runs.flow_requests import Asking
from kodo.protocol.access import Grant, Principal

from .conftest import OBJECT_STORE_BYTES, Run, new_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAR = {"resources": {"far": 1}}
BIG = 192 << 20
SPARE = 64 << 20
"""Memory that a transfer may take whatever its size: pieces on their way, and what else a process needs."""

START = """
import sys, types
from ray.scripts import scripts
known = scripts.ray_constants
# Everything stays on loopback, where Ray refuses a second machine; only its command line asks.
scripts.ray_constants = types.SimpleNamespace(**{**vars(known), "ENABLE_RAY_CLUSTER": True})
sys.argv[0] = "ray"
scripts.cli()
"""

FLOWS = """
import os
import tempfile
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from kodo.flow import File, memory, output

def where():
    return ray.get_runtime_context().get_node_id()

def make(size: int):
    block = os.urandom(1 << 20)
    output.write("big.bin", (index.to_bytes(4, "big") + block[4:] for index in range(size >> 20)))
    return where()

def remember():
    away = next(node["NodeID"] for node in ray.nodes() if node["NodeID"] != where())
    on_the_other = ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(away, soft=False))

    @on_the_other
    def there(number):
        memory.short.set("from", where())
        seen = memory.long.update("n", lambda value: value + number, 0)
        memory.shared("kb").files.write("notes.bin", bytes(3_000_000))
        # Not where this task happens to work: that is the folder from which its raylet was started.
        with tempfile.TemporaryDirectory() as folder:
            size = memory.shared("kb").files.fetch("notes.bin", os.path.join(folder, "notes.bin")).stat().st_size
        try:
            memory.shared("")
        except Exception as error:
            said = type(error).__name__
        return {"where": where(), "seen": seen, "size": size, "said": said}

    told = ray.get(there.remote(5))
    refused = None
    try:
        ray.get(on_the_other(lambda: memory.shared("closed").get("x")).remote())
    except Exception as error:
        refused = str(error)
    return {"here": where(), "n": memory.long.get("n"), "from": memory.short.get("from"), "refused": refused, **told}

def read(doc: File, text: str):
    import hashlib
    with open(doc, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"where": where(), "sha256": digest, "doc": str(doc), "text": text}
"""


@pytest.fixture(scope="module")
def far_cluster(home):
    """One head, and a second raylet with the custom resource `far`; both carry the home's mark and end with it."""
    cluster = start_cluster(home, num_cpus=1, object_store_bytes=OBJECT_STORE_BYTES)
    command = [
        sys.executable,
        "-c",
        START,
        "start",
        f"--address={cluster.address}",
        "--node-ip-address=127.0.0.1",
        "--num-cpus=1",
        '--resources={"far": 1}',
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-log-monitor=false",
        "--object-store-memory=100000000",
    ]
    try:
        with open(home / "far.log", "w") as log:
            subprocess.run(
                command,
                env=_environment(home),
                check=True,
                stdout=log,
                stderr=log,
                timeout=60,
                stdin=subprocess.DEVNULL,
            )
        yield cluster
    finally:
        stop_cluster(home)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(home, far_cluster, tmp_path_factory):
    scope = tmp_path_factory.mktemp("scope")
    (scope / "far_flows.py").write_text(FLOWS)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in driver_environment(home).items():
            patch.setenv(name, value)
        made = RayExecutor(
            tmp_path_factory.mktemp("node"),
            "kodo-far",
            [scope],
            ray_address=far_cluster.address,
            runners=0,
            entries=lambda: ["far_flows:x"],
        )
        try:
            await made.start()
            yield made
        finally:
            await made.aclose()


async def launch(far, flow, files=(), **inputs):
    return Run(await far.launch(RunSpec(new_id(), flow, f"far_flows:{flow}", inputs, FAR, tuple(files))))


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_folders():
    return set(Path(tempfile.gettempdir()).glob("kodo-run-*"))


def fill(path):
    with open(path, "wb") as file:
        for index in range(BIG >> 20):
            file.write(index.to_bytes(4, "big") * (1 << 18))


class Peak:
    """How far this process's memory rises above what it is at the beginning."""

    def __enter__(self):
        gc.disable()  # a node looks for garbage seldom
        self._process, self._over = psutil.Process(), threading.Event()
        self._before = self._own()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _own(self):
        memory = self._process.memory_info()
        return memory.rss - memory.shared  # Ray's object store, which has a bound of its own, is shared

    def _watch(self):
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, self._own() - self._before)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(5)
        gc.enable()


async def test_an_output_of_another_machine_arrives_whole_and_is_never_held_in_memory(far, tmp_path):
    import ray

    outputs = Outputs(tmp_path / "outputs")
    outputs.open()
    run = await launch(far, "make", size=BIG)
    said = (await run.until("output")).data
    with Peak() as peak:
        row = await outputs.fetch(run.runner, said)
    end = await run.end()
    assert end["result"] != ray.get_runtime_context().get_node_id()
    stored = outputs.root / run.runner.fid / "big.bin"
    assert await asyncio.to_thread(sha256_of, stored) == said["sha256"] == row.manifest.sha256.hex()
    assert (row.manifest.size, len(row.manifest.chunks)) == (BIG, BIG >> 20)
    assert peak.bytes < SPARE


async def test_an_uploaded_file_gets_to_another_machine_and_goes_with_the_run(far, tmp_path):
    file = tmp_path / "data"
    await asyncio.to_thread(fill, file)
    sha256 = await asyncio.to_thread(sha256_of, file)
    uid = "upload-" + new_id()
    with Peak() as peak:
        run = await launch(far, "read", [InputFile(uid, "doc.bin", file, BIG, sha256)], doc=uid, text="t")
    end = await run.end()
    assert (end["event"], end["result"]["sha256"], end["result"]["text"]) == ("final", sha256, "t")
    there = Path(end["result"]["doc"])
    assert (there.name, there.is_relative_to(tmp_path)) == ("doc.bin", False)
    assert not await asyncio.to_thread(there.exists)
    assert peak.bytes < SPARE


async def test_a_file_that_is_not_what_was_uploaded_stops_the_launch(far, tmp_path):
    file = tmp_path / "data"
    file.write_text("something else")
    uid = "upload-" + new_id()
    before = run_folders()
    with pytest.raises(Exception, match="did not arrive as it was sent"):
        await launch(far, "read", [InputFile(uid, "doc", file, 14, "0" * 64)], doc=uid, text="t")
    assert run_folders() <= before


class Keeper(NullProvider):
    """Lets everybody use the shared memory `kb`, and no other."""

    async def recall(self, principal: str) -> Principal:
        return Principal(principal, principal, grants=(Grant("memory", "kb", mode="w"),))


async def test_a_task_on_another_machine_has_the_memories_of_its_run(far, tmp_path):
    async with Memories(tmp_path / "memory", Keeper("home"), SystemClock()) as memories:
        spec = RunSpec(new_id(), "far_flows.remember", "far_flows:remember", {}, {})
        run = Run(await far.launch(spec))
        row = SimpleNamespace(fid=spec.fid, path=spec.path, principal="ana")
        asking = Asking({"memory": memories.answer})
        serving = asyncio.ensure_future(asking.serve(SimpleNamespace(row=row), run.runner))
        try:
            end = await run.end()
        finally:
            serving.cancel()
            await asyncio.wait([serving])
    assert end["event"] == "final", end
    told = end["result"]
    assert told["where"] == told["from"] != told["here"]
    assert (told["seen"], told["n"], told["size"]) == (5, 5, 3_000_000)
    assert told["said"] == "UsageError"
    assert "grant" in told["refused"]
