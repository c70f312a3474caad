"""Schedules: launched when due, once, with what their owner may do then; missed times, earlier runs, clocks set."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from kodo.node.launches import schedules
from kodo.node.launches.times import Timing
from kodo.node.store import schedule_rows
from kodo.node.store.store import Store
from kodo.protocol.access import Grant, Principal
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import LID, Node, info, node_of
from tests.unit.node.test_service import FILE, TEXT, TWO

HOUR = 3600
LINGER = [info("flows.linger", "linger")]


async def scheduled(node: Node, **args: Any) -> str:
    given = {"path": "flows.work", "inputs": {"n": 1}, "every_s": HOUR}
    return str((await node.call("schedule.add", **{**given, **args}))["sid"])


async def row(node: Node, sid: str) -> dict[str, Any]:
    rows = (await node.call("schedule.list"))["result"]
    [found] = [each for each in rows if each["sid"] == sid]
    return dict(found)


async def runs(node: Node) -> list[str]:
    return [each["fid"] for each in (await node.call("run.list"))["result"]][::-1]


async def asleep(node: Node) -> None:
    """Let all that is due be settled, in two looks that the node's own task takes after this was called."""
    schedules = node.schedules
    for _ in range(2):
        schedules._news.set()
        await settled(lambda: not schedules._news.is_set())
        looks = schedules.looks
        await settled(lambda: schedules.looks > looks)  # noqa: B023


async def over(node: Node) -> list[str]:
    """Wait until all runs are over; give their fids, the oldest first."""
    fids = await runs(node)
    for fid in fids:
        await node.rig.gone(fid)
    return fids


async def passes(node: Node, clock: StillClock, seconds: float) -> None:
    clock.advance(seconds)
    await asleep(node)


async def test_a_flow_is_launched_whenever_it_is_due(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        begun = clock.ms
        sid = await scheduled(node, tags=["t"])
        await passes(node, clock, HOUR - 1)
        assert await runs(node) == []
        await passes(node, clock, 1)
        [first] = await over(node)
        await passes(node, clock, HOUR)
        [_, second] = await over(node)
        state = await node.call("run.state", fid=second)
        assert (state["inputs"], state["tags"], state["own"]) == ({"n": 1}, ["t"], True)
        assert state["schedule"] == {"sid": sid, "due": begun + 2 * HOUR * 1000}
        [_, flow, *_] = await node.rig.store.events(first)
        assert flow.data["schedule"] == {"sid": sid, "due": begun + HOUR * 1000}
        told = await row(node, sid)
        assert told["last"] == {"due": begun + 2 * HOUR * 1000, "fid": second, "reason": None}
        assert (told["launches"], told["next"][0]) == (2, begun + 3 * HOUR * 1000)
        assert await node.call("schedule.remove", sid=sid) == {"sid": sid, "removed": True}
        await passes(node, clock, HOUR)
        assert await runs(node) == [first, second]


@pytest.mark.parametrize(("missed", "count"), [("once", 1), ("skip", 0)])
async def test_times_at_which_the_node_was_down_are_one_launch_or_none(
    tmp_path: Path, clock: StillClock, missed: str, count: int
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node, missed=missed)
    clock.advance(5.5 * HOUR)
    async with node_of(tmp_path, clock) as node:
        await asleep(node)
        assert len(await over(node)) == count
        told = await row(node, sid)
        assert told["last"]["reason"] == (None if count else "missed")
        assert told["next"][0] == clock.ms + HOUR * 500
        await passes(node, clock, HOUR / 2)
        assert len(await runs(node)) == count + 1


@pytest.mark.parametrize(("overlap", "while_it_runs", "after"), [("skip", 1, 1), ("queue", 1, 2), ("allow", 3, 3)])
async def test_a_time_at_which_an_earlier_run_goes_on(
    tmp_path: Path, clock: StillClock, overlap: str, while_it_runs: int, after: int
) -> None:
    async with node_of(tmp_path, clock, more=LINGER) as node:
        sid = await scheduled(node, path="flows.linger", every_s=60, overlap=overlap)
        await passes(node, clock, 60)
        [first] = await runs(node)
        await node.rig.until(first, "lock")
        for _ in range(2):
            await passes(node, clock, 20)
            await passes(node, clock, 20)
            await passes(node, clock, 20)
        assert len(await runs(node)) == while_it_runs
        told = await row(node, sid)
        assert (first in str(told["last"]["reason"]), told["waits"]) == (overlap != "allow", overlap == "queue")
        await node.call("lock.answer", fid=first, lid=LID, candidate=True)
        await node.rig.gone(first)
        await asleep(node)
        assert len(await runs(node)) == after


async def test_what_waits_in_line_is_not_missed_by_a_restart(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=LINGER) as node:
        await scheduled(node, path="flows.linger", every_s=HOUR, overlap="queue", missed="skip")
        await passes(node, clock, HOUR)
        await passes(node, clock, HOUR)
        [first] = await runs(node)
        await node.rig.store.change(lambda tables: tables.execute("UPDATE schedules SET paused=1"))
        await node.call("run.kill", fid=first)
    clock.advance(HOUR / 2)
    async with Store(tmp_path / "node.db", clock=clock) as store:
        await store.change(lambda tables: tables.execute("UPDATE schedules SET paused=NULL"))
    async with node_of(tmp_path, clock, more=LINGER) as node:
        await asleep(node)
        assert len(await runs(node)) == 2


async def test_an_owner_who_may_not_any_more_launches_nothing(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node)
        whole = await node.provider.present("ana")
        for now, reason in (
            (Principal("ana", "ana"), "not-admitted"),
            (Principal("ana", "ana", grants=(Grant("node", "*"),)), "no-such-flow"),
            (Principal("ana", "ana", grants=(Grant("node", "*"), Grant("flow", "*", 2, "r"))), "not-granted"),
        ):

            async def present(principal: str, now: Principal = now) -> Principal:
                return now

            node.provider.present = present
            await passes(node, clock, HOUR)
            assert str((await row(node, sid))["last"]["reason"]).startswith(f"{reason}: ")
        assert await runs(node) == []

        async def unknown(principal: str) -> None:
            return None

        node.provider.present = unknown
        await passes(node, clock, HOUR)
        assert (await row(node, sid))["waits"] is True

        async def back(principal: str) -> Principal:
            return whole  # type: ignore[no-any-return]

        node.provider.present = back
        await passes(node, clock, 30)
        assert len(await runs(node)) == 1


async def test_a_clock_that_is_set_launches_nothing_twice_and_takes_what_it_leaves_out_for_missed(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        once, skip = await scheduled(node), await scheduled(node, missed="skip")
        await passes(node, clock, HOUR)
        assert len(await over(node)) == 2
        clock.set_by(-HOUR)
        await asleep(node)
        await passes(node, clock, HOUR)
        assert len(await runs(node)) == 2
        clock.set_by(10.5 * HOUR)
        await passes(node, clock, 30)  # it is noticed within half a minute
        assert len(await runs(node)) == 3
        assert ((await row(node, once))["launches"], (await row(node, skip))["launches"]) == (2, 1)


async def test_a_time_whose_run_is_stored_already_makes_no_second_one(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node)
        due = clock.ms + HOUR * 1000
        await passes(node, clock, HOUR)
        first = await over(node)
        back = "UPDATE schedules SET due=? WHERE sid=?"
        await node.rig.store.change(lambda tables: tables.execute(back, (due, sid)))
        await asleep(node)
        assert await runs(node) == first
        assert (await row(node, sid))["next"][0] == due + HOUR * 1000


async def test_a_launch_for_which_there_is_no_room_waits(tmp_path: Path, clock: StillClock) -> None:
    limits = {"flows.linger": {"limits": {"concurrent_runs": 1}}}
    async with node_of(tmp_path, clock, overrides=limits, more=LINGER) as node:
        busy = (await node.call("run.launch", path="flows.linger", inputs={"n": 1}))["fid"]
        await node.rig.until(busy, "lock")
        sid = await scheduled(node, path="flows.linger", at=clock.ms + 1000, every_s=None)
        await passes(node, clock, 1)
        assert (await row(node, sid))["waits"] is True
        await node.call("run.kill", fid=busy)
        await node.rig.gone(busy)
        await passes(node, clock, 3 * HOUR)
        told = await row(node, sid)
        assert (told["launches"], told["next"], told["waits"]) == (1, [], False)


@pytest.mark.parametrize("stuck", [2, 3, 4, 7])
async def test_those_that_go_on_waiting_keep_no_other_from_its_launch(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch, stuck: int
) -> None:
    monkeypatch.setattr(schedules, "_READ", 3)
    limits = {"flows.linger": {"limits": {"concurrent_runs": 1}}}
    async with node_of(tmp_path, clock, overrides=limits, more=LINGER) as node:
        busy = (await node.call("run.launch", path="flows.linger", inputs={"n": 1}))["fid"]
        whole = node.provider.present

        async def unknown(principal: str) -> None:
            return None

        begun = clock.ms
        for number in range(stuck):
            await scheduled(node, path="flows.linger", at=begun + 1000 + number, every_s=None)
        last = [await scheduled(node, at=begun + 2000, every_s=None) for _ in range(2)]
        node.provider.present = unknown
        clock.advance(3)
        for _ in range(4):
            await asleep(node)
        assert all(each["waits"] for each in (await node.call("schedule.list"))["result"])
        node.provider.present = whole
        for _ in range(4):
            await asleep(node)
        assert [(await row(node, sid))["launches"] for sid in last] == [1, 1]
        await node.call("run.kill", fid=busy)


async def test_a_slow_check_of_one_user_delays_no_other_and_makes_no_time_missed(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock, more=LINGER) as node:
        node.session("bob").remote_address = ("198.51.100.9", 1)
        given = {"path": "flows.linger", "inputs": {"n": 1}, "missed": "skip"}
        for _ in range(3):
            await node.call("schedule.add", **given, every_s=HOUR)
        for after in (HOUR, HOUR + 120):
            for peer in ("ana", "bob"):
                await node.call("schedule.add", peer, **given, at=clock.ms + after * 1000)
        present, asked, go_on = node.provider.present, [], asyncio.Event()

        async def slowly(principal: str) -> Any:
            asked.append(principal)
            if principal == "ana":
                await go_on.wait()
            return await present(principal)

        def launched(peer: str) -> int:
            return sum(live.row.principal == peer for live in node.rig.runs.live.values())

        node.provider.present = slowly
        clock.advance(HOUR)
        await settled(lambda: launched("bob") == 1)
        assert sorted(asked) == ["ana", "bob"]
        clock.advance(300)
        go_on.set()
        await settled(lambda: (launched("ana"), launched("bob")) == (5, 2))
        for fid in list(node.rig.runs.live):
            await node.rig.runs.kill(fid, "home")


async def test_a_few_schedules_are_settled_at_once(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        peers = [f"peer{number}" for number in range(12)]
        for number, peer in enumerate(peers):
            node.session(peer).remote_address = (f"198.51.{number}.9", 1)
            await node.call("schedule.add", peer, path="flows.work", inputs={"n": 1}, every_s=HOUR)
        present, asked, go_on = node.provider.present, [], asyncio.Event()

        async def slowly(principal: str) -> Any:
            asked.append(principal)
            await go_on.wait()
            return await present(principal)

        node.provider.present = slowly
        clock.advance(HOUR)
        await settled(lambda: len(asked) >= 8)
        await node.call("schedule.list")
        assert len(asked) == 8
        clock.advance(20)
        go_on.set()
        await settled(lambda: len(asked) == 12)
        assert sorted(asked) == sorted(peers)


async def test_payers_take_turns_and_those_that_wait_come_last(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        node.session("bob").remote_address = ("198.51.100.9", 1)
        sids = {}
        for number, (peer, waits) in enumerate([("ana", 0), ("ana", 1), ("ana", 0), ("bob", 0), ("bob", 1)]):
            given = {"path": "flows.work", "inputs": {"n": 1}, "at": clock.ms + HOUR * 1000 + number}
            sid = (await node.call("schedule.add", peer, **given))["sid"]
            sids[sid] = number
            change = "UPDATE schedules SET waits=? WHERE sid=?"
            await node.rig.store.change(lambda tables: tables.execute(change, (waits, sid)))  # noqa: B023
        for after, order in ((-1, [0, 3, 2, 1, 4]), (1, [0, 3, 2, 4, 1]), (4, [0, 3, 2, 1, 4])):
            mark = (clock.ms + HOUR * 1000 + after, "z")
            now = clock.ms + 2 * HOUR * 1000
            found = await node.rig.store.ask(lambda tables: schedule_rows.due(tables, now, 9, mark))  # noqa: B023
            assert [sids[each.sid] for each in found] == order


async def test_a_schedule_that_is_paused_launches_nothing_and_goes_on_with_the_next_time(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node)
        told = await node.call("schedule.pause", sid=sid)
        assert (told["paused"], told["next"]) == (True, [])
        await passes(node, clock, 2.5 * HOUR)
        told = await node.call("schedule.pause", sid=sid, paused=False)
        assert (told["paused"], told["next"][0]) == (False, clock.ms + HOUR * 500)
        await asleep(node)
        assert await runs(node) == []
        await passes(node, clock, HOUR / 2)
        assert len(await runs(node)) == 1


async def test_what_is_paused_or_goes_on_is_the_schedule_as_it_is_by_then(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        once = await scheduled(node, every_s=None, at=clock.ms + HOUR * 1000)
        often = await scheduled(node)
        read = {sid: await node.schedules.get(sid) for sid in (once, often)}
        await passes(node, clock, HOUR)
        assert len(await over(node)) == 2
        due = {once: None, often: clock.ms + HOUR * 1000}
        for sid, stale in read.items():
            assert stale is not None
            paused = await node.schedules.pause(stale, paused=True)
            assert paused.due == due[sid]
            since = paused.paused
            clock.advance(1)
            assert (await node.schedules.pause(stale, paused=True)).paused == since
            await node.schedules._hold(paused, "waits")
            assert await node.schedules.get(sid) == paused
        [first, second] = [await node.schedules.get(often)] * 2
        assert first is not None
        assert second is not None
        await node.schedules.pause(first, paused=False)
        await passes(node, clock, HOUR)
        assert len(await over(node)) == 3
        going = await node.schedules.get(often)
        assert await node.schedules.pause(second, paused=False) == going
        ended = await node.schedules.get(once)
        assert ended is not None
        assert (await node.schedules.pause(ended, paused=False)).due is None


async def test_files_go_with_the_last_launch_whenever_that_is(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [{**info("flows.read", "read"), "schema": FILE}]
    async with node_of(tmp_path, clock, more=more) as node:
        doc = (await node.call("input.write", **TEXT, pieces=[b"text"]))["upload"]
        given = {"path": "flows.read", "inputs": {"doc": doc}, "every_s": None}
        sid = await scheduled(node, **given, at=clock.ms + HOUR * 1000)
        row = await node.schedules.get(sid)
        assert row is not None
        await node.schedules.pause(row, paused=True)
        await node.schedules._move(row, row.due or 0, "settled before it was paused")
        assert node.schedules.files() == {doc}
        await node.call("schedule.remove", sid=sid)
        change = node.rig.store.change

        async def and_launched(*work: Any) -> Any:
            done = await change(*work)
            monkeypatch.setattr(node.rig.store, "change", change)
            await passes(node, clock, HOUR)
            return done

        monkeypatch.setattr(node.rig.store, "change", and_launched)
        await scheduled(node, **given, at=clock.ms + HOUR * 1000)
        assert len(await over(node)) == 1
        assert node.schedules.files() == frozenset()


async def test_what_a_schedule_cannot_keep_is_refused(tmp_path: Path, clock: StillClock) -> None:
    more = [{**info("flows.two", "work"), "schema": TWO}]
    async with node_of(tmp_path, clock, more=more) as node:
        given = {"path": "flows.two", "inputs": {"n": 1}, "every_s": HOUR}
        for changed, reason in (
            ({"inputs": {"n": 1, "token": "t"}}, "secret-inputs"),
            ({"inputs": {}}, "bad-inputs"),
            ({"inputs": {"n": "x"}}, "bad-inputs"),
            ({"inputs": {"n": 1, "place": {"a": "x" * 70_000}}}, "too-large"),
            ({"path": "flows.none"}, "no-such-flow"),
            ({"path": None}, "bad-args"),
            ({"every_s": None}, "bad-args"),
            ({"every_s": 59}, "bad-args"),
            ({"cron": "* * * * *"}, "bad-args"),
            ({"every_s": None, "cron": "* * * *"}, "bad-args"),
            ({"every_s": None, "cron": "* * * * *", "tz": "Europe/Bonn"}, "bad-args"),
            ({"every_s": None, "at": clock.ms}, "bad-args"),
            ({"missed": "all"}, "bad-args"),
            ({"overlap": "both"}, "bad-args"),
        ):
            refused = await node.refused("schedule.add", **{**given, **changed})
            assert refused.reason == reason, changed
            assert "tttt" not in str(refused)
        assert (await node.call("schedule.list"))["total_records"] == 0


async def test_one_user_has_a_hundred_schedules_and_others_have_room(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        node.session("bob").remote_address = ("192.0.2.99", 1)
        for _ in range(100):
            await scheduled(node)
        assert (await node.refused("schedule.add", path="flows.work", inputs={"n": 1}, every_s=60)).reason == "busy"
        await node.call("schedule.add", "bob", path="flows.work", inputs={"n": 1}, every_s=60)
        page = await node.call("schedule.list", p=2, pp=60)
        assert (page["total_records"], len(page["result"])) == (100, 40)


async def test_files_that_a_schedule_needs_stay(tmp_path: Path, clock: StillClock) -> None:
    more = [{**info("flows.read", "read"), "schema": FILE}]
    async with node_of(tmp_path, clock, more=more) as node:
        doc = (await node.call("input.write", **TEXT, pieces=[b"text"]))["upload"]
        sid = await scheduled(node, path="flows.read", inputs={"doc": doc}, every_s=48 * HOUR)
    async with node_of(tmp_path, clock, more=more) as node:
        clock.advance(47 * HOUR)
        await node.rig.uploads.sweep()
        await passes(node, clock, HOUR)
        [fid] = await runs(node)
        assert (await node.rig.all_events(fid))[-1].data["result"] == "text"
        await node.call("schedule.remove", sid=sid)
        clock.advance(25 * HOUR)
        await node.rig.uploads.sweep()
        assert list(node.rig.uploads.root.iterdir()) == []


async def test_a_schedule_of_somebody_else_is_not_there(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node, tags=["private"])
        assert (await node.call("schedule.list", "bob", others=True))["result"] == []
        for op in ("schedule.pause", "schedule.remove"):
            assert (await node.refused(op, "bob", sid=sid)).reason == "no-such-schedule"
        [shown] = (await node.call("schedule.list", "home", others=True))["result"]
        assert (shown["inputs"], shown["tags"], shown["own"], shown["launcher"]) == ({}, [], False, "ana")
        await node.call("schedule.pause", "home", sid=sid)
        await node.call("schedule.remove", "home", sid=sid)
        assert (await node.call("schedule.list"))["result"] == []
        lines = (await node.call("node.audit", "home"))["result"]
        assert [line["what"] for line in lines] == ["schedule.remove", "schedule.pause"]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("bad-inputs: n: 'private' is no number: 4", "bad-inputs"),
        ("waits: the disk is full", "waits"),
        ("missed", "missed"),
        (None, None),
    ],
)
async def test_of_a_reason_others_are_shown_no_message(
    tmp_path: Path, clock: StillClock, reason: str | None, shown: str | None
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await scheduled(node)
        change = "UPDATE schedules SET last_due=1, last_reason=? WHERE sid=?"
        await node.rig.store.change(lambda tables: tables.execute(change, (reason, sid)))
        assert (await row(node, sid))["last"]["reason"] == reason
        [told] = (await node.call("schedule.list", "home", others=True))["result"]
        assert told["last"]["reason"] == shown
        assert (await node.call("schedule.pause", "home", sid=sid))["last"]["reason"] == shown


async def test_the_name_of_a_removed_user_with_schedules_is_not_given_away(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await node.call("user.add", "home", name="ana")
        ana = Principal("ana", "peer", "ana", grants=(Grant("node", "*"), Grant("flow", "*", 2, "x")))
        identify = node.provider.identify

        async def as_ana(peer_id: str, token: str | None = None) -> Principal:
            return ana

        node.provider.identify = as_ana
        await node.call("schedule.add", path="flows.work", inputs={"n": 1}, every_s=60)
        node.provider.identify = identify
        await node.call("user.remove", "home", name="ana")
        assert (await node.refused("user.add", "home", name="ana")).reason == "name-used"
        await passes(node, clock, 60)
        assert (await node.call("run.list", "home", others=True))["result"] == []


async def test_a_list_of_rare_dates_is_made_beside_the_loop(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upcoming = Timing.upcoming
    threads: list[int] = []

    def noted(timing: Timing, now: int, count: int) -> list[int]:
        threads.append(threading.get_ident())
        return upcoming(timing, now, count)

    async with node_of(tmp_path, clock) as node:
        for _ in range(2):
            await scheduled(node, cron="0 0 29 2 0#5", every_s=None)
        monkeypatch.setattr(Timing, "upcoming", noted)
        assert [len(each["next"]) for each in (await node.call("schedule.list"))["result"]] == [3, 3]
    assert len(threads) == 2
    assert threading.get_ident() not in threads
