"""Two nodes with one key at one registry: both learn of it, and the record settles on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kodo.node.catalog.announce import Announcer, Goodbyes, Said
from kodo.node.catalog.claims import CLAIM_AGAIN_MS, Claim
from kodo.p2p.core.identity import Identity
from kodo.registry.client.client import Page, StateAnswer, UpAnswer
from kodo.registry.query.tree import NODE_FIELDS
from kodo.registry.reads.pages import parse_page
from kodo.registry.records.record import (
    NodeRecord,
    Ping,
    sign_record,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from kodo.registry.store.store import Store
from tests.support.records import UNHURRIED
from tests.unit.node.conftest import StillClock

IDENTITY = Identity.from_seed(bytes(range(32)))
PEER = IDENTITY.peer_id
URL = "http://registry"


class StoreRegistry:
    """A registry's store, as nodes call it."""

    def __init__(self, store: Store, clock: StillClock):
        self.store, self.clock = store, clock
        self.lists: list[str] = []
        """Whose record was taken, in turn."""
        self.busy = 0

    async def __aenter__(self) -> StoreRegistry:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    async def up(self, signed: bytes) -> UpAnswer:
        record = verify_record(signed)
        with self._busy():
            await self.store.put(record, signed, self.clock.ms)
        self.lists.append(record.name)
        return UpAnswer(interval_s=60, accepted=[], refused=[])

    async def state(self, signed: bytes) -> StateAnswer:
        with self._busy():
            await self.store.heartbeat(verify_heartbeat(signed), signed, self.clock.ms, gap_ms=0)
        return StateAnswer(name="r", python="3", version="1", registry=0, interval_s=60)

    async def down(self, signed: bytes) -> None:
        await self.store.goodbye(verify_goodbye(signed), signed, self.clock.ms)

    async def record(self, peer_id: str, /) -> NodeRecord:
        with self._busy():
            return verify_record(await self.store.signed_record(peer_id))

    async def nodes(self, *, query: str | None = None, pp: int = 100) -> Page:
        request = parse_page({"query": query or "", "pp": str(pp)}, NODE_FIELDS)
        with self._busy():
            return Page.model_validate(await self.store.nodes(request, self.clock.ms))


class Stage:
    """Nodes with one key, by name, at one registry; each has met others if its name is in `met`."""

    def __init__(self, registry: StoreRegistry):
        self.registry, self.clock = registry, registry.clock
        self.met: dict[str, list[NodeRecord]] = {}
        self.open: dict[str, AsyncExitStack] = {}
        self.seq = self.clock.ms
        self.nodes: list[Announcer] = []

    async def next_seq(self) -> int:
        self.seq = max(self.seq + 1, self.clock.ms)
        return self.seq

    async def start(self, name: str) -> None:
        stack = self.open[name] = AsyncExitStack()
        self.met[name] = []
        goodbyes = await stack.enter_async_context(Goodbyes())
        announcer = await stack.enter_async_context(
            Announcer(
                IDENTITY,
                [URL],
                said=lambda: Said(name, (), ()),
                ping=Ping,
                next_seq=self.next_seq,
                clock=self.clock,
                chance=lambda: 1.0,
                goodbyes=goodbyes,
                met=self.met[name].append,
                connect=lambda url: self.registry,
            )
        )
        self.nodes.append(announcer)

    async def stop(self, name: str) -> None:
        await self.open.pop(name).aclose()

    async def listed(self) -> str:
        return (await self.registry.record(str(PEER))).name

    async def pass_by(self, seconds: int, step: int = 10) -> None:
        for _ in range(0, seconds, step):
            await self.settled()
            self.clock.advance(step)
        await self.settled()

    async def settled(self) -> None:
        """Let every call that is under way come to its end."""
        quiet = 0
        while quiet < 40:
            await asyncio.sleep(0)
            quiet = 0 if self.registry.busy or any(each._signing.locked() for each in self.nodes) else quiet + 1


@pytest.fixture
async def stage(tmp_path: Path, clock: StillClock) -> AsyncIterator[Stage]:
    async with Store(tmp_path / "registry.db", UNHURRIED) as store:
        made = Stage(StoreRegistry(store, clock))
        try:
            yield made
        finally:
            for name in list(made.open):
                await made.stop(name)


async def test_both_learn_of_each_other_and_the_record_stays_with_one(stage: Stage) -> None:
    await stage.start("first")
    await stage.pass_by(120)
    assert stage.registry.lists == ["first"]
    await stage.start("copy")
    await stage.pass_by(900)
    assert stage.registry.lists == ["first", "copy", "first", "copy"]
    assert all(stage.met.values())
    assert {record.name for record in stage.met["first"]} == {"copy"}
    assert {record.name for record in stage.met["copy"]} == {"first"}
    # For hours: each renews its record every half an hour, and only one of them is sent.
    await stage.pass_by(3 * 3600, 60)
    assert set(stage.registry.lists[4:]) == {"copy"}
    assert await stage.listed() == "copy"


async def test_the_one_that_stays_is_listed_soon_after_the_other_has_gone(stage: Stage) -> None:
    await stage.start("first")
    await stage.pass_by(120)
    await stage.start("copy")
    await stage.pass_by(900)
    await stage.stop("copy")
    await stage.pass_by(180)
    assert await stage.listed() == "first"
    await stage.pass_by(600)
    assert stage.registry.lists[4:] == ["first"]


async def test_a_node_that_starts_again_is_nobody_else(stage: Stage) -> None:
    for _ in range(3):
        await stage.start("node")
        await stage.pass_by(300)
        await stage.stop("node")
        assert stage.met["node"] == []
    await stage.start("node")
    await stage.pass_by(2 * 3600, 60)
    await stage.open.pop("node").aclose()
    assert stage.met["node"] == []


def record(seq: int) -> NodeRecord:
    return NodeRecord(peer_id=str(PEER), name="n", seq=seq, issued_at=1, ttl_s=3600)


def test_a_place_is_taken_once_in_an_hour() -> None:
    claim = Claim()
    assert claim.lost(record(1), 0)
    assert not claim.lost(record(2), CLAIM_AGAIN_MS - 1)
    assert claim.left_to == 2
    assert not claim.looked(record(2), online=True, now=CLAIM_AGAIN_MS)
    assert not claim.looked(record(9), online=True, now=2 * CLAIM_AGAIN_MS)
    assert claim.left_to == 9
    assert claim.looked(record(9), online=True, now=3 * CLAIM_AGAIN_MS)  # it has not been renewed since
    assert claim.lost(record(10), 3 * CLAIM_AGAIN_MS)


@pytest.mark.parametrize(("found", "online"), [(None, True), (record(2), False)], ids=["unknown", "offline"])
def test_who_has_gone_has_left_the_place(found: NodeRecord | None, online: bool) -> None:
    claim = Claim()
    claim.lost(record(1), 0)
    claim.lost(record(2), 1)
    assert claim.looked(found, online=online, now=2)


async def test_no_registry_makes_a_node_believe_in_another(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Identity.from_seed(b"o" * 32)
    forged = NodeRecord(peer_id=str(other.peer_id), name="o", seq=2**52, issued_at=stage.clock.ms, ttl_s=3600)
    given: list[Any] = [sign_record(forged, other)]
    await stage.start("node")
    await stage.pass_by(60)
    monkeypatch.setattr(stage.registry.store, "put", _old)
    monkeypatch.setattr(stage.registry.store, "heartbeat", _old)
    monkeypatch.setattr(stage.registry.store, "signed_record", lambda peer: _given(given))
    await stage.pass_by(300)
    assert stage.met["node"] == []


async def _given(given: list[Any]) -> Any:
    return given[0]


async def _old(*args: object, **more: object) -> None:
    from kodo.p2p.errors import CallError

    raise CallError(409, "old-seq", "a lie", {"seq": 2**52})
