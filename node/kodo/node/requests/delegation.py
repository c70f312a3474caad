"""Runs that this node's runs have launched on other nodes: dialled by the node's key, followed, fetched from, ended.

What a flow knows of such a run is a handle sealed with a key of this node, so no flow can read another's; and the
other node is asked again after a restart of this one, where the flow left off. The other run belongs there to this
node and the run that launched it: what this node asks about it, it asks on that run's behalf.
When a run is over, those that it launched are killed where they are not over, and acknowledged (`debts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kodo.access.provider import Provider
from kodo.client.client import Client
from kodo.client.inputs import to_inputs
from kodo.client.resolve import parse_flow
from kodo.client.run import Run
from kodo.node.clock import Clock
from kodo.node.files.outputs import size_of
from kodo.node.requests.debts import Debt, Debts
from kodo.node.runs.flow_requests import Question
from kodo.node.runs.tasks import Tasks
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, DeadlineError, KodoError, NetworkError, NotFoundError, PeerError, UsageError
from kodo.p2p.net.files import open_plain
from kodo.protocol.access import Principal, account_of
from kodo.protocol.args.runs import MAX_CHAIN
from kodo.protocol.events import Event
from kodo.protocol.ids import is_id
from kodo.protocol.manifest import check_output_name
from kodo.protocol.room import ENDLESS, Room

__all__ = ["Delegations", "may_delegate"]

logger = logging.getLogger(__name__)

_WAIT_S = 15.0
"""How long one question for events waits for the next one."""

_BATCH = 256
_READ_BYTES = 1 << 20
_MAX_CHILDREN = 1000
"""Runs that one run may launch elsewhere."""

_END_S = 10.0


@dataclass(slots=True)
class _Child:
    """A run elsewhere: the stream of its events, after which one, and the task that waits for the next."""

    run: Run
    stream: AsyncGenerator[Event, None] | None = None
    after: int = 0
    next: asyncio.Task[Event | Exception | None] | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False


class Delegations:
    """Answers what runs ask of other nodes; `async with`.

    Args:
        client: makes the client that dials; called at the first delegation.
        peer_id: this node's.
        seal: gives `bytes[32]` of data that nobody else can.
        chain_of: gives the chain on whose behalf one of this node's runs is.
        folder: where outputs of other runs lie while they are read.
        room_of: gives the room on its disk for what runs of an account fetch; see `Ledger.share_of`.
        store: is open; it keeps what is to be ended elsewhere.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        provider: Provider,
        peer_id: str,
        *,
        seal: Callable[[Any], bytes],
        chain_of: Callable[[str], list[dict[str, str]]],
        folder: Path,
        store: Store,
        clock: Clock,
        room_of: Callable[[str], Room] = lambda account: ENDLESS,
    ):
        self._make_client = client
        self._provider = provider
        self._peer_id = peer_id
        self._seal = seal
        self._chain_of = chain_of
        self._folder = folder
        self._room_of = room_of
        self._bytes: dict[str, int] = {}
        self._launching: Counter[str] = Counter()
        self._debts = Debts(store, clock, self._settle)
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._paying = contextlib.AsyncExitStack()
        self._tasks = Tasks()
        self._children: dict[str, dict[str, _Child]] = {}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        await self._tasks.open()
        try:
            await self._paying.enter_async_context(self._debts.open(wait_s=_END_S))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await self._paying.aclose()
        await self._tasks.aclose()
        await self._stack.aclose()

    @property
    def taken(self) -> int:
        """The bytes of the files that were fetched for runs which are not over."""
        return sum(self._bytes.values())

    async def answer(self, question: Question) -> Any:
        """Do what a run asks: `delegate.launch`, `delegate.events`, `delegate.answer`, `delegate.read`.

        Raises:
            KodoError: the refusal, as the flow is told.
        """
        try:
            match question.op:
                case "delegate.launch":
                    return await self._launch(question)
                case "delegate.events":
                    return await self._events(question)
                case "delegate.answer":
                    return await self._forward(question)
                case "delegate.read":
                    return await self._read(question)
            raise CallError(404, "no-such-op", f"there is no {question.op[:64]} here")
        except (NetworkError, DeadlineError) as error:
            raise CallError(502, "node-lost", f"the other node cannot be reached: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{question.op}: {type(error).__name__}") from None

    async def ended(self, fid: str) -> None:
        """Note that a run is over: what it launched elsewhere is followed no more."""
        for child in self._children.pop(fid, {}).values():
            await self._close(child)
        await asyncio.to_thread(shutil.rmtree, self._folder / fid, ignore_errors=True)
        self._bytes.pop(fid, None)

    # --- inside ---

    async def _settle(self, debt: Debt) -> None:
        """End the runs that a run which is over launched on another node: kill what is not over, acknowledge all."""
        client = await self._open()
        try:
            remote = await client.node(debt.reach)
        except (NotFoundError, NetworkError):
            remote = await client.node(debt.peer_id)
        if str(remote.peer_id) != debt.peer_id:
            remote = await client.node(debt.peer_id)
        remote = remote.on_behalf(debt.fid)
        for row in [row async for row in remote.pages("run.list")]:
            fid = row.get("fid")
            if not is_id(fid) or not row.get("own") or row.get("acknowledged"):
                continue
            run = Run(str(fid), remote, patience=client.settings.patience_s)
            if row.get("state") not in ("done", "error"):
                with contextlib.suppress(CallError):  # over by itself since
                    await run.kill()
            await run.ack()

    async def _open(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(self._make_client())
            return self._client

    async def _launch(self, question: Question) -> dict[str, Any]:
        target, inputs = question.args["flow"], question.args["inputs"]
        if not isinstance(target, str) or not isinstance(inputs, Mapping):
            raise UsageError("delegate needs a flow's NODE/PATH, and inputs by name")
        node = parse_flow(target).node
        if node is None:
            raise UsageError(f"name the node that should run {target[:200]!r}: NODE/PATH")
        if not may_delegate(await self._provider.recall(account_of(question.principal)), node):
            raise CallError(403, "not-granted", f"whoever launched this run may not use the node {node[:200]!r}")
        chain = [*self._chain_of(question.fid), {"peer_id": self._peer_id, "fid": question.fid}]
        if len(chain) > MAX_CHAIN:
            raise CallError(409, "too-deep", f"runs can launch runs on other nodes at most {MAX_CHAIN} deep")
        children = self._children.setdefault(question.fid, {})
        # Those that are being launched count: up to 32 are at once.
        if len(children) + self._launching[question.fid] >= _MAX_CHILDREN:
            raise CallError(429, "busy", f"a run launches at most {_MAX_CHILDREN} runs on other nodes")
        self._launching[question.fid] += 1
        try:
            return await self._launch_child(question, target, inputs, chain, children)
        finally:
            self._launching[question.fid] -= 1
            if not self._launching[question.fid]:
                del self._launching[question.fid]

    async def _launch_child(
        self,
        question: Question,
        target: str,
        inputs: Mapping[str, Any],
        chain: Sequence[Mapping[str, str]],
        children: dict[str, _Child],
    ) -> dict[str, Any]:
        client = await self._open()
        found = await client.find_flow(target)
        inputs = to_inputs(inputs, found.inputs_schema)
        await client.prove(found, inputs)
        # The same question after a restart has the same key, and so the same run.
        key = self._seal(["launch", question.fid, question.aid]).hex()
        args = {"path": found.path, "inputs": inputs, "key": key, "chain": chain, "strict": True}
        async with self._debts.launching(question.fid, str(found.remote.peer_id), found.remote.reach):
            answer = await found.remote.request("run.launch", args)
        fid = answer.get("fid") if isinstance(answer, Mapping) else None
        if not is_id(fid):
            raise PeerError(f"{found.remote} launched the run but did not return its fid")
        run = Run(str(fid), found.remote.on_behalf(question.fid), patience=client.settings.patience_s)
        children.setdefault(str(fid), _Child(run))
        handle = {"node": found.remote.reach, "peer_id": str(run.peer_id), "fid": run.fid}
        return {"run": {**handle, "seal": self._sealed(question.fid, handle)}}

    def _sealed(self, fid: str, handle: Mapping[str, Any]) -> str:
        return self._seal(["run", fid, *(str(handle[name]) for name in ("node", "peer_id", "fid"))]).hex()

    async def _child(self, question: Question) -> _Child:
        handle = question.args["run"]
        if handle["seal"] != self._sealed(question.fid, handle):
            raise CallError(404, "no-such-run", "this run did not launch that run")
        children = self._children.setdefault(question.fid, {})
        child = children.get(handle["fid"])
        if child is None:
            client = await self._open()
            remote = await client.node(str(handle["node"]))
            if str(remote.peer_id) != handle["peer_id"]:
                raise CallError(502, "node-lost", f"{handle['node']} is now the name of another node")
            run = Run(handle["fid"], remote.on_behalf(question.fid), patience=client.settings.patience_s)
            # Another question of this run may have found the node first: one stream, and one download at a time.
            child = children.setdefault(handle["fid"], _Child(run))
        return child

    async def _events(self, question: Question) -> dict[str, Any]:
        child, after = await self._child(question), int(question.args["after"])
        async with child.busy:
            if child.stream is None or child.after != after:
                await self._close(child)
                child.stream, child.after = child.run.follow(after), after
            events: list[Event] = []
            while len(events) < _BATCH:
                if child.next is None:
                    child.next = self._tasks.start(lambda: _next(child))
                await asyncio.wait([child.next], timeout=0.001 if events else _WAIT_S)
                if not child.next.done():
                    break
                found, child.next = child.next.result(), None
                if isinstance(found, Event):
                    events.append(found)
                    child.after = found.seq
                    continue
                await self._close(child)
                if events:
                    break
                raise found or CallError(
                    502, "node-lost", "the other node stopped sending the run's events before its end"
                )
            return {"events": [event.to_wire() for event in events]}

    async def _forward(self, question: Question) -> dict[str, Any]:
        """Answer a lock of the other run; what is asked again after a restart is answered once."""
        child, lid = await self._child(question), question.args["lid"]
        if not is_id(lid):
            raise CallError(404, "no-such-lock", "the other run has no such lock")
        key = self._seal(["answer", question.fid, question.aid]).hex()
        return {"unlock": await child.run.answer(lid, question.args["candidate"], key=key)}

    async def _close(self, child: _Child) -> None:
        waiting, child.next = child.next, None
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])
        stream, child.stream = child.stream, None
        if stream is not None:
            await stream.aclose()

    async def _read(self, question: Question) -> dict[str, Any]:
        child, name = await self._child(question), check_output_name(question.args["name"])
        offset = int(question.args["offset"])
        folder = self._folder / question.fid / child.run.fid
        async with child.busy:
            path = folder / name
            if not path.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    room = self._room_of(account_of(question.principal))
                    await child.run.download(folder, names=[name], keep=True, room=room)
                finally:
                    size = await asyncio.to_thread(size_of, folder.parent)
                    if question.fid in self._children:
                        self._bytes[question.fid] = size

        def read() -> tuple[bytes, int]:
            with open_plain(path) as file:
                return os.pread(file.fileno(), _READ_BYTES, offset), os.fstat(file.fileno()).st_size

        data, size = await asyncio.to_thread(read)
        return {"data": data, "size": size}


async def _next(child: _Child) -> Event | Exception | None:
    """Return the next event, None at the end, or what went wrong: a failure is for who asks."""
    try:
        assert child.stream is not None
        return await anext(child.stream)
    except StopAsyncIteration:
        return None
    except KodoError as error:
        return error


def may_delegate(principal: Principal, node: str) -> bool:
    """Return whether runs of `principal` may launch flows on the node that was asked for as `node`."""
    return principal.enters(node)
