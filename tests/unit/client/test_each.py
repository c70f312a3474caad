"""Many runs of one flow: each row once, a few at a time, whatever becomes of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.client.each import MAX_ROWS, Outcome, row_keys, run_each
from kodo.p2p.errors import CallError, UsageError
from tests.support.world import World

SECRET = {"type": "object", "properties": {"n": {"type": "integer"}, "token": {"type": "string", "writeOnly": True}}}


def keys(*rows: dict[str, Any], batch: str = "", path: str = "a.b") -> list[str]:
    return list(row_keys(batch, path, rows, SECRET))


@given(st.lists(st.dictionaries(st.sampled_from("nmp"), st.integers(0, 2)), max_size=12))
def test_each_row_has_a_key_of_its_own_and_the_same_again(rows: list[dict[str, int]]) -> None:
    made = keys(*rows)
    assert len(set(made)) == len(rows)
    assert keys(*rows) == made
    assert keys(*rows[: len(rows) // 2]) == made[: len(rows) // 2]
    assert not set(keys(*rows, batch="again")) & set(made)
    assert not set(keys(*rows, path="other")) & set(made)


def test_a_key_tells_nothing_of_a_secret() -> None:
    assert keys({"n": 1, "token": "a"}) == keys({"n": 1, "token": "b"})
    assert keys({"n": 1, "token": "a"}) != keys({"n": 2, "token": "a"})


class Node:
    """Answers launches: `busy` so often first, and refuses the row 2."""

    def __init__(self, busy: int = 0):
        self.busy = busy
        self.runs: dict[str, str] = {}
        self.at_once = self.most = 0
        self.asked = 0

    async def __call__(self, request: Any) -> Any:
        match request.op:
            case "flow.schema":
                return {"path": "flows.b", "name": "n", "schema": {"type": "object"}}
            case "run.launch":
                self.asked += 1
                if self.busy:
                    self.busy -= 1
                    raise CallError(429, "busy", "later", {"retry_after_ms": 1})
                if request.args["inputs"]["n"] == 2:
                    raise CallError(400, "bad-inputs", "n is 2")
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                fid = self.runs.setdefault(request.args["key"], f"{len(self.runs):026d}")
                return {"fid": fid, "state": "pending"}
            case "run.stream":
                names = ["final"] if request.args["fid"][-1] != "2" else ["lock"]
                data = {"final": {"result": 1}, "lock": {"lid": "l", "title": "t", "schema": {}}}
                for seq, name in enumerate(names, 1):
                    await request.send({"seq": seq, "at": 1, "kind": "process", "event": name, "data": data[name]})
                self.at_once -= 1
                return {"last_seq": 1, "state": "done"}
        raise CallError(404, "no-such-op", request.op)


async def test_what_becomes_of_each_row_is_told_and_a_repetition_makes_no_more_runs(
    world: World, tmp_path: Path
) -> None:
    node, told = Node(), list[Outcome]()
    rows = [{"n": number} for number in (1, 2, 3, 4, 5, 5)]
    async with world.stranger(9, "m.example", node), world.client(tmp_path) as client:
        found = await run_each(client, "m.example/flows.b", rows, parallel=2, on_outcome=told.append)
        assert [(each.row, each.state) for each in found] == [
            *((1, "done"), (2, None), (3, "done"), (4, "locked"), (5, "done"), (6, "done"))
        ]
        assert [type(each.error).__name__ for each in found if each.run is None] == ["CallError"]
        assert sorted(each.row for each in told) == [1, 2, 3, 4, 5, 6]
        assert (node.most, len(node.runs)) == (2, 5)
        again = await run_each(client, "m.example/flows.b", rows, wait=False)
        assert [each.run and each.run.fid for each in again] == [each.run and each.run.fid for each in found]
        assert len(node.runs) == 5


async def test_a_node_that_is_busy_is_asked_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodo.client.each._PAUSE_S", 0.001)
    node = Node(busy=3)
    async with world.stranger(9, "m.example", node), world.client(tmp_path) as client:
        [only] = await run_each(client, "m.example/flows.b", [{"n": 1}])
    assert (only.state, node.asked) == ("done", 4)


@pytest.mark.parametrize(("rows", "parallel"), [(MAX_ROWS + 1, 4), (1, 0), (1, 65)])
async def test_a_batch_has_bounds(world: World, tmp_path: Path, rows: int, parallel: int) -> None:
    async with world.client(tmp_path) as client:
        with pytest.raises(UsageError):
            await run_each(client, "n.example/flows.b", [{"n": 1}] * rows, parallel=parallel)
    assert world.service.calls == []
