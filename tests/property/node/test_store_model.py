"""The store against a model: what is appended, doubled, or cut by a crash is read back numbered, once, in order."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kodo.node.store.rows import NewEvent, NewRun, RunOverError
from kodo.node.store.store import Store
from kodo.protocol.events import Event, RunState, RunView

LIDS = ["a", "b"]
NAMES = st.sampled_from(["log", "progress", "lock", "unlock", "lock-timeout", "agent", "result", "final", "fatal"])
FIDS = ["0" * 25 + "1", "0" * 25 + "2"]


def data_of(name: str, number: int) -> dict[str, Any]:
    return {"lid": LIDS[number % 2], "title": "?", "schema": {}, "number": number, "expires_s": 10.0}


class StoreModel(RuleBasedStateMachine):
    """Two runs, their runners' events in order but handed in with repetitions, and a process that dies."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.now = 1_700_000_000_000
        self.said: dict[str, list[tuple[str, int]]] = {fid: [] for fid in FIDS}
        self.model: dict[str, list[tuple[str, int]]] = {fid: [] for fid in FIDS}
        self.heard: dict[str, list[Event]] = {fid: [] for fid in FIDS}
        self.open()
        for fid in FIDS:
            run = NewRun(fid, "ana", "a.A", "A", "a:A")
            self.runner.run(self.store.create(run, [NewEvent.make("version", {"number": -1})]))
            self.model[fid].append(("version", -1))

    def open(self) -> None:
        self.store = Store(self.home / "node.db", clock=self)
        self.store.subscribe(lambda commit: self.heard[commit.fid].extend(commit.events))
        self.runner.run(self.store.__aenter__())

    def now_ms(self) -> int:
        return self.now

    def steady_ms(self) -> int:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    @rule(
        run=st.integers(0, 1),
        back=st.integers(0, 5),
        names=st.lists(NAMES, max_size=6),
        passed=st.integers(-5000, 5000),
    )
    def append(self, run: int, back: int, names: list[str], passed: int) -> None:
        fid, self.now = FIDS[run], self.now + passed
        said = self.said[fid]
        first = max(len(said) - back, 0)
        new = [(name, len(said) + index) for index, name in enumerate(names)]
        batch = [
            NewEvent.make(name, data_of(name, number), first + index + 1)
            for index, (name, number) in enumerate(said[first:] + new)
        ]
        over = any(name in ("final", "fatal") for name, _ in self.model[fid])
        goes_on = any(name in ("final", "fatal") for name, _ in new[:-1])
        try:
            stored = self.runner.run(self.store.append(fid, batch))
        except RunOverError:
            assert (over and new) or goes_on
            return
        assert not (over and new)
        assert not goes_on
        assert [event.data["number"] for event in stored] == [number for _, number in new]
        said += new
        self.model[fid] += new

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.aclose())
        self.open()

    @rule()
    def crash(self) -> None:
        """The process dies: what is on the disk at this moment is all there is."""
        copy = Path(tempfile.mkdtemp())
        for file in self.home.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, copy / file.name)
        self.runner.run(self.store.aclose())
        shutil.rmtree(self.home)
        self.home = copy
        self.open()

    @invariant()
    def all_is_there_once_and_in_order(self) -> None:
        for fid in FIDS:
            events = self.runner.run(self.store.events(fid))
            assert [(event.event, event.data["number"]) for event in events] == self.model[fid]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert all(earlier.at <= later.at for earlier, later in itertools.pairwise(events))
            assert self.heard[fid] == events

    @invariant()
    def the_row_agrees_with_the_events(self) -> None:
        for fid in FIDS:
            view = RunView()
            view.extend(self.runner.run(self.store.events(fid)))
            row = self.runner.run(self.store.run(fid))
            assert row is not None
            assert row.state is view.state
            assert (row.last_seq, row.modified, row.progress) == (view.last_seq, view.modified, view.progress)
            assert row.last_rseq == len(self.said[fid])
            loaded = self.runner.run(self.store.view(fid))
            assert loaded == view
            listed = self.runner.run(self.store.unfinished())
            assert (fid in [each.fid for each in listed]) == (view.state in (RunState.PENDING, RunState.LOCKED))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.aclose())
            self.runner.close()
            shutil.rmtree(self.home)


StoreModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreModel = StoreModel.TestCase
