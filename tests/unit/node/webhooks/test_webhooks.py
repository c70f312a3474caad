"""Notices: each event told to each target, over restarts and while targets are away, and nothing that is in a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.store import notice_rows
from kodo.node.store.rows import NewEvent
from kodo.node.store.store import Store
from kodo.node.webhooks.notices import Source, text_of
from kodo.node.webhooks.targets import NotTakenError
from kodo.node.webhooks.webhooks import KEPT_MS, Webhooks
from tests.unit.node.conftest import FIRST, StillClock, fid_of, new_run, settled
from tests.unit.node.service_rig import node_of
from tests.unit.node.shares.share_rig import link_of, opened, world

ALL = ("locked", "done", "error", "downloaded")
SECRET = "zanzibar"
LOCK = NewEvent.make("lock", {"lid": "0" * 26, "schema": {"title": SECRET}, "prompt": SECRET})
FINAL = NewEvent.make("final", {"result": SECRET})
FATAL = NewEvent.make("fatal", {"type": SECRET, "message": SECRET, "where": "flow"})
KILLED = NewEvent.make("fatal", {"type": "Killed", "message": SECRET, "where": "node"})


class Kept:
    """A target that keeps what it takes: everything, unless `why` says otherwise."""

    def __init__(self, key: str = "a") -> None:
        self.key = self.shown = key
        self.taken: list[dict[str, Any]] = []
        self.tries = 0
        self.why: Callable[[dict[str, Any]], NotTakenError | None] = lambda event: None

    async def send(self, notice: str, ident: str, now: int) -> None:
        self.tries += 1
        event = json.loads(notice)
        assert event["id"] == ident
        if error := self.why(event):
            raise error
        self.taken.append(event)

    @property
    def types(self) -> list[str]:
        return [each["type"].removeprefix("kodo.") for each in self.taken]


def telling(store: Store, clock: StillClock, *targets: Kept, kinds: Iterable[str] = ALL) -> Webhooks:
    return Webhooks(store, Source("12D3Koo", "flows.example.com", frozenset(kinds)), targets, clock, lambda: 0.5)


async def run(store: Store, number: int, *events: NewEvent) -> str:
    await store.create(new_run(number), FIRST)
    for event in events:
        await store.append(fid_of(number), [event])
    return fid_of(number)


async def left(store: Store) -> int:
    return sum(each.amount for each in (await store.ask(notice_rows.waiting)).values())


async def until_left(store: Store, count: int) -> None:
    for _ in range(100_000):
        if await left(store) == count:
            return
    raise AssertionError(f"never {count} were left")


async def test_what_happens_to_runs_is_told_and_nothing_that_is_in_them(store: Store, clock: StillClock) -> None:
    target = Kept()
    async with telling(store, clock, target):
        await run(store, 1, LOCK, FINAL)
        await run(store, 2, FATAL)
        await run(store, 3, KILLED)
        await settled(lambda: len(target.taken) == 4)
    assert target.types == ["run.locked", "run.done", "run.error", "run.error"]
    assert SECRET not in json.dumps(target.taken)
    locked, done, error, killed = target.taken
    assert locked["source"] == "kodo://12D3Koo"
    assert (locked["subject"], locked["data"]["lock"]) == (fid_of(1), "0" * 26)
    assert locked["time"] == "2023-11-14T22:13:20.000Z"
    assert done["data"] == {
        "node": "flows.example.com",
        "run": fid_of(1),
        "flow": "flows.market.Competitor",
        "name": "Competitor",
        "launched_by": "ana",
        "launched_at": "2023-11-14T22:13:20.000Z",
        "runtime_s": 0.0,
    }
    assert error["data"]["why"] == "an error of the flow"
    assert (killed["data"]["type"], killed["data"]["why"]) == ("Killed", "somebody killed the run")
    assert len({each["id"] for each in target.taken}) == 4


async def test_only_what_was_chosen_is_told(store: Store, clock: StillClock) -> None:
    target = Kept()
    async with telling(store, clock, target, kinds=["error"]):
        await run(store, 1, LOCK, FINAL)
        await run(store, 2, FATAL)
        await settled(lambda: target.taken)
        await until_left(store, 0)
    assert target.types == ["run.error"]


async def test_what_was_not_taken_is_told_after_a_restart(tmp_path: Path, clock: StillClock) -> None:
    target = Kept()
    target.why = lambda event: NotTakenError("away")
    async with Store(tmp_path / "node.db", clock=clock) as store, telling(store, clock, target):
        await run(store, 1, FINAL)
        await settled(lambda: target.tries)
    again = Kept()
    async with Store(tmp_path / "node.db", clock=clock) as store, telling(store, clock, again):
        await settled(lambda: again.taken)
    assert [each["subject"] for each in again.taken] == [fid_of(1)]


async def test_a_target_that_is_away_is_asked_less_and_less_and_gets_all_in_order(
    store: Store, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    target = Kept()
    target.why = lambda event: NotTakenError("away")
    async with telling(store, clock, target) as webhooks:
        for number in range(1, 5):
            await run(store, number, FINAL)
        for tries, pause in enumerate([5, 10, 20, 40, 80, 160, 320, 600, 600], 1):
            await settled(lambda pause=pause: clock.asleep_for(pause))
            assert target.tries == tries
            clock.advance(pause)
        await settled(lambda: clock.asleep_for(600))
        [told] = await webhooks.state()
        assert (told["queued"], told["why"], told["failing_since"]) == (4, "away", 1_700_000_000_000)
        target.why = lambda event: None
        clock.advance(600)
        await settled(lambda: len(target.taken) == 4)
        await settled(lambda: target.tries == 14)
        assert "failing_since" not in (await webhooks.state())[0]
    assert [each["subject"] for each in target.taken] == [fid_of(number) for number in range(1, 5)]
    told_of = [each.levelname for each in caplog.records if each.name.startswith("kodo.node.webhooks")]
    assert told_of.count("WARNING") == 1, "an outage is told once"


async def test_a_notice_that_is_not_liked_keeps_others_from_nothing(store: Store, clock: StillClock) -> None:
    target = Kept()
    target.why = lambda event: (
        NotTakenError("it answers with 400", answered=True) if event["subject"] == fid_of(1) else None
    )
    async with telling(store, clock, target):
        await run(store, 1, FINAL)
        await settled(lambda: target.tries == 1 and clock.asleep_for(5))
        await run(store, 2, FINAL)
        clock.advance(4.9)
        assert target.taken == []
        clock.advance(0.1)
        await settled(lambda: target.taken)
        assert target.taken[0]["subject"] == fid_of(2)
        await until_left(store, 1)


async def test_a_target_is_left_alone_for_as_long_as_it_asks(store: Store, clock: StillClock) -> None:
    target = Kept()
    target.why = lambda event: NotTakenError("it answers with 429", answered=True, wait_s=1000)
    async with telling(store, clock, target):
        await run(store, 1, FINAL)
        await settled(lambda: clock.asleep_for(1000))
        assert target.tries == 1


async def test_one_target_waits_for_no_other(store: Store, clock: StillClock) -> None:
    away, here = Kept("a"), Kept("b")
    away.why = lambda event: NotTakenError("away")
    async with telling(store, clock, away, here):
        await run(store, 1, FINAL)
        await settled(lambda: here.taken and away.tries)
        await until_left(store, 1)


async def test_what_nobody_takes_for_days_is_given_up(
    store: Store, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    target = Kept()
    target.why = lambda event: NotTakenError("away")
    async with telling(store, clock, target):
        await run(store, 1, FINAL)
        await settled(lambda: clock.asleep_for(5))
        with caplog.at_level(logging.ERROR):
            clock.advance(KEPT_MS / 1000 + 1)
            await settled(lambda: "given up" in caplog.text)
        assert target.tries == 1
        await until_left(store, 0)


async def test_the_queue_is_bounded_and_the_newest_stay(store: Store, clock: StillClock) -> None:
    for first in range(0, notice_rows.MAX_QUEUED, 500):
        events = [str(number) for number in range(first, first + 500)]
        assert await store.change(lambda tables, events=events: notice_rows.add(tables, ["a", "b"], 1, events)) == 0
    assert await store.change(lambda tables: notice_rows.add(tables, ["a"], 1, ["x", "y"])) == 2
    waiting = await store.ask(notice_rows.waiting)
    assert waiting["a"].amount == waiting["b"].amount == notice_rows.MAX_QUEUED
    first_left = await store.ask(lambda tables: notice_rows.next_due(tables, "a"))
    assert first_left is not None
    assert first_left.event == "2"


async def test_a_target_that_is_no_longer_named_gets_nothing(tmp_path: Path, clock: StillClock) -> None:
    old = Kept("old")
    old.why = lambda event: NotTakenError("away")
    async with Store(tmp_path / "node.db", clock=clock) as store:
        async with telling(store, clock, old):
            await run(store, 1, FINAL)
        async with telling(store, clock):
            assert await left(store) == 0


async def test_without_targets_nothing_is_kept(store: Store, clock: StillClock) -> None:
    async with telling(store, clock) as webhooks:
        await run(store, 1, FINAL)
        assert await left(store) == 0
        assert await webhooks.state() == []


async def test_the_sharer_learns_that_the_other_has_it(tmp_path: Path, clock: StillClock) -> None:
    target = Kept()
    async with world(tmp_path, clock) as (node, fid), telling(node.rig.store, clock, target):
        await opened(node, await link_of(node, fid, downloads=2), "eve")
        for _ in range(2):
            await node.call("output.read", "eve", fid=fid, name="report.md")
        await settled(lambda: target.taken)
    assert target.types == ["share.downloaded"]
    told = target.taken[0]
    assert (told["subject"], told["data"]["downloads"], told["data"]["launched_by"]) == (fid, 1, "ana")
    assert "report.md" not in json.dumps(told)


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (LOCK, "Competitor waits for an answer"),
        (FINAL, "Competitor is done"),
        (FATAL, "Competitor ended with an error: an error of the flow"),
    ],
)
async def test_people_are_told_in_words(store: Store, clock: StillClock, event: NewEvent, title: str) -> None:
    target = Kept()
    async with telling(store, clock, target):
        await run(store, 1, event)
        await settled(lambda: target.taken)
    text = f"Run flows.example.com/{fid_of(1)}, launched by ana."
    assert text_of(json.dumps(target.taken[0])) == (title, text)


async def test_only_operators_are_shown_the_targets(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node, telling(node.rig.store, clock, Kept()) as webhooks:
        node.facts.webhooks = webhooks
        assert "webhooks" not in await node.call("node.state")
        [told] = (await node.call("node.state", "home"))["webhooks"]
        assert told == {"key": "a", "target": "a", "queued": 0}
