"""Runs, locks and followers over the in-process executor, for the tests of a run's life."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kodo.node.executors.executor import Executor
from kodo.node.executors.in_process import InProcessExecutor, InProcessFlow, InProcessRunner
from kodo.node.files.ledger import Ledger
from kodo.node.files.outputs import Outputs
from kodo.node.files.uploads import Uploads
from kodo.node.runs.flow_requests import Asking
from kodo.node.runs.launch import Order, RunSettings
from kodo.node.runs.live import LiveRun
from kodo.node.runs.locks import Locks
from kodo.node.runs.runs import Runs
from kodo.node.runs.vault import Vault
from kodo.node.schemas.judge import Judge
from kodo.node.shares.shares import Shares
from kodo.node.store.follow import Feed
from kodo.node.store.rows import OnceKey
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal
from kodo.protocol.events import Event
from kodo.protocol.ids import make_id
from tests.unit.node.conftest import StillClock, settled

ANA = Principal("ana", "peer-of-ana")
BOB = Principal("bob", "peer-of-bob")
T = TypeVar("T")


class Rig:
    """One node without its network: the store and what stands on it."""

    def __init__(
        self,
        store: Store,
        executor: Any,
        outputs: Outputs,
        clock: StillClock,
        settings: RunSettings,
        asking: Asking | None = None,
        ledger: Ledger | None = None,
    ):
        numbers = itertools.count(1)
        self.store = store
        self.executor = executor
        self.clock = clock
        self.outputs = outputs
        self.ledger = ledger or Ledger(outputs.root)
        self.feed = Feed(store)
        ids = (make_id(clock.ms, number.to_bytes(10, "big")) for number in numbers)
        self.uploads = Uploads(
            outputs.root.parent / "uploads", clock=clock, new_id=lambda: next(ids), room_of=self.ledger.share_of
        )
        self.uploads.open()
        self.shares = Shares(store, clock, lambda: next(ids))
        vault = Vault(outputs.root.parent / "secrets", outputs.root.parent / "secrets.key")
        vault.open()
        self.runs = Runs(
            store,
            outputs,
            executor,
            new_id=lambda: make_id(clock.ms, next(numbers).to_bytes(10, "big")),
            clock=clock,
            settings=settings,
            files=self.uploads.files,
            asking=asking,
            vault=vault,
        )
        self.faults: list[str] = []
        self.crowded = False
        """Whether the line of those who check inputs is full."""
        self.locks = Locks(store, self.runs, Judge(), self._judged)

    async def _judged(self, live: LiveRun, inputs: dict[str, Any]) -> list[str]:
        if self.crowded:
            raise CallError(429, "busy", "many large values are being checked", {"retry_after_ms": 1000})
        return self.faults

    async def launch(self, entry: str = "flow", principal: str = "ana", **fields: Any) -> str:
        fid, _ = await self.runs.launch(
            Order(principal, f"flows.{entry}", entry, entry, fields.pop("inputs", {}), **fields)
        )
        return fid

    async def all_events(self, fid: str, after: int = 0) -> list[Event]:
        """Follow the run to its end."""
        found: list[Event] = []
        async with contextlib.aclosing(self.feed.follow(fid, after)) as batches:
            async for batch in batches:
                found += batch
        return found

    async def until(self, fid: str, name: str) -> Event:
        """Follow the run until an event of this name, and until the node has taken note of it."""
        async with contextlib.aclosing(self.feed.follow(fid)) as batches:
            async for batch in batches:
                for event in batch:
                    if event.event == name:
                        await settled(partial(self._noted, fid, event.seq))
                        return event
        raise AssertionError(f"the run ended without {name}")

    def _noted(self, fid: str, seq: int) -> bool:
        live = self.runs.live.get(fid)
        return live is None or live.view.last_seq >= seq

    async def gone(self, fid: str) -> None:
        """Wait until the node has let go of a run that is over, and of its runner."""
        await settled(lambda: fid not in self.runs.live and not self.runs._driver.releasing)

    def runner(self, fid: str) -> InProcessRunner:
        return self.executor.runners[fid]  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def rig(
    home: Path,
    executor: Executor | InProcessExecutor,
    clock: StillClock,
    settings: RunSettings | None = None,
    before: Callable[[Rig], None] | None = None,
    asking: Asking | None = None,
) -> AsyncIterator[Rig]:
    """A node over an executor that may outlive it."""
    ledger = Ledger(home)
    outputs = Outputs(home / "outputs", room=ledger)
    async with Store(home / "node.db", clock=clock, room=ledger) as store:
        outputs.open()
        made = Rig(store, executor, outputs, clock, settings or RunSettings(), asking, ledger)
        if before is not None:
            before(made)
        async with made.runs:
            made.locks.start()
            yield made


@contextlib.asynccontextmanager
async def rig_of(
    home: Path,
    clock: StillClock,
    flows: Mapping[str, InProcessFlow],
    settings: RunSettings | None = None,
    slots: int = 64,
) -> AsyncIterator[Rig]:
    """A node whose executor ends with it."""
    async with InProcessExecutor(flows, slots=slots) as executor, rig(home, executor, clock, settings) as made:
        yield made


async def overtaken(node: Rig, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[T]]) -> tuple[T, T]:
    """Do `work` twice under one idempotency key, the one that asked for the key first as the last; return both ends.

    What the earlier one is told of the key is out of date when it goes on.
    """
    once, answered, go_on = node.store.once, asyncio.Event(), asyncio.Event()

    async def held(*place: str) -> OnceKey | None:
        monkeypatch.setattr(node.store, "once", once)
        found = await once(*place)
        answered.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(node.store, "once", held)
    earlier = asyncio.ensure_future(work())
    await answered.wait()
    later = await work()
    go_on.set()
    return later, await earlier
