"""A store whose disk fails, and what must be true of its log nevertheless."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

from kodo.node.store.rows import NewEvent, NewRun
from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit
from kodo.p2p.errors import CapacityError
from kodo.sqlite import file

__all__ = ["FAULTS", "drill"]

FAULTS = ("full", "io", "io-after")
"""No room; EIO before a statement has done anything; EIO when it has done all, the COMMIT too."""

_CODES = {"full": sqlite3.SQLITE_FULL, "io": sqlite3.SQLITE_IOERR_WRITE, "io-after": sqlite3.SQLITE_IOERR_FSYNC}
FID = "0" * 26


class _Disk:
    """Decides which statements of writers fail."""

    def __init__(self, seed: int, fault: str, position: int | None, rate: float):
        self.chance = random.Random(seed)
        self.fault, self.position, self.rate = fault, position, rate
        self.armed = False
        self.statements = self.failed = 0

    def draw(self) -> str | None:
        """Give the fault of the next statement."""
        if not self.armed:
            return None
        number, self.statements = self.statements, self.statements + 1
        if number == self.position:
            self.failed += 1
            return self.fault
        if self.chance.random() < self.rate:
            self.failed += 1
            return self.chance.choice(FAULTS)
        return None


class _JumpingClock:
    """Jumps up to an hour, back as often as ahead."""

    def __init__(self, seed: int):
        self._chance = random.Random(seed)

    def now_ms(self) -> int:
        return 1_700_000_000_000 + self._chance.randrange(-3_600_000, 3_600_000)

    def steady_ms(self) -> int:
        raise AssertionError("a store has no deadlines")

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a store does not sleep")


def _failing(disk: _Disk) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def _do(self, method: Any, *words: Any) -> Any:
            fault = disk.draw() if not words[0].startswith(("PRAGMA", "ROLLBACK")) else None
            result = None if fault in ("full", "io") else method(*words)
            if fault is not None:
                error = sqlite3.OperationalError(f"injected: {fault}")
                error.sqlite_errorcode = _CODES[fault]
                raise error
            return result

        def execute(self, *words: Any) -> Any:
            return self._do(super().execute, *words)

        def executemany(self, *words: Any) -> Any:
            return self._do(super().executemany, *words)

    return Connection


async def drill(
    path: Path, *, seed: int, fault: str = "io", position: int | None = None, rate: float = 0.0, events: int = 40
) -> int:
    """Carry a run's events into a log whose disk fails, as the node does; give how many statements failed.

    Args:
        path: of a new database.
        seed: of batches, times and random faults.
        fault: what happens at `position`, the number of a statement of the writer.
        rate: the chance of each other statement to fail.
        events: that the run makes, `final` included.

    Raises:
        AssertionError: an event was lost, doubled, shown before it was stored, or out of order.
    """
    disk, chance = _Disk(seed, fault, position, rate), random.Random(seed)
    connect = file._connect
    told: list[int] = []

    def failing(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(
            path, timeout=10.0, isolation_level=None, check_same_thread=False, factory=_failing(disk)
        )

    def heard(commit: Commit) -> None:
        told.extend(event.seq for event in commit.events)

    file._connect = failing
    try:
        async with Store(path, clock=_JumpingClock(seed)) as store:
            store.subscribe(heard)
            run = NewRun(FID, "ana", "flows.x", "x", "x:x", {}, ())
            await store.create(run, [NewEvent.make("inputs", {})])
            disk.armed = True
            made = [NewEvent.make("result", {"number": n}, rseq=n) for n in range(1, events)]
            made.append(NewEvent.make("final", {"result": None, "runtime_s": 1.0, "runtime": "1 s"}, rseq=events))
            done = tries = 0
            while done < events:
                count = chance.randint(1, 6)
                tries += 1
                assert tries < 10_000, "the store does not recover"
                try:
                    # From an earlier event than need be, as after a restart: what is stored already is passed over.
                    start = max(0, done - chance.randint(0, 3)) if done + count < events else done
                    await store.append(FID, made[start : done + count])
                except CapacityError:
                    continue
                done += count
            disk.armed = False
            stored = await store.events(FID)
            row = await store.run(FID)
    finally:
        file._connect = connect
    assert [event.seq for event in stored] == list(range(1, events + 2))
    assert [event.data.get("number") for event in stored[1:-1]] == list(range(1, events))
    assert stored[-1].event == "final"
    assert [event.at for event in stored] == sorted(event.at for event in stored)
    assert told == list(range(1, events + 2)), "a follower was not told each event once, in order"
    assert row is not None
    assert (row.state.value, row.last_seq, row.last_rseq) == ("done", events + 1, events)
    return disk.failed
