"""Locks: answered once, judged by the flow, timed, and still there after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner, LockDeniedError
from kodo.node.runs.launch import RunSettings
from kodo.node.store.rows import NewEvent
from kodo.p2p.errors import CallError
from kodo.protocol.events import LOCK_VERDICT_S, RunState
from tests.unit.node.conftest import StillClock, fid_of, settled
from tests.unit.node.rig import ANA, BOB, Rig, overtaken, rig, rig_of

LID = "0" * 25 + "1"
LID2 = "0" * 25 + "2"
SCHEMA = {"type": "object", "properties": {"go": {"type": "boolean"}}, "required": ["go"]}
KEEP = RunSettings(keep_runs=True)


def asking(
    judge: Callable[[Any], Any] = lambda value: value, **data: Any
) -> Callable[[InProcessRunner], Awaitable[Any]]:
    async def flow(run: InProcessRunner) -> Any:
        return await run.lock(LID, SCHEMA, judge=judge, **data)

    return flow


def refusal(error: object) -> tuple[int, str]:
    assert isinstance(error, CallError), error
    return error.code, error.reason


async def refused(work: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(CallError) as caught:
        await work
    return refusal(caught.value)


async def locked(node: Rig, **fields: Any) -> str:
    fid = await node.launch(**fields)
    await node.until(fid, "lock")
    return fid


async def test_an_answer_that_the_flow_accepts_unlocks(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        assert node.runs.live[fid].view.state is RunState.LOCKED
        unlock = await node.locks.answer(fid, LID, {"go": True}, ANA)
        assert (unlock["lid"], unlock["answer"]) == (LID, {"go": True})
        events = await node.all_events(fid)
        assert [event.event for event in events][3:] == ["lock", "candidate", "unlock", "final"]
        assert events[4].data == {"lid": LID, "cid": unlock["cid"], "by": "ana", "answer": {"go": True}}
        assert events[-1].data["result"] == {"go": True}


async def test_an_answer_that_the_schema_forbids_is_refused_with_its_places(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        with pytest.raises(CallError) as caught:
            await node.locks.answer(fid, LID, {"go": "maybe"}, ANA)
        assert refusal(caught.value) == (400, "bad-candidate")
        assert [place["at"] for place in caught.value.data["places"]] == ["/go"]
        assert len(await node.store.events(fid)) == 4


async def test_a_denied_answer_gives_the_reasons_and_leaves_the_lock_open(tmp_path: Path, clock: StillClock) -> None:
    def judge(value: Any) -> Any:
        if not value["go"]:
            raise LockDeniedError("too early", "ask the boss")
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(judge)}) as node:
        fid = await locked(node)
        with pytest.raises(CallError) as caught:
            await node.locks.answer(fid, LID, {"go": False}, ANA)
        assert refusal(caught.value) == (409, "denied")
        assert caught.value.data == {"reasons": ["too early", "ask the boss"]}
        assert (await node.locks.get(fid, LID, ANA)).candidate is None
        assert (await node.locks.answer(fid, LID, {"go": True}, ANA))["answer"] == {"go": True}


async def test_of_many_answers_at_once_one_wins(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        answers = await asyncio.gather(
            *(node.locks.answer(fid, LID, {"go": True}, ANA) for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(answer, dict) for answer in answers) == 1
        assert {refusal(answer) for answer in answers if not isinstance(answer, dict)} <= {
            (409, "busy"),
            (410, "answered"),
        }
        assert [event.event for event in await node.all_events(fid)].count("candidate") == 1


async def test_while_one_answer_is_judged_others_are_busy(tmp_path: Path, clock: StillClock) -> None:
    verdict = asyncio.Event()

    async def slow(value: Any) -> Any:
        await verdict.wait()
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(slow)}) as node:
        fid = await locked(node)
        first = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await node.until(fid, "candidate")
        assert await refused(node.locks.answer(fid, LID, {"go": True}, ANA)) == (409, "busy")
        verdict.set()
        assert (await first)["answer"] == {"go": True}


async def test_no_verdict_in_time_leaves_the_lock_open(tmp_path: Path, clock: StillClock) -> None:
    judged: list[Any] = []

    async def first_never(value: Any) -> Any:
        judged.append(value)
        if len(judged) == 1:
            await asyncio.get_running_loop().create_future()
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(first_never, verdict_s=30)}) as node:
        fid = await locked(node)
        first = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await settled(lambda: judged)
        clock.advance(29)
        assert not first.done()
        clock.advance(2)
        assert await refused(first) == (504, "no-verdict")
        assert [event.event for event in await node.store.events(fid, 5)] == ["unlock-timeout"]
        assert (await node.locks.answer(fid, LID, {"go": True}, ANA))["answer"] == {"go": True}


@pytest.mark.parametrize("hours", [-2, 2])
async def test_the_time_for_a_verdict_is_neither_cut_nor_stretched_by_a_clock_that_is_set(
    tmp_path: Path, clock: StillClock, hours: int
) -> None:
    judged, verdict = asyncio.Event(), asyncio.Event()

    async def waits(value: Any) -> Any:
        judged.set()
        await verdict.wait()
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(waits, verdict_s=30)}) as node:
        fid = await locked(node)
        first = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await judged.wait()
        clock.set_by(hours * 3600)
        clock.advance(29)
        assert not first.done()
        clock.advance(2)
        assert await refused(first) == (504, "no-verdict")
        assert "unlock-timeout" in [event.event for event in await node.store.events(fid)]
        verdict.set()


async def test_a_late_verdict_for_an_obsolete_answer_still_counts_when_the_flow_went_on(
    tmp_path: Path, clock: StillClock
) -> None:
    late: list[asyncio.Event] = []

    async def slow(value: Any) -> Any:
        late.append(asyncio.Event())
        await late[-1].wait()
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(slow, verdict_s=30)}) as node:
        fid = await locked(node)
        first = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await settled(lambda: len(late) == 1)
        clock.advance(31)
        assert await refused(first) == (504, "no-verdict")
        second = asyncio.create_task(node.locks.answer(fid, LID, {"go": False}, ANA))
        await settled(lambda: len(late) == 2)
        late[0].set()
        assert await refused(second) == (410, "answered")


async def test_a_lock_that_nobody_answers_takes_its_default(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking(expires_s=100, default={"go": False})}) as node:
        fid = await locked(node)
        await asyncio.sleep(0)
        clock.advance(101)
        events = await node.all_events(fid)
        assert [event.event for event in events][3:] == ["lock", "lock-timeout", "final"]
        assert events[4].data == {"lid": LID, "default": {"go": False}}
        assert events[5].data["result"] == {"go": False}


async def test_a_lock_without_default_that_nobody_answers_ends_the_run(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking(expires_s=100)}) as node:
        fid = await locked(node)
        await asyncio.sleep(0)
        clock.advance(101)
        events = await node.all_events(fid)
        assert [event.event for event in events][3:] == ["lock", "lock-timeout", "fatal"]
        assert events[4].data == {"lid": LID}
        assert await refused(node.locks.answer(fid, LID, {"go": True}, ANA)) == (410, "expired")


async def test_a_lock_does_not_expire_while_an_answer_is_judged(tmp_path: Path, clock: StillClock) -> None:
    verdict = asyncio.Event()

    async def slow(value: Any) -> Any:
        await verdict.wait()
        return value

    async with rig_of(tmp_path, clock, {"flow": asking(slow, expires_s=100)}) as node:
        fid = await locked(node)
        clock.advance(90)
        first = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await node.until(fid, "candidate")
        clock.advance(20)
        verdict.set()
        assert (await first)["answer"] == {"go": True}


async def test_an_answered_lock_is_gone(tmp_path: Path, clock: StillClock) -> None:
    async def two(run: InProcessRunner) -> None:
        await run.lock(LID)
        await run.lock(LID2)

    async with rig_of(tmp_path, clock, {"flow": two}) as node:
        fid = await locked(node)
        await node.locks.answer(fid, LID, None, ANA)
        assert await refused(node.locks.get(fid, LID, ANA)) == (410, "answered")
        assert await refused(node.locks.answer(fid, LID, None, ANA)) == (410, "answered")
        assert await refused(node.locks.get(fid, "0" * 25 + "9", ANA)) == (404, "no-such-lock")
        await settled(lambda: LID2 in node.runs.live[fid].view.locks)
        assert (await node.locks.get(fid, LID2, ANA)).title == "Go on?"


async def test_the_locks_of_a_run_that_is_over_are_expired(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        await node.runs.kill(fid, "ana")
        assert await refused(node.locks.get(fid, LID, ANA)) == (410, "expired")
        assert node.locks.open_locks(ANA) == []


async def test_an_answer_whose_run_ends_before_the_verdict_is_told(tmp_path: Path, clock: StillClock) -> None:
    async def never(value: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    async with rig_of(tmp_path, clock, {"flow": asking(never)}) as node:
        fid = await locked(node)
        answer = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await settled(lambda: node.runner(fid).answers)
        node.runner(fid).crash()
        assert await refused(answer) == (410, "expired")


async def test_open_locks_are_listed_over_all_own_runs(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        first = await locked(node)
        clock.advance(1)
        second = await locked(node)
        await locked(node, principal="bob")
        assert [live.fid for live, _ in node.locks.open_locks(ANA)] == [first, second]


async def test_a_lock_for_others_cannot_be_answered(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking(users=["bob"], roles=["boss"])}) as node:
        fid = await locked(node)
        assert await refused(node.locks.answer(fid, LID, {"go": True}, ANA)) == (403, "not-yours")
        assert node.locks.open_locks(ANA) == []
        assert (await node.locks.get(fid, LID, BOB)).lid == LID


async def test_the_same_key_gives_the_same_verdict(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        at_once = await asyncio.gather(
            *(node.locks.answer(fid, LID, {"go": True}, ANA, key="k") for _ in range(3)), return_exceptions=True
        )
        unlock = next(answer for answer in at_once if isinstance(answer, dict))
        await node.all_events(fid)
        assert await node.locks.answer(fid, LID, {"go": True}, ANA, key="k") == unlock
        assert await refused(node.locks.answer(fid, LID, {"go": False}, ANA, key="k")) == (409, "key-reused")
        assert await refused(node.locks.answer(fid, LID, {"go": True}, ANA, key="k2")) == (410, "answered")


async def test_an_answer_that_asked_for_its_key_before_the_first_was_stored_has_the_same_verdict(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        unlock, late = await overtaken(
            node, monkeypatch, lambda: node.locks.answer(fid, LID, {"go": True}, ANA, key="k")
        )
        assert unlock == late


async def test_an_answer_counts_although_its_sender_goes_away(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        sender = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA))
        await asyncio.sleep(0)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        assert (await node.all_events(fid))[-1].data["result"] == {"go": True}


async def test_an_answer_above_the_bound_of_an_event_is_refused(tmp_path: Path, clock: StillClock) -> None:
    async def anything(run: InProcessRunner) -> None:
        await run.lock(LID)

    async with rig_of(tmp_path, clock, {"flow": anything}) as node:
        fid = await locked(node)
        assert await refused(node.locks.answer(fid, LID, "x" * 300_000, ANA)) == (413, "too-large")
        assert (await node.locks.answer(fid, LID, "x", ANA))["answer"] == "x"


# --- restarts ---


async def test_an_open_lock_survives_a_restart(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": asking()}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await locked(node)
        async with rig(tmp_path, executor, clock, KEEP) as node:
            assert [lock.lid for _, lock in node.locks.open_locks(ANA)] == [LID]
            assert (await node.locks.answer(fid, LID, {"go": True}, ANA))["answer"] == {"go": True}


async def test_an_undecided_answer_is_handed_over_again_after_a_restart(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": asking()}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await locked(node)
            runner = node.runner(fid)
            handed = runner.answer

            async def lost(lid: str, cid: str, candidate: Any) -> None:
                """The node dies before its runner has heard."""

            runner.answer = lost  # type: ignore[method-assign]
            sender = asyncio.create_task(node.locks.answer(fid, LID, {"go": True}, ANA, key="k"))
            await node.until(fid, "candidate")
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        runner.answer = handed  # type: ignore[method-assign]
        clock.advance(3600)
        async with rig(tmp_path, executor, clock, KEEP) as node:
            assert (await node.locks.answer(fid, LID, {"go": True}, ANA, key="k"))["answer"] == {"go": True}
            events = await node.all_events(fid)
    assert [event.event for event in events][3:] == ["lock", "candidate", "unlock", "final"]


async def test_a_lock_that_expired_while_the_node_was_down_expires_at_its_start(
    tmp_path: Path, clock: StillClock
) -> None:
    async with InProcessExecutor({"flow": asking(expires_s=60, default={"go": False})}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await locked(node)
        clock.advance(3600)
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert [event.event for event in events][3:] == ["lock", "lock-timeout", "final"]


async def test_a_timeout_that_the_runner_did_not_hear_of_is_told_again(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": asking(expires_s=60, default={"go": False})}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await locked(node)
            runner = node.runner(fid)
            told = runner.expire

            async def lost(lid: str) -> None:
                """The node dies before its runner has heard."""

            runner.expire = lost  # type: ignore[method-assign]
            await asyncio.sleep(0)
            clock.advance(61)
            await node.until(fid, "lock-timeout")
        runner.expire = told  # type: ignore[method-assign]
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert [event.event for event in events][3:] == ["lock", "lock-timeout", "final"]


DEMAND = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def counts(run: InProcessRunner) -> int:
    return int(run.spec.inputs["n"]) + int(run.spec.inputs.get("more", 0))


async def test_missing_inputs_are_asked_for_before_a_runner_is_taken(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(inputs={"more": 2}, demand=DEMAND)
        lid = (await node.until(fid, "lock")).data["lid"]
        assert node.runs.live[fid].view.state == "locked"
        assert node.executor.launched == []
        assert (await node.locks.get(fid, lid, ANA)).schema == DEMAND
        unlock = await node.locks.answer(fid, lid, {"n": 40}, ANA)
        assert unlock["answer"] == {"n": 40}
        events = await node.all_events(fid)
        assert [event.event for event in events[2:]] == ["inputs", "lock", "candidate", "unlock", "inputs", "final"]
        assert (events[6].data, events[7].data["result"]) == ({"more": 2, "n": 40}, 42)


async def test_inputs_that_do_not_fit_together_are_denied_and_asked_for_again(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(demand=DEMAND)
        lid = (await node.until(fid, "lock")).data["lid"]
        node.faults = ["/n: too small"]
        with pytest.raises(CallError) as caught:
            await node.locks.answer(fid, lid, {"n": 1}, ANA)
        assert (caught.value.reason, caught.value.data) == ("denied", {"reasons": ["/n: too small"]})
        node.faults = []
        await node.locks.answer(fid, lid, {"n": 2}, ANA)
        assert (await node.all_events(fid))[-1].event == "final"


async def test_right_inputs_are_not_denied_because_the_node_is_busy(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(demand=DEMAND)
        lid = (await node.until(fid, "lock")).data["lid"]
        node.crowded = True
        answer = asyncio.create_task(node.locks.answer(fid, lid, {"n": 2}, ANA))
        await node.until(fid, "candidate")
        await settled(lambda: clock.asleep_for(1.0))
        node.crowded = False
        clock.advance(1)
        assert (await answer)["answer"] == {"n": 2}
        assert (await node.all_events(fid))[-1].event == "final"


async def test_inputs_that_a_busy_node_never_came_to_have_no_verdict_and_may_be_given_again(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(demand=DEMAND)
        lid = (await node.until(fid, "lock")).data["lid"]
        node.crowded = True
        answer = asyncio.create_task(node.locks.answer(fid, lid, {"n": 2}, ANA))
        await node.until(fid, "candidate")
        await settled(lambda: clock.asleep_for(1.0))
        clock.advance(LOCK_VERDICT_S)
        assert await refused(answer) == (504, "no-verdict")
        node.crowded = False
        await node.locks.answer(fid, lid, {"n": 3}, ANA)
        assert [event.event for event in await node.all_events(fid)].count("unlock") == 1


async def test_a_run_whose_missing_inputs_nobody_gives_is_fatal(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(demand=DEMAND)
        await node.until(fid, "lock")
        await settled(lambda: clock.advance(3600) or fid not in node.runs.live)
        events = await node.all_events(fid)
        assert [event.event for event in events[-2:]] == ["lock-timeout", "fatal"]
        assert node.executor.launched == []


async def test_a_run_that_waits_for_inputs_is_killed(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": counts}) as node:
        fid = await node.launch(demand=DEMAND)
        await node.until(fid, "lock")
        await node.runs.kill(fid, "ana")
        assert [event.event for event in await node.all_events(fid)][-2:] == ["kill", "fatal"]
        assert node.executor.launched == []


@pytest.mark.parametrize(("answered", "kept"), [(False, True), (True, True), (False, False)])
async def test_a_restarted_node_still_asks_for_inputs_and_judges_what_was_given(
    answered: bool, kept: bool, tmp_path: Path, clock: StillClock
) -> None:
    async with InProcessExecutor({"flow": counts}) as executor:
        async with rig(tmp_path, executor, clock, RunSettings(keep_runs=kept)) as node:
            fid = await node.launch(demand=DEMAND)
            lid = (await node.until(fid, "lock")).data["lid"]
            if answered:
                # As a crash leaves it: committed, and not judged.
                said = {"lid": lid, "cid": fid_of(7), "by": "ana", "answer": {"n": 3}}
                await node.store.append(fid, [NewEvent.make("candidate", said)])
        async with rig(tmp_path, executor, clock) as node:
            if not answered:
                await node.locks.answer(fid, lid, {"n": 3}, ANA)
            events = await node.all_events(fid)
            assert [event.event for event in events[4:]] == ["candidate", "unlock", "inputs", "final"]
            assert events[-1].data["result"] == 3
            assert len(executor.launched) == 1


async def test_several_locks_of_a_run_are_answered_and_expire_each_by_itself(
    tmp_path: Path, clock: StillClock
) -> None:
    lids = [f"{number:026}" for number in range(1, 4)]

    async def several(run: InProcessRunner) -> Any:
        return await asyncio.gather(
            run.lock(lids[0], {"type": "integer"}),
            run.lock(lids[1], {"type": "integer"}, expires_s=60.0, default=7),
            run.lock(lids[2], {"type": "integer"}),
        )

    async with rig_of(tmp_path, clock, {"flow": several}) as node:
        fid = await locked(node)
        await settled(lambda: len(node.runs.live[fid].view.locks) == 3)
        assert [lock.lid for _, lock in node.locks.open_locks(ANA)] == lids
        at_once = await asyncio.gather(
            node.locks.answer(fid, lids[2], 3, ANA), node.locks.answer(fid, lids[2], 4, ANA), return_exceptions=True
        )
        assert isinstance(at_once[0], dict)
        assert refusal(at_once[1]) == (409, "busy")
        clock.advance(61)
        await settled(lambda: lids[1] not in node.runs.live[fid].view.locks)
        assert await refused(node.locks.answer(fid, lids[1], 5, ANA)) == (410, "expired")
        assert node.runs.live[fid].view.state is RunState.LOCKED
        await node.locks.answer(fid, lids[0], 1, ANA)
        events = await node.all_events(fid)
    assert events[-1].data["result"] == [1, 7, 3]


async def test_a_lock_that_is_in_the_log_is_open_before_the_run_has_taken_note_of_it(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": asking()}) as node:
        fid = await locked(node)
        live = node.runs.live[fid]
        lock, seq = live.view.locks.pop(LID), live.view.last_seq
        live.view.last_seq = seq - 1  # as it is for a moment after each commit
        live.moved.set()
        getting = asyncio.ensure_future(node.locks.get(fid, LID, ANA))
        await settled(lambda: not live.moved.is_set() or getting.done())
        assert not getting.done()
        live.view.locks[LID], live.view.last_seq = lock, seq
        live.moved.set()
        assert (await getting).lid == LID
