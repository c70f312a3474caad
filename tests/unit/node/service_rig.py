"""A node's service over the in-process executor: what a call answers, without a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import argon2
import pytest

from kodo.access.audit import AuditedTables
from kodo.access.local import LocalProvider
from kodo.access.null import NullProvider
from kodo.access.passwords import Passwords
from kodo.access.tables import Database
from kodo.node.answers.node import NodeFacts
from kodo.node.catalog.catalog import Catalog
from kodo.node.catalog.load import Load
from kodo.node.catalog.scope import Scope
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.housekeeping.deletion import Manager
from kodo.node.launches.launcher import Launcher
from kodo.node.launches.schedules import Schedules
from kodo.node.requests.memories import Memories
from kodo.node.runs.launch import RunSettings
from kodo.node.service import Service
from kodo.node.shares.invitations import Invitations
from kodo.p2p.core.callframe import FrameReader
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError
from kodo.protocol.ids import make_id
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import Rig, rig_of

LID = "0" * 25 + "1"
PEER = Identity.from_seed(bytes(32)).peer_id
ADDRESSES = [Multiaddr.webrtc_direct(host, 4711, bytes(32), PEER) for host in ("127.0.0.1", "192.0.2.7")]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def work(run: InProcessRunner) -> int:
    run.emit("progress", {"percent": 10})
    run.emit("agent", {"name": "analyst"})
    run.emit("log", {"text": "secret detail"})
    run.output("report.md", b"# Report" * 20_000, media_type="text/markdown")
    return int(run.spec.inputs["n"])


async def ask(run: InProcessRunner) -> Any:
    return await run.lock(LID, {"type": "boolean"}, default=False, expires_s=50)


async def linger(run: InProcessRunner) -> Any:
    return await run.lock(LID, {"type": "boolean"}, default=False, expires_s=10**7)


async def read(run: InProcessRunner) -> str:
    return run.spec.files[0].path.read_text()


def info(path: str, entry: str) -> dict[str, Any]:
    said = {"path": path, "name": path.upper(), "entry": entry, "author": "ana", "release": "1", "description": "d"}
    return {**said, "organization": "org", "schema": SCHEMA, "example": {"n": 1}}


class NamedPeers(NullProvider):
    """Takes the peers of tests, who have names that can be read, for peers."""

    async def knows(self, kind: str, name: str) -> bool:
        return kind == "user" or await super().knows("role", name)


class CountedSchedules(Schedules):
    """Counts the looks that it has taken."""

    looks = 0

    async def _look(self) -> float:
        try:
            return await super()._look()
        finally:
            self.looks += 1


class Node:
    def __init__(
        self,
        rig: Rig,
        service: Service,
        provider: Any,
        schedules: CountedSchedules,
        invitations: Invitations,
        facts: NodeFacts,
    ):
        self.facts = facts
        self.invitations = invitations
        self.schedules = schedules
        self.rig = rig
        self.service = service
        self.provider = provider
        self.items: list[Any] = []
        self.sessions: dict[str, SimpleNamespace] = {}

    def session(self, peer: str) -> Any:
        """Give the peer's session."""
        new = SimpleNamespace(
            remote_peer=peer, remote_address=("192.0.2.8", 4711), bindings={}, admitted=False, account=None
        )
        return self.sessions.setdefault(peer, new)

    async def call(self, op: str, peer: str = "ana", pieces: Iterable[bytes] = (), **args: Any) -> Any:
        items: list[Any] = []

        async def send(item: Any) -> None:
            items.append(item)

        async def send_frames(frames: bytes) -> None:
            items.extend(answer["item"] for answer in FrameReader().feed(frames))

        async def uploads() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        asked = SimpleNamespace(
            op=op,
            args=args,
            session=self.session(peer),
            send=send,
            send_frames=send_frames,
            uploads=uploads,
            arrived=lambda: iter(()),
            abort=lambda: None,
        )
        try:
            return await self.service(asked)
        finally:
            self.items = items

    async def refused(self, op: str, peer: str = "ana", **args: Any) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.call(op, peer, **args)
        return caught.value

    async def finished(self, path: str = "flows.work", **args: Any) -> str:
        fid = (await self.call("run.launch", path=path, inputs={"n": 3}, **args))["fid"]
        await self.rig.all_events(fid)
        return str(fid)


def local_provider(database: Database, clock: StillClock) -> LocalProvider:
    """Give the provider with passwords that cost next to nothing."""
    cheap = Passwords(argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return LocalProvider("home", "peer-of-node", database, clock.now_ms, passwords=cheap)


@contextlib.asynccontextmanager
async def node_of(
    tmp_path: Path,
    clock: StillClock,
    overrides: Mapping[str, Any] | None = None,
    more: Sequence[Any] = (),
    contents_for: Sequence[str] = (),
    auth: str = "null",
    only: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> AsyncIterator[Node]:
    async def describe(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [info("flows.work", "work"), info("flows.ask", "ask"), *more]

    flows = {"work": work, "ask": ask, "read": read, "linger": linger}
    async with (
        contextlib.AsyncExitStack() as stack,
        rig_of(tmp_path, clock, flows, RunSettings(versions={"kodo": "0.1.0"}, **(bounds or {}))) as rig,
    ):
        catalog = Catalog(["x"], scope=Scope(overrides=overrides or {}), describe=describe)  # type: ignore[arg-type]
        stack.callback(catalog.judge.close)
        await catalog.load(rig.store)
        tables = AuditedTables(rig.store.change, rig.store.ask)
        provider: Any = NamedPeers("home", only=only)
        if auth == "local":
            provider = local_provider(tables, clock)
            await provider.open()
        facts = NodeFacts("flows.example.com", str(PEER), "0.1.0", clock.ms)
        memories = await stack.enter_async_context(Memories(tmp_path / "memory", provider, clock))
        launcher = Launcher(catalog, rig.uploads, rig.runs)
        schedules = await stack.enter_async_context(
            CountedSchedules(
                rig.store, rig.runs, launcher, catalog, provider, clock, facts.name,
                lambda: make_id(clock.ms, os.urandom(10)),
            )
        )  # fmt: skip
        rig.uploads.keep(schedules.files)
        invitations = Invitations(rig.store, provider, clock, facts.name, lambda: make_id(clock.ms, os.urandom(10)))
        service = Service(
            facts, provider, catalog, rig.store, rig.feed, rig.runs, rig.locks, rig.outputs, rig.uploads, clock,
            lambda: Load(1.0, 2.0, 3.0, 4, 5, 6), Manager(rig.store, rig.runs, rig.outputs),
            rig.shares, lambda: ADDRESSES, memories, launcher, schedules, invitations, tables, contents_for,
        )  # fmt: skip
        yield Node(rig, service, provider, schedules, invitations, facts)
