"""One inbox over all nodes: what waits, what has ended since one looked, and who could not be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kodo.cli.inbox import News
from kodo.client.inbox import LookedAt
from tests.support.world import FID, World

NOW = 1 << 44  # ms: later than any day before now


def run(number: int, state: str, modified: int, **more: Any) -> dict[str, Any]:
    return {"fid": f"{number:026}", "name": f"F{number}", "state": state, "modified": modified, **more}


@pytest.fixture
def asked(world: World) -> World:
    rows = [
        run(4, "error", NOW + 4, error="ValueError"),
        run(3, "done", NOW + 3, own=False),
        run(2, "pending", NOW + 2),
        run(1, "done", NOW + 1),
    ]
    world.service.answers["run.list"] = {"result": rows, "total_pages": 1}
    world.service.answers["lock.list"] = {"result": [{"fid": FID, "lid": FID, "title": "Which?"}], "total_pages": 1}
    return world


async def test_it_has_what_waits_and_ones_own_runs_that_have_ended_latest_first(asked: World, tmp_path: Path) -> None:
    async with asked.client(tmp_path / "h") as client:
        found = await client.inbox()
    assert [row["title"] for row in found.waiting] == ["Which?"]
    assert [int(row["fid"]) for row in found.ended] == [4, 1]
    assert {row["node"] for row in found.ended + found.waiting} == {"n.example"}
    assert found.seen == {str(asked.host.peer_id): NOW + 4}


async def test_what_was_looked_at_does_not_come_again(asked: World, tmp_path: Path) -> None:
    async with asked.client(tmp_path / "h") as client:
        first = await client.inbox({str(asked.host.peer_id): NOW + 1})
        again = await client.inbox(first.seen)
    assert [int(row["fid"]) for row in first.ended] == [4]
    assert (again.ended, again.seen, len(again.waiting)) == ([], first.seen, 1)


async def test_a_node_that_is_away_is_named(asked: World, tmp_path: Path) -> None:
    async with asked.client(tmp_path / "h") as client:
        await client.inbox(node="n.example")
        await asked.leave()
        found = await client.inbox()
    assert (found.waiting, found.ended, list(found.away)) == ([], [], ["n.example"])


def test_news_are_told_once_each() -> None:
    from kodo.client.inbox import Inbox

    news = News()
    ended = [run(2, "error", 2, peer_id="p"), run(1, "done", 1, peer_id="p")]
    told = news.of(Inbox(waiting=[{"peer_id": "p", "fid": FID, "lid": FID}], ended=ended))
    assert [what for what, _ in told] == ["locked", "done", "error"]
    other = run(1, "done", 1, peer_id="q")
    assert news.of(Inbox(ended=[*ended, other])) == [("done", other)]


def test_when_one_looked_is_kept_and_the_latest_counts(tmp_path: Path) -> None:
    looked = LookedAt(tmp_path)
    assert looked.get() == {}
    looked.put({"a": 5, "b": 1})
    LookedAt(tmp_path).put({"a": 3, "c": 2})
    assert looked.get() == {"a": 5, "b": 1, "c": 2}
    assert looked.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "x", "b": null}', "\xff"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "inbox.json").write_text(text)
    assert LookedAt(tmp_path).get() == {}


def test_strangers_do_not_make_the_note_grow(tmp_path: Path) -> None:
    looked = LookedAt(tmp_path)
    looked.put({str(number): number for number in range(5000)})
    assert sorted(map(int, looked.get())) == list(range(4000, 5000))
