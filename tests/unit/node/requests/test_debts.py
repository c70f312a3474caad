"""What a run launched elsewhere is ended when the run is, whatever dies or is away meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.requests.debts import Debt, Debts
from kodo.node.store.rows import NewEvent
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, UnreachableError
from tests.unit.node.conftest import FIRST, StillClock, fid_of, new_run, settled

FID = fid_of(1)
DAY = 86_400.0


class Bench:
    """Debts whose other nodes are the set `away` and the list `told`."""

    def __init__(self, store: Store, clock: StillClock):
        self.store, self.clock = store, clock
        self.away: set[str] = set()
        self.unpayable: dict[str, Exception] = {}
        self.told: list[tuple[str, str]] = []
        self.tries = 0
        self.debts = Debts(store, clock, self.settle)

    async def settle(self, debt: Debt) -> None:
        self.tries += 1
        if debt.peer_id in self.away:
            raise UnreachableError("away")
        if debt.fid in self.unpayable:
            raise self.unpayable[debt.fid]
        self.told.append((debt.fid, debt.peer_id))

    async def launch(self, fid: str = FID, peer: str = "far", reach: str = "there") -> None:
        async with self.debts.launching(fid, peer, reach):
            assert (fid, peer) in await self.on_disk()

    async def end(self, number: int = 1) -> None:
        await self.store.append(fid_of(number), [NewEvent.make("fatal", {"type": "X", "message": ""})])

    async def on_disk(self) -> list[tuple[str, str]]:
        return await self.store.ask(lambda tables: tables.execute("SELECT fid, peer_id FROM debts").fetchall())


@contextlib.asynccontextmanager
async def bench(store: Store, clock: StillClock) -> AsyncIterator[Bench]:
    made = Bench(store, clock)
    async with made.debts.open(wait_s=5):
        yield made


async def start(store: Store, *numbers: int) -> None:
    for number in numbers:
        await store.create(new_run(number), FIRST)


async def gone(made: Bench) -> None:
    await settled(lambda: not made.debts._payers)
    assert await made.on_disk() == []


async def test_each_node_is_told_once_and_only_when_the_run_is_over(store: Store, clock: StillClock) -> None:
    await start(store, 1, 2)
    async with bench(store, clock) as made:
        for peer in ("far", "far", "near"):
            await made.launch(peer=peer)
        await made.launch(fid_of(2))
        assert made.told == []
        await made.end()
        await settled(lambda: len(made.told) == 2)
        assert sorted(made.told) == [(FID, "far"), (FID, "near")]
        await made.end(2)
        await gone(made)
        assert made.told[2:] == [(fid_of(2), "far")]


async def test_a_node_that_is_away_is_asked_until_it_is_back_and_holds_up_no_other(
    store: Store, clock: StillClock
) -> None:
    await start(store, 1, 2)
    async with bench(store, clock) as made:
        made.away = {"far"}
        await made.launch()
        await made.launch(fid_of(2), "near")
        await made.end()
        await settled(lambda: made.tries == 1)
        await made.end(2)
        await settled(lambda: made.told == [(fid_of(2), "near")])
        for pause in (2, 4, 8):
            tries = made.tries
            await settled(lambda: bool(clock._sleepers))
            clock.advance(pause)
            await settled(lambda tries=tries: made.tries == tries + 1)
        made.away.clear()
        await settled(lambda: clock.advance(600) or not made.debts._payers)
        await gone(made)


async def test_a_node_that_never_comes_back_is_given_up_after_a_month(store: Store, clock: StillClock) -> None:
    await start(store, 1)
    async with bench(store, clock) as made:
        made.away = {"far"}
        await made.launch()
        await made.end()
        await settled(lambda: made.tries == 1)
        assert await made.on_disk() == [(FID, "far")]
        clock.advance(31 * DAY)
        await gone(made)
        assert made.told == []


async def test_what_a_process_that_died_owed_the_next_one_settles(tmp_path: Path, clock: StillClock) -> None:
    async with Store(tmp_path / "node.db", clock=clock) as store:
        await start(store, 1, 2, 3)
        first = Bench(store, clock)
        async with first.debts.open(wait_s=0):
            first.away = {"far"}
            for number in (1, 2, 3):
                await first.launch(fid_of(number))
            await first.end(1)
            await first.end(2)
        await store.delete(fid_of(2))
    async with Store(tmp_path / "node.db", clock=clock) as store, bench(store, clock) as second:
        await settled(lambda: len(second.told) == 2)
        assert {fid for fid, _ in second.told} == {fid_of(1), fid_of(2)}
        await second.end(3)
        await gone(second)


async def test_a_run_that_is_over_launches_nothing_more(store: Store, clock: StillClock) -> None:
    await start(store, 1)
    async with bench(store, clock) as made:
        await made.end()
        with pytest.raises(CallError) as refused:
            await made.launch()
        assert (refused.value.code, refused.value.reason) == (409, "over")
        await gone(made)


async def test_a_launch_that_is_under_way_or_was_cut_off_is_waited_for(store: Store, clock: StillClock) -> None:
    await start(store, 1)
    async with bench(store, clock) as made:
        entered = asyncio.Event()

        async def launch() -> None:
            async with made.debts.launching(FID, "far", "there"):
                entered.set()
                await asyncio.Event().wait()

        launching = asyncio.ensure_future(launch())
        await entered.wait()
        await made.end()
        for _ in range(100):
            await asyncio.sleep(0)
        assert made.told == []
        launching.cancel()
        await asyncio.wait([launching])
        await settled(lambda: made.told == [(FID, "far")])
        assert await made.on_disk() == [(FID, "far")], "the other node may be about to begin it"
        await settled(lambda: clock.advance(2) or not made.debts._payers)
        assert len(made.told) > 1
        await gone(made)


@pytest.mark.parametrize(
    "failure",
    [
        CallError(403, "not-yours", "no"),
        CallError(503, "busy", "later"),
        UnreachableError("away"),
        DeadlineError("no answer"),
        TimeoutError(),
        ValueError("a fault of ours"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("count", [2, 5])
async def test_a_debt_that_cannot_be_paid_holds_up_none_that_came_later(
    store: Store, clock: StillClock, failure: Exception, count: int
) -> None:
    numbers = range(1, count + 1)
    await start(store, *numbers)
    async with bench(store, clock) as made:
        made.unpayable = {FID: failure}
        for number in numbers:
            await made.launch(fid_of(number))
            await made.end(number)
        for _ in range(count):  # rounds: each tries one debt at least that was not tried
            await settled(lambda: len(made.told) == count - 1 or bool(clock._sleepers))
            clock.advance(600)
        assert {fid for fid, _ in made.told} == {fid_of(number) for number in numbers[1:]}
        await settled(lambda: len(made.debts._noted) == 1)
        assert await made.on_disk() == [(FID, "far")]
        made.unpayable.clear()
        await settled(lambda: clock.advance(600) or not made.debts._payers)
        await gone(made)


async def test_no_news_has_a_debt_tried_again_before_its_pause_is_over(store: Store, clock: StillClock) -> None:
    await start(store, *range(1, 12))
    async with bench(store, clock) as made:
        made.unpayable = {FID: CallError(403, "not-yours", "no")}
        await made.launch()
        await made.end()
        await settled(lambda: made.tries == 1)
        for number in range(2, 12):
            await made.launch(fid_of(number))
            await made.end(number)
        await settled(lambda: len(made.told) == 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert made.tries == 1 + 10
        made.unpayable.clear()
        await settled(lambda: clock.advance(600) or not made.debts._payers)


async def test_an_old_debt_that_cannot_be_forgotten_is_not_tried_without_a_pause(
    store: Store, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(store, 1)
    async with bench(store, clock) as made:
        made.away = {"far"}
        await made.launch()
        await made.end()
        await settled(lambda: bool(clock._sleepers))
        writes = 0

        async def full(work: object) -> None:
            nonlocal writes
            writes += 1
            raise CapacityError("the disk is full")

        with monkeypatch.context() as disk:
            disk.setattr(store, "write", full)
            clock.advance(31 * DAY)
            await settled(lambda: writes == 1)
            for _ in range(100):
                await asyncio.sleep(0)
            assert (made.tries, writes) == (2, 1)
        await settled(lambda: clock.advance(600) or not made.debts._payers)
        await gone(made)


async def test_where_nobody_answers_one_debt_is_tried_for_all_and_other_addresses_are_tried_too(
    store: Store, clock: StillClock
) -> None:
    await start(store, *range(1, 7))
    async with bench(store, clock) as made:
        made.unpayable = {fid_of(number): UnreachableError("away") for number in range(1, 6)}
        for number in range(1, 7):
            await made.launch(fid_of(number), reach="there" if number < 6 else "elsewhere")
        # All at once, as after a restart.
        made.debts._over.update(fid_of(number) for number in range(1, 7))
        made.debts._pay()
        await settled(lambda: made.told == [(fid_of(6), "far")])
        for _ in range(100):
            await asyncio.sleep(0)
        assert made.tries == 2
        made.unpayable.clear()
        await settled(lambda: clock.advance(600) or not made.debts._payers)


async def test_a_launch_that_is_refused_while_its_run_is_settled_is_counted_down_to_none(
    store: Store, clock: StillClock
) -> None:
    await start(store, 1)
    async with bench(store, clock) as made:
        await made.launch()
        settling, settle, look = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slowly(debt: Debt) -> None:
            settling.set()
            await settle.wait()

        async def late(fid: str) -> bool:
            await look.wait()
            return True

        made.debts._settle, made.debts._is_over = slowly, late  # type: ignore[method-assign]
        await made.end()
        await settling.wait()
        asking = asyncio.ensure_future(made.launch())
        await asyncio.sleep(0)
        settle.set()
        await gone(made)  # what the launch is counted by is forgotten with the debt
        look.set()
        with pytest.raises(CallError, match="has ended"):
            await asking
        assert dict(made.debts._launching) == {}
