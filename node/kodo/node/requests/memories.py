"""The memories of a node's flows and runs: one thread does the work, and access is decided here.

`short` is of a run and goes with it, `long` is of a flow, `shared` is by grant. Runs ask for theirs by their runner;
developers publish long-term and shared memory by calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from kodo.access.provider import Provider
from kodo.flow._runtime.memory_store import SENDER, MemoryLimits, MemoryRow, MemoryStore, Once
from kodo.node.clock import Clock
from kodo.node.runs.flow_requests import Question
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.access import Principal, account_of
from kodo.protocol.memory import Scope, check_shared
from kodo.protocol.room import ENDLESS, Room

__all__ = ["Memories", "StaleMemory", "may_share"]

T = TypeVar("T")

_READS = frozenset(["get", "keys", "files", "file.read"])


class StaleMemory(NamedTuple):
    """A memory that can go: its scope, what it is of (a fid, a flow's path), and the bytes that it takes."""

    scope: Scope
    of: str
    bytes: int


class Memories:
    """All memories of a node; `async with`.

    Args:
        root: `$KODO_HOME/memory`.
        provider: says what the principal of a run may do, when the run asks for shared memory.
        room: on its disk.
        short_s: how long the short-term memory of a run that is over is kept, seconds after its last change.
        long_s: how long that of a flow which is not offered any more.
    """

    def __init__(
        self,
        root: Path,
        provider: Provider,
        clock: Clock,
        *,
        room: Room = ENDLESS,
        limits: MemoryLimits | None = None,
        short_s: float = 86400.0,
        long_s: float = 30 * 86400.0,
    ):
        self.short_s = short_s
        self.long_s = long_s
        self._provider = provider
        self._clock = clock
        self._store = MemoryStore(root, clock.now_ms, room=room, limits=limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kodo-memory")

    @property
    def taken(self) -> int:
        """The bytes that all memories take on the disk."""
        return self._store.taken

    @property
    def unfolded(self) -> int:
        """Those of them that lie in a write-ahead log, and will be folded into its file."""
        return self._store.unfolded

    async def __aenter__(self) -> Self:
        await self._do(self._store.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(KodoError):
            await self._do(self._store.close)
        self._thread.shutdown(wait=False)

    async def answer(self, question: Question) -> Any:
        """Do what a run asks.

        Raises:
            KodoError: the refusal, as the flow is told.
        """
        args = dict(question.args)
        scope, of = args.pop("scope", None), args.pop("of", "")
        op = question.op.removeprefix("memory.")
        match scope:
            case "short":
                of = question.fid
            case "long":
                of = question.path
            case "shared":
                await self._check_shared(question.principal, of, "r" if op in _READS else "w")
            case _:
                raise UsageError("a memory is short, long or shared")
        once = None if op in _READS else Once(question.fid, question.aid, question.first_open)
        if args.pop("own", False) is not True:
            return await self._do(self._store.perform, op, scope, of, args, once)
        part = _part_of(question.principal)
        answer: Any = await self._do(self._store.perform, op, scope, of, _within(part, args), once)
        return _without(part, answer) if op in ("keys", "files") else answer

    async def put(self, scope: Scope, of: str, op: str, args: Mapping[str, Any], *, payer: str = "") -> Any:
        """Change a memory on behalf of a developer: `set`, `delete`, `file.write`, `file.delete`.

        Args:
            payer: against whose bounds files that are being written count.
        """
        return await self._do(self._store.perform, op, scope, of, {**args, "by": _sender(payer)}, None)

    async def drop(self, upload: str, *, payer: str = "") -> None:
        """Forget a file that a developer began to send and did not end."""
        await self._do(self._store.drop, _sender(payer), upload)

    async def contents(
        self, scope: Scope, of: str, prefix: str, skip: int, take: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """See `MemoryStore.contents`."""
        return await self._do(self._store.contents, scope, of, prefix, skip, take)

    async def all(self) -> list[MemoryRow]:
        """Return all memories."""
        return await self._do(self._store.memories)

    async def ended(self, fid: str) -> None:
        """Note that a run is over: it asks nothing more. Its short-term memory stays for `short_s`."""
        await self._do(self._store.ended, fid)

    async def forget(self, scope: Scope, of: str) -> None:
        """Remove a memory, overwritten on the disk."""
        await self._do(self._store.forget, scope, of)

    async def stale(self, live: Collection[str], offered: Collection[str]) -> list[StaleMemory]:
        """Return what can go now: short-term memory of runs that are over, long-term of flows that are not offered.

        Args:
            live: the fids of the runs that are not over.
            offered: the paths of the node's flows.
        """
        found = []
        for row in await self.all():
            before = self._before(row.scope, row.of, live, offered)
            if before is not None and row.modified <= before:
                found.append(StaleMemory("short" if row.scope == "short" else "long", row.of, row.bytes))
        return found

    async def forget_stale(self, scope: Scope, of: str, live: Collection[str], offered: Collection[str]) -> None:
        """Remove what `stale` named; not what is needed, or was changed, since."""
        before = self._before(scope, of, live, offered)
        if before is not None:
            await self._do(self._store.forget, scope, of, before)

    def _before(self, scope: str, of: str, live: Collection[str], offered: Collection[str]) -> float | None:
        """Return the ms UTC of the last change by which a memory can go now; None: it is needed."""
        if scope not in ("short", "long") or of in (live if scope == "short" else offered):
            return None
        return self._clock.now_ms() - (self.short_s if scope == "short" else self.long_s) * 1000

    async def short(self) -> dict[str, int]:
        """Return the bytes of the short-term memories, by fid."""
        return {row.of: row.bytes for row in await self.all() if row.scope == "short"}

    async def tidy(self, live: Collection[str]) -> None:
        """Forget what was remembered for runs, all but `live`, in case they asked the same again."""
        await self._do(self._store.forget_answers, set(live))

    async def sweep(self, live: Collection[str], offered: Collection[str]) -> list[StaleMemory]:
        """Remove what is stale; give what was removed."""
        await self.tidy(live)
        gone = await self.stale(live, offered)
        for each in gone:
            await self.forget_stale(each.scope, each.of, live, offered)
        return gone

    async def _check_shared(self, principal: str, name: Any, mode: str) -> None:
        try:
            check_shared(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        who = await self._provider.recall(account_of(principal))
        if not may_share(who, name, mode):
            raise CallError(403, "not-granted", f"whoever launched this run may not use the shared memory {name!r}")

    async def _do(self, work: Callable[..., T], *args: Any) -> T:
        """Do blocking work in the one thread; a wait that is cancelled does not undo it."""
        try:
            doing = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except RuntimeError as error:  # its thread is gone
            raise KodoError("the node is stopping") from error
        return await asyncio.shield(doing)


def _part_of(principal: str) -> str:
    """Return what the keys begin with that a principal has for themselves in a memory."""
    return f"own/{hashlib.sha256(principal.encode()).hexdigest()[:24]}/"


def _within(part: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a question, with the names of keys and files in a part of the memory."""
    names = {name: f"{part}{args[name]}" for name in ("key", "name", "prefix") if name in args}
    return {**args, **names, **({"after": f"{part}{args['after']}"} if args.get("after") else {})}


def _without(part: str, listing: Mapping[str, Any]) -> dict[str, Any]:
    """Return a listing without the part that its names begin with."""
    rows = [
        row.removeprefix(part) if isinstance(row, str) else {**row, "name": str(row["name"]).removeprefix(part)}
        for row in listing["rows"]
    ]
    return {**listing, "rows": rows, "more": str(listing["more"] or "").removeprefix(part)}


def _sender(payer: str) -> str:
    """Return a name for a payer that no run has, and that fits a file's."""
    return SENDER + hashlib.sha256(payer.encode()).hexdigest()[:24]


def may_share(principal: Principal, name: str, mode: str) -> bool:
    """Return whether runs of `principal` may read (`r`) or change (`w`) the shared memory `name`."""
    return principal.operator or principal.memory_grant(name, "w" if mode == "w" else "r") is not None
