"""What libraries keep of a run is nobody else's, and goes with it."""

import pytest

from kodo.node.executors.runner.storage import OWN, SHARED

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_run_finds_nothing_that_another_one_kept_and_leaves_nothing(run, home):
    for word in ("one", "two"):
        made = await run("remember", word=word)
        assert (await made.end())["result"] == {name: [] for name in OWN}
    assert [path for path in home.rglob("*") if path.name in ("one", "two")] == []


async def test_the_ray_tasks_of_a_flow_keep_things_where_it_does(run, home):
    told = (await (await run("where_things_are_kept")).end())["result"]
    assert told["task"] == told["flow"]
    assert all(told["flow"][name].startswith(str(home / "ray" / "runs")) for name in OWN)
    assert not any(told["flow"][name].startswith(str(home)) for name in SHARED)


async def test_a_flow_may_say_itself_where_a_library_keeps_things(run, tmp_path):
    resources = {"runtime_env": {"env_vars": {"MEM0_DIR": str(tmp_path)}}}
    told = (await (await run("where_things_are_kept", resources)).end())["result"]
    assert {places["MEM0_DIR"] for places in told.values()} == {str(tmp_path)}
