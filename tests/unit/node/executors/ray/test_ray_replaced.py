"""An embedded Ray that died is replaced, whatever fails meanwhile; without Ray, in virtual time."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.executor import RunSpec
from kodo.node.executors.ray import cluster as ray_cluster
from kodo.node.executors.ray import executor as ray_executor
from kodo.node.executors.ray.executor import RayExecutor
from kodo.p2p.errors import CapacityError, DeadlineError, KodoError
from tests.support.virtual_time import run_virtual

FAILURES = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    KodoError("Ray did not start"),
    DeadlineError("it takes too long"),
    RuntimeError("Ray's own"),
]


class Link:
    """A connection that can be used."""

    left = 0

    def lose(self, why: str) -> None:
        pass

    def disconnect(self) -> None:
        Link.left += 1


STEPS = ["stop_cluster", "start_cluster", "_connect", "use"]
PLACES = [(step, failure) for step in STEPS for failure in FAILURES] + [("_sweep", FAILURES[0])]


@pytest.mark.parametrize(("where", "failure"), PLACES, ids=repr)
def test_whatever_fails_while_ray_is_replaced_it_is_tried_again(
    where: str, failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def step(name: str, answer: Any = None) -> Callable[..., Any]:
        def do(*args: Any, **named: Any) -> Any:
            calls.append(name)
            if name == where and calls.count(name) <= 3:
                raise failure
            return answer

        return do

    async def inline(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    async def replace() -> None:
        executor = RayExecutor(tmp_path, "test")
        use = step("use")

        async def used(*args: Any) -> None:
            use()

        monkeypatch.setattr(asyncio, "to_thread", inline)
        monkeypatch.setattr(ray_executor, "stop_cluster", step("stop_cluster"))
        monkeypatch.setattr(ray_executor, "start_cluster", step("start_cluster"))
        monkeypatch.setattr(executor, "_connect", step("_connect", Link()))
        monkeypatch.setattr(executor, "_sweep", step("_sweep"))
        monkeypatch.setattr(executor._warm, "use", used)
        async with asyncio.TaskGroup() as executor._group:
            await executor._replace()
        assert executor._up.is_set()

    run_virtual(replace())
    assert calls.count(where) == (1 if where == "_sweep" else 4)


def test_a_run_that_is_launched_meanwhile_waits_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def launch() -> None:
        executor = RayExecutor(tmp_path, "test")  # as it is while Ray is replaced
        link = Link()
        monkeypatch.setattr(link, "totals", {"CPU": 2.0}, raising=False)
        spec = RunSpec("f" * 26, "flow", "flow:run", {}, resources={"num_gpus": 1})
        async with asyncio.TaskGroup() as group:
            launching = group.create_task(refusal(executor, spec))
            await asyncio.sleep(60)
            assert not launching.done()
            executor._link = link  # type: ignore[assignment]
            executor._up.set()
        assert "num_gpus" in launching.result() or "GPU" in launching.result()

    async def refusal(executor: RayExecutor, spec: RunSpec) -> str:
        with pytest.raises(CapacityError) as refused:
            await executor.launch(spec)
        return str(refused.value)

    run_virtual(launch())


def test_a_disk_that_takes_nothing_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray").write_text("where a folder should be")
    with pytest.raises(CapacityError, match="free disk space"):
        ray_cluster.start_cluster(tmp_path)
