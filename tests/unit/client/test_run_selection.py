"""Which runs are meant: what is asked of a node, what is left out here, and what people write for times."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from kodo.client import RunSelection
from kodo.client.known_runs import KnownRuns
from kodo.client.run_selection import latest, parse_since, parse_until, selected_rows
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, UsageError
from tests.support.world import World

NOW = datetime.datetime(2026, 11, 24, 18, 30, tzinfo=datetime.UTC)
ROW = {
    "fid": "0" * 26,
    "path": "flows.Report",
    "name": "Weekly Report",
    "state": "done",
    "created": 5000,
    "tags": ["Q4"],
}


def ms(*when: int) -> int:
    return int(datetime.datetime(*when).timestamp() * 1000)  # type: ignore[arg-type, misc]  # noqa: DTZ001 - local


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (RunSelection(), True),
        (RunSelection(state="done"), True),
        (RunSelection(state="error"), False),
        (RunSelection(state="pending"), False),
        (RunSelection(flow="*REPORT*"), True),
        (RunSelection(flow="flows.*"), True),
        (RunSelection(flow="report"), False),
        (RunSelection(tag="q4"), True),
        (RunSelection(tag="q"), False),
        (RunSelection(since=5000), True),
        (RunSelection(since=5001), False),
        (RunSelection(until=5001), True),
        (RunSelection(until=5000), False),
        (RunSelection(search="weekly"), True),
        (RunSelection(search="Q4"), True),
        (RunSelection(search="monthly"), False),
        (RunSelection(search="weekly", tag="q1"), False),
    ],
)
def test_all_that_is_given_has_to_hold(wanted: RunSelection, fits: bool) -> None:
    assert wanted.fits(ROW) is fits


def test_a_node_that_shows_inputs_has_searched_them_itself() -> None:
    assert RunSelection(search="bikes").fits({**ROW, "inputs": {}})


@pytest.mark.parametrize("state", ["queued", "running"])
def test_pending_is_queued_or_running(state: str) -> None:
    assert RunSelection(state="pending").fits({**ROW, "state": state})


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "asleep"},
        {"flow": ""},
        {"tag": "x" * 129},
        {"search": "x" * 201},
        {"since": 5, "until": 5},
        {"limit": 0},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RunSelection(**wrong)


@pytest.mark.parametrize(("wanted", "narrow"), [(RunSelection(), False), (RunSelection(tag="x"), True)])
def test_it_is_known_whether_anything_is_left_out(wanted: RunSelection, narrow: bool) -> None:
    assert wanted.narrow is narrow


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026-11-24", ms(2026, 11, 24), ms(2026, 11, 25)),
        ("2026-11-24T18:00", ms(2026, 11, 24, 18), ms(2026, 11, 24, 18)),
        ("2026-11-24 18:00:30", ms(2026, 11, 24, 18, 0, 30), ms(2026, 11, 24, 18, 0, 30)),
        ("2026-11-24T18:00+00:00", int(NOW.timestamp() - 1800) * 1000, int(NOW.timestamp() - 1800) * 1000),
        ("2d", int(NOW.timestamp() - 172_800) * 1000, int(NOW.timestamp() - 172_800) * 1000),
        ("90min", int(NOW.timestamp() - 5400) * 1000, int(NOW.timestamp() - 5400) * 1000),
        ("9999999d", 0, 0),
    ],
)
def test_times_are_durations_or_dates_and_a_day_is_meant_whole(text: str, since: int, until: int) -> None:
    assert (parse_since(text, NOW), parse_until(text, NOW)) == (since, until)


@pytest.mark.parametrize(
    "text", ["", "x", "7", "2w", "24.11.2026", "2026-13-01", "2026-11-24T25:00", "-1d", "\x1b[2J"]
)
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="2d"):
        parse_since(text, NOW)


def rows(*numbers: int, node: str = "") -> list[dict[str, Any]]:
    return [{"fid": f"{number:026}", "node": node} for number in numbers]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [int(row["fid"]) for row in found]


def test_the_latest_of_all_groups_are_kept() -> None:
    assert numbers(latest([rows(1, 4), rows(3, 2)], 3)) == [4, 3, 2]
    assert numbers(latest([rows(1, 4), rows(3, 2)], None)) == [4, 3, 2, 1]
    assert latest([], 3) == []


def test_a_group_that_has_more_crowds_nobody_out() -> None:
    assert numbers(latest([rows(1), rows(*range(10, 90))], 4)) == [89, 88, 87, 1]


class OldNode:
    """A node that takes what nodes took before there was more to ask for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, args: dict[str, Any]) -> dict[str, Any]:
        self.asked.append({name: value for name, value in args.items() if name not in ("p", "pp")})
        if unknown := set(args) - {"state", "path", "since", "others", "p", "pp"}:
            arg = sorted(unknown)[0]
            raise CallError(400, "bad-args", f"run.list: {arg}", {"arg": arg})
        made = [
            {**ROW, "fid": f"{1:026}", "state": "pending", "queue_position": 2},
            {**ROW, "fid": f"{2:026}", "state": "pending", "queue_position": None},
        ]
        return {"result": made, "total_pages": 1}


async def test_an_older_node_is_asked_for_what_it_knows(world: World, tmp_path: Path) -> None:
    old = OldNode()
    world.service.answers["run.list"] = old
    async with world.client(tmp_path / "h") as client:
        remote = await client.node("n.example")
        for state, fids in (("queued", [1]), ("running", [2]), ("pending", [1, 2])):
            found = await selected_rows(remote, RunSelection(state=state, flow="*report"))
            assert [int(row["fid"]) for row in found] == fids
            assert old.asked[-1] == {"state": "pending"}
        assert {row["state"] for row in found} == {"queued", "running"}


async def test_another_mistake_is_not_taken_for_an_old_node(world: World, tmp_path: Path) -> None:
    def refuses(args: dict[str, Any]) -> Any:
        raise CallError(400, "bad-args", "run.list: since", {"arg": "since"})

    world.service.answers["run.list"] = refuses
    async with world.client(tmp_path / "h") as client:
        with pytest.raises(CallError, match="since"):
            await selected_rows(await client.node("n.example"), RunSelection())


async def test_no_more_is_read_than_the_limit_and_one(world: World, tmp_path: Path) -> None:
    asked: list[int] = []

    def endless(args: dict[str, Any]) -> dict[str, Any]:
        asked.append(args["pp"])
        return {"result": [{**ROW, "fid": f"{number:026}"} for number in range(args["pp"])], "total_pages": 1 << 40}

    world.service.answers["run.list"] = endless
    async with world.client(tmp_path / "h") as client:
        found = await client.find_runs(RunSelection(limit=7), "n.example")
    assert (len(found.rows), found.more, asked) == (7, True, [8])


async def test_a_known_node_that_is_away_is_named(world: World, tmp_path: Path) -> None:
    world.service.answers["run.list"] = lambda args: {"result": [ROW], "total_pages": 1}
    async with world.client(tmp_path / "h") as client:
        await client.find_runs(RunSelection(), "n.example")
        await world.leave()
        found = await client.find_runs(RunSelection())
    assert (found.rows, list(found.away)) == ([], ["n.example"])


def test_a_run_is_meant_by_its_id_as_a_table_shortens_it(tmp_path: Path) -> None:
    known = KnownRuns(tmp_path / "known_runs")
    fids = ["01jd2n8x4q5w6e7r8t9y0abcde", "01jd2n8x4q5w6e7r8t9yzabcde"]
    known.add(dict.fromkeys(fids, Identity.from_seed(bytes(32)).peer_id))
    assert known.whole("flows.e…9y0abcde") == fids[0]
    assert known.whole(f"n.example/{fids[0]}") == f"n.example/{fids[0]}"
    for text, said in (("flows.e…xxxxxx", "no known runs"), ("…abcde", "no known runs")):
        with pytest.raises(UsageError, match=said):
            known.whole(text)
    known.add({"0" * 18 + "9y0abcde": Identity.from_seed(bytes(32)).peer_id})
    with pytest.raises(UsageError, match="several known runs"):
        known.whole("flows.e…9y0abcde")
