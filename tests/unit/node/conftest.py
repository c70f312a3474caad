"""What the node's tests share: a clock that stands still, stores, events."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kodo.node.store.rows import NewEvent, NewRun
from kodo.node.store.store import Store


class StillClock:
    """A clock that moves only when told; sleepers wake in the order of their deadlines."""

    def __init__(self, now_ms: int = 1_700_000_000_000):
        self.ms = now_ms
        self.steady = now_ms
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ties = itertools.count()

    def now_ms(self) -> int:
        return self.ms

    def steady_ms(self) -> int:
        return self.steady

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.steady + int(seconds * 1000), next(self._ties), future))
        await future

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.steady += int(seconds * 1000)
        while self._sleepers and self._sleepers[0][0] <= self.steady:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    def asleep_for(self, seconds: float) -> bool:
        """Say whether somebody's sleep ends in exactly so many seconds."""
        return any(due == self.steady + int(seconds * 1000) for due, _, _ in self._sleepers)

    def set_by(self, seconds: float) -> None:
        """Let somebody set the clock on the wall: nobody has slept longer for it."""
        self.ms += int(seconds * 1000)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def store(tmp_path: Path, clock: StillClock) -> AsyncIterator[Store]:
    async with Store(tmp_path / "node.db", clock=clock) as opened:
        yield opened


def fid_of(number: int) -> str:
    return f"{number:026d}"


def new_run(number: int = 1, principal: str = "ana", path: str = "flows.market.Competitor") -> NewRun:
    return NewRun(fid_of(number), principal, path, "Competitor", "flows.market:competitor", tags=("market",))


FIRST = [
    NewEvent.make("version", {"kodo": "0.1.0"}),
    NewEvent.make("flow", {"path": "flows.market.Competitor"}),
    NewEvent.make("inputs", {"topic": "bikes"}),
]


def logs(first: int, last: int) -> list[NewEvent]:
    return [NewEvent.make("log", {"text": f"line {rseq}"}, rseq) for rseq in range(first, last + 1)]


async def settled(condition: Callable[[], object]) -> None:
    """Give the other tasks, and the store's threads, their turns until `condition` holds."""
    for _ in range(2_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what was waited for did not come")
