"""What is done to many runs: which are meant, who agrees, and what goes wrong with one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.cli.bulk import Verb, change_runs, is_bulk, is_over
from kodo.client.run_selection import RunSelection
from kodo.p2p.errors import CallError, UsageError
from tests.support.world import World

FIDS = [f"{number:026d}" for number in range(12)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.host:
        yield world


@pytest.fixture
def context() -> Any:
    said: list[str] = []
    emitted: list[Any] = []
    return SimpleNamespace(
        interactive=False, json=True, say=said.append, emit=emitted.append, said=said, emitted=emitted
    )


class Node:
    """Has runs in three states, and refuses to end the fourth."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    async def __call__(self, request: Any) -> Any:
        match request.op:
            case "run.list":
                states = ["running", "done", "locked"]
                rows = [{"fid": fid, "name": "n", "state": states[i % 3]} for i, fid in enumerate(FIDS)]
                return {"result": rows, "total_pages": 1}
            case "run.kill":
                if request.args["fid"] == FIDS[3]:
                    raise CallError(400, "bad-state", "it is over")
                self.killed.append(request.args["fid"])
                return {"fid": request.args["fid"], "state": "error"}
        raise CallError(404, "no-such-op", request.op)


KILL = Verb("kill", "killed", lambda row: not is_over(row), lambda found: found.kill())


@pytest.mark.parametrize(
    ("fid", "given", "every", "several"),
    [
        (FIDS[0], {}, False, False),
        (None, {"state": "done"}, False, True),
        (None, {}, True, True),
        (None, {"limit": 3}, False, True),
    ],
)
def test_one_run_or_several_are_meant(fid: str | None, given: Any, every: bool, several: bool) -> None:
    assert is_bulk(fid, RunSelection(**given), every=every) is several


@pytest.mark.parametrize(
    ("fid", "given", "every"),
    [(None, {}, False), (None, {"others": True}, False), (FIDS[0], {"state": "done"}, False), (FIDS[0], {}, True)],
)
def test_neither_and_both_are_refused(fid: str | None, given: Any, every: bool) -> None:
    with pytest.raises(UsageError):
        is_bulk(fid, RunSelection(**given), every=every)


async def test_nothing_is_done_before_somebody_agrees(world: World, tmp_path: Path, context: Any) -> None:
    node = Node()
    async with world.stranger(9, "m.example", node), world.client(tmp_path, node="m.example") as client:
        with pytest.raises(UsageError, match="this would kill 8 runs"):
            await change_runs(context, client, RunSelection(flow="*"), KILL, yes=False)
    assert node.killed == []


async def test_what_goes_wrong_with_one_run_does_not_stop_the_others(
    world: World, tmp_path: Path, context: Any
) -> None:
    node = Node()
    async with world.stranger(9, "m.example", node), world.client(tmp_path, node="m.example") as client:
        assert await change_runs(context, client, RunSelection(flow="*"), KILL, yes=True) != 0
    meant = [fid for number, fid in enumerate(FIDS) if number % 3 != 1]
    assert sorted(node.killed) == sorted(set(meant) - {FIDS[3]})
    [told] = context.emitted
    assert (told["total_records"], told["done"], told["failed"]) == (8, 7, 1)
    assert [each["fid"] for each in told["result"] if "error" in each] == [FIDS[3]]


async def test_where_no_run_is_meant_nothing_is_asked(world: World, tmp_path: Path, context: Any) -> None:
    async with world.stranger(9, "m.example", Node()), world.client(tmp_path, node="m.example") as client:
        none = Verb("kill", "killed", lambda row: False, lambda found: found.kill())
        assert await change_runs(context, client, RunSelection(flow="*"), none, yes=False) == 0
    assert context.emitted == [{"total_records": 0, "done": 0, "failed": 0, "result": []}]
