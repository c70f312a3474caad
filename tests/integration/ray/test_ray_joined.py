"""A Ray that was there before: joined, used, and left running. The scope's sources travel to it."""

import shutil

import pytest

from kodo.node.catalog.scope_code import ScopeCode
from kodo.node.executors.executor import RunSpec
from kodo.node.executors.ray.cluster import driver_environment, find_cluster, start_cluster, stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from kodo.p2p.errors import UnreachableError

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def cluster(home):
    try:
        yield start_cluster(home, num_cpus=2, object_store_bytes=150_000_000)
    finally:
        stop_cluster(home)


async def test_a_joined_cluster_gets_the_sources_and_stays_when_the_node_leaves(home, cluster, tmp_path, monkeypatch):
    for name, value in driver_environment(home).items():
        monkeypatch.setenv(name, value)
    scope = tmp_path / "my-scope"
    (scope / "pack").mkdir(parents=True)
    (scope / "pack" / "told.txt").write_text("data")
    (scope / "pack" / "helper.py").write_text(
        "import pathlib\nTEXT = pathlib.Path(__file__).with_name('told.txt').read_text()\n"
    )
    (scope / "joined_flow.py").write_text(
        "import ray\nfrom kodo.flow import output\nfrom pack import helper\n\n"
        "@ray.remote(num_cpus=1)\ndef task():\n    return helper.TEXT\n\n"
        "def start():\n    output.write('x.txt', 'x')\n    return [__file__, ray.get(task.remote())]\n"
    )
    sources = ScopeCode([scope], tmp_path / "code")
    code = await sources.keep(sources.look(), [str(scope)])
    (scope / "pack" / "helper.py").write_text("TEXT = 'edited since'")  # the form is of what was before
    executor = RayExecutor(
        tmp_path / "node",
        "kodo-test",
        [scope],
        lambda: [f"joined_flow:start@{code}"],
        ray_address=cluster.address,
        runners=1,
        entries=lambda: ["joined_flow:start"],
        code=lambda: code,
    )
    await executor.start()
    try:
        shutil.rmtree(scope)  # what is there now is Ray's copy
        runner = await executor.launch(RunSpec("0" * 26, "p", "joined_flow:start", {}, code=code))
        events = []
        while not events or events[-1].event not in ("final", "fatal"):
            events += await runner.poll(events[-1].rseq if events else 0, 5.0)
        assert [event.event for event in events] == ["output", "final"]
        file, text = events[-1].data["result"]
        assert not file.startswith(str(scope))
        assert text == "data"
        assert await runner.read_output("x.txt", 0, 10) == b"x"
        await runner.release()
    finally:
        await executor.aclose()
    assert find_cluster(home) == cluster


async def test_a_cluster_that_is_not_there_is_unreachable(tmp_path):
    executor = RayExecutor(tmp_path, "kodo-test", ray_address="127.0.0.1:1")
    with pytest.raises(UnreachableError):
        await executor.start()
    await executor.aclose()
