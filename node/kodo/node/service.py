"""Calls: what a caller asks, held against what it may do, and given to the part that does it.

A run that is somebody else's does not exist: it is looked up the same way, and refused in the same words.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from kodo.access.provider import Provider
from kodo.node.catalog import Catalog, Flow, paged
from kodo.node.clock import Clock
from kodo.node.follow import Feed
from kodo.node.housekeeping import KINDS, Stale
from kodo.node.load import Load
from kodo.node.locks import Locks
from kodo.node.manage import Manager
from kodo.node.outputs import Outputs
from kodo.node.queries import RunFilter
from kodo.node.rows import OutputRow, RunRow
from kodo.node.runs import Order, Runs
from kodo.node.store import Store
from kodo.node.uploads import Uploads
from kodo.p2p.errors import CallError, NotFoundError
from kodo.protocol.access import Principal
from kodo.protocol.calls import (
    OPS,
    Args,
    CleanupArgs,
    FidArgs,
    FlowListArgs,
    FlowSchemaArgs,
    InputWriteArgs,
    LaunchArgs,
    LockAnswerArgs,
    LockGetArgs,
    ManifestArgs,
    NoArgs,
    PageArgs,
    ReadArgs,
    RunListArgs,
    ScaleArgs,
    ShutdownArgs,
    StreamArgs,
    parse_args,
)
from kodo.protocol.events import RunView, visible
from kodo.protocol.manifest import CHUNK_BYTES

__all__ = ["Asked", "NodeFacts", "Service"]

_STREAM_EVENTS = 128
"""Events that go to the session at once."""


_CLEANUP_ROWS = 5000
"""Rows of one answer; the totals count all."""


class Asked(Protocol):
    """What the service needs of a call: `kodo.p2p.net.calls.Request` has it."""

    op: str
    args: dict[str, Any]

    @property
    def session(self) -> Any:
        """The session that the call came by."""
        ...

    async def send(self, item: Any) -> None:
        """Send an item."""
        ...

    async def send_all(self, items: Iterable[Any]) -> None:
        """Send several items."""
        ...

    def uploads(self) -> AsyncIterator[bytes]:
        """Give the bytes that follow the args."""
        ...


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What `node.state` says besides the load. `registries`: each `{url, online}`; `started_at` in ms UTC."""

    name: str
    peer_id: str
    version: str
    started_at: int
    registries: Callable[[], list[dict[str, Any]]] = list


@dataclass(frozen=True, slots=True)
class _Caller:
    principal: Principal
    asked: Asked


class Service:
    """Answers the calls of `OPS`; the handler of a `CallServer`."""

    def __init__(
        self,
        facts: NodeFacts,
        provider: Provider,
        catalog: Catalog,
        store: Store,
        feed: Feed,
        runs: Runs,
        locks: Locks,
        outputs: Outputs,
        uploads: Uploads,
        clock: Clock,
        load: Callable[[], Load],
        manager: Manager,
    ):
        self._facts = facts
        self._provider = provider
        self._catalog = catalog
        self._store = store
        self._feed = feed
        self._runs = runs
        self._locks = locks
        self._outputs = outputs
        self._uploads = uploads
        self._clock = clock
        self._load = load
        self._manager = manager
        handlers: dict[str, Callable[[_Caller, Any], Awaitable[Any]]] = {
            "node.state": self._node_state,
            "node.shutdown": self._node_shutdown,
            "node.scale": self._node_scale,
            "cleanup.list": self._cleanup_list,
            "cleanup.run": self._cleanup_run,
            "auth.info": self._auth_info,
            "auth.whoami": self._auth_whoami,
            "flow.list": self._flow_list,
            "flow.schema": self._flow_schema,
            "run.launch": self._run_launch,
            "run.list": self._run_list,
            "run.state": self._run_state,
            "run.stream": self._run_stream,
            "run.kill": self._run_kill,
            "run.restart": self._run_restart,
            "run.ack": self._run_ack,
            "run.delete": self._run_delete,
            "lock.list": self._lock_list,
            "lock.get": self._lock_get,
            "lock.answer": self._lock_answer,
            "output.list": self._output_list,
            "output.manifest": self._output_manifest,
            "output.read": self._output_read,
            "input.write": self._input_write,
        }
        assert handlers.keys() == OPS.keys()
        self._handlers = cast("Mapping[str, Callable[[_Caller, Args], Awaitable[Any]]]", handlers)

    async def __call__(self, asked: Asked) -> Any:
        """Answer one call.

        Raises:
            CallError: the refusal that the caller gets.
        """
        args = parse_args(asked.op, asked.args)
        principal = await self._provider.identify(str(asked.session.remote_peer))
        return await self._handlers[asked.op](_Caller(principal, asked), args)

    # --- node and access ---

    async def _node_state(self, caller: _Caller, args: NoArgs) -> dict[str, Any]:
        load = self._load()
        return {
            "name": self._facts.name,
            "peer_id": self._facts.peer_id,
            "version": self._facts.version,
            "python": platform.python_version(),
            "uptime_s": round((self._clock.now_ms() - self._facts.started_at) / 1000, 3),
            "load": {
                "cpu": load.cpu,
                "memory": load.memory,
                "runners": {"free": load.free, "busy": load.busy},
                "queued": load.queued,
            },
            "registries": self._facts.registries(),
        }

    async def _node_shutdown(self, caller: _Caller, args: ShutdownArgs) -> dict[str, Any]:
        _check_operator(caller.principal)
        self._runs.drain(args.drain_s)
        return {"stopping": True, "unfinished": len(self._runs.live), "drain_s": args.drain_s}

    async def _node_scale(self, caller: _Caller, args: ScaleArgs) -> dict[str, Any]:
        _check_operator(caller.principal)
        self._runs.scale(args.runners)
        return {"runners": args.runners}

    async def _cleanup_list(self, caller: _Caller, args: CleanupArgs) -> dict[str, Any]:
        _check_operator(caller.principal)
        return _told(await self._manager.housekeeping.stale(args.what or KINDS))

    async def _cleanup_run(self, caller: _Caller, args: CleanupArgs) -> dict[str, Any]:
        _check_operator(caller.principal)
        return _told(await self._manager.housekeeping.clean(args.what or KINDS))

    async def _auth_info(self, caller: _Caller, args: NoArgs) -> dict[str, Any]:
        return self._provider.info()

    async def _auth_whoami(self, caller: _Caller, args: NoArgs) -> dict[str, Any]:
        principal = caller.principal
        return {
            "principal": principal.id,
            "peer_id": principal.peer_id,
            "user": principal.user,
            "roles": sorted(principal.roles),
            "grants": [str(grant) for grant in principal.grants],
        }

    # --- flows ---

    async def _flow_list(self, caller: _Caller, args: FlowListArgs) -> dict[str, Any]:
        if args.query is not None:
            raise CallError(
                400, "bad-args", "flow.list: query: this node searches by `search` only", {"arg": "query"}
            )
        total, found = self._catalog.search(args.search, args.by, _granted(caller.principal))
        rows = [flow.row() for flow in found[(args.p - 1) * args.pp : args.p * args.pp]]
        answer = paged(rows, total, len(found), args.p, args.pp)
        return {**answer, "search": args.search, "query": None, "by": args.by}

    async def _flow_schema(self, caller: _Caller, args: FlowSchemaArgs) -> dict[str, Any]:
        flow = self._catalog.find(path=args.path, granted=_granted(caller.principal))
        if flow.error is not None:
            raise CallError(409, "flow-broken", f"{flow.path} cannot be run: {flow.error[:500]}")
        return {
            "path": flow.path,
            "name": flow.name,
            "description": flow.description,
            "schema": flow.schema,
            "example": flow.example,
            "contents_for": [],
        }

    # --- runs ---

    async def _run_launch(self, caller: _Caller, args: LaunchArgs) -> dict[str, Any]:
        if (args.path is None) == (args.name is None):
            raise CallError(400, "bad-args", "run.launch: path: give either a path or a name", {"arg": "path"})
        flow = self._catalog.find(path=args.path, name=args.name, granted=_granted(caller.principal))
        return await self._launch(caller, flow, args.inputs, tuple(args.tags), args.key, strict=args.strict)

    async def _run_restart(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        """Launch the same flow, as it is now, with the run's inputs; nothing else is taken over but its tags."""
        row = await self._own_run(caller, args.fid)
        self._check_mode(caller, row)
        flow = self._catalog.find(path=row.path, granted=_granted(caller.principal))
        view = await self._store.view(args.fid)
        if view is None:
            raise _no_such_run()
        return await self._launch(caller, flow, view.inputs, row.tags, None)

    async def _launch(
        self,
        caller: _Caller,
        flow: Flow,
        inputs: dict[str, Any],
        tags: tuple[str, ...],
        key: str | None,
        *,
        strict: bool = False,
    ) -> dict[str, Any]:
        principal = caller.principal
        if principal.flow_grant(flow.path, "x") is None:
            raise CallError(403, "not-granted", f"you may see {flow.path}, and not run it")
        if strict:
            flow.check(inputs)
        demand = flow.demand(inputs)
        self._uploads.check(principal.id, flow.schema, inputs)
        limit = flow.limits.concurrent_runs
        if limit is not None and sum(live.row.path == flow.path for live in self._runs.live.values()) >= limit:
            raise CallError(
                429, "busy", f"{flow.path} has {limit} unfinished runs, its limit", {"retry_after_ms": 1000}
            )
        order = Order(
            principal=principal.id,
            path=flow.path,
            name=flow.name,
            entry=flow.entry,
            inputs=inputs,
            resources=flow.resources,
            about=flow.about(),
            tags=tags,
            key=key,
            demand=demand,
        )
        fid, state = await self._runs.launch(order)
        return {"fid": fid, "state": state.value}

    async def _run_list(self, caller: _Caller, args: RunListArgs) -> dict[str, Any]:
        chosen = RunFilter(caller.principal.id, args.state, args.path, args.since)
        page = await self._store.runs(chosen, p=args.p, pp=args.pp)
        rows = [
            {
                "fid": row.fid,
                "path": row.path,
                "name": row.name,
                "state": row.state.value,
                "progress": row.progress,
                "created": row.created,
                "modified": row.modified,
                "runtime_s": self._runtime(row),
                "tags": list(row.tags),
                "acknowledged": row.acknowledged is not None,
                "queue_position": self._runs.queue.position(row.fid),
            }
            for row in page.rows
        ]
        return paged(rows, page.total, page.filtered, args.p, args.pp)

    async def _run_state(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        live = self._runs.live.get(args.fid)
        view = live.view if live is not None else await self._store.view(args.fid)
        if view is None:
            raise _no_such_run()
        level = _level(caller.principal, row)
        return {
            "fid": row.fid,
            "node": {"name": self._facts.name, "peer_id": self._facts.peer_id},
            "path": row.path,
            "name": row.name,
            "state": view.state.value,
            "progress": view.progress,
            "inputs": view.inputs,
            "version": view.version,
            "runtime_s": self._runtime(row),
            "final": view.final,
            "fatal": _fatal(view, level),
            "acknowledged": view.acknowledged,
            "locks": [
                {"lid": lock.lid, "title": lock.title, "expires_at": lock.expires_at}
                for lock in ([] if view.state.over else view.locks.values())
            ],
            "shares": [],
            "outputs": list(view.outputs.values()) if level >= 1 else [],
            "config": view.config if level >= 2 else {},
            "agents": view.agents if level >= 2 else [],
            "tasks": view.tasks if level >= 2 else [],
            "tools": view.tools if level >= 2 else [],
            "author": view.flow.get("author", ""),
            "organization": view.flow.get("organization", ""),
            "release": view.flow.get("release", ""),
            "created": view.created,
            "modified": view.modified,
            "last_seq": view.last_seq,
            "tags": list(row.tags),
            "level": level,
            "queue_position": self._runs.queue.position(row.fid),
            "own": row.principal == caller.principal.id,
            "modes": ["r", "x"] if caller.principal.flow_grant(row.path, "x") else ["r"],
        }

    async def _run_stream(self, caller: _Caller, args: StreamArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        level = _level(caller.principal, row)
        last = args.after
        async with contextlib.aclosing(self._feed.follow(args.fid, args.after, follow=args.follow)) as batches:
            async for batch in batches:
                seen = [event.to_wire() for event in (visible(event, level) for event in batch) if event is not None]
                for start in range(0, len(seen), _STREAM_EVENTS):
                    await caller.asked.send_all(seen[start : start + _STREAM_EVENTS])
                last = batch[-1].seq
        after = await self._store.run(args.fid)
        return {"last_seq": last, "state": (after or row).state.value}

    async def _run_kill(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        self._check_mode(caller, row)
        state = await self._runs.kill(args.fid, caller.principal.id)
        return {"fid": args.fid, "state": state.value}

    async def _run_ack(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        self._check_mode(caller, row)
        state = await self._manager.acknowledge(args.fid, caller.principal.id)
        return {"fid": args.fid, "state": state.value, "acknowledged": True}

    async def _run_delete(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        self._check_mode(caller, row)
        return {"fid": args.fid, "deleted": True, "erased": await self._manager.delete(args.fid)}

    # --- locks ---

    async def _lock_list(self, caller: _Caller, args: PageArgs) -> dict[str, Any]:
        found = self._locks.open_locks(caller.principal)
        rows = [
            {
                "fid": live.fid,
                "lid": lock.lid,
                "title": lock.title,
                "flow": live.row.path,
                "expires_at": lock.expires_at,
            }
            for live, lock in found[(args.p - 1) * args.pp : args.p * args.pp]
        ]
        return paged(rows, len(found), len(found), args.p, args.pp)

    async def _lock_get(self, caller: _Caller, args: LockGetArgs) -> dict[str, Any]:
        await self._own_run(caller, args.fid)
        lock = await self._locks.get(args.fid, args.lid, caller.principal)
        answer = {
            "fid": args.fid,
            "lid": lock.lid,
            "title": lock.title,
            "schema": lock.schema,
            "expires_at": lock.expires_at,
        }
        return {**answer, "default": lock.default} if lock.has_default else answer

    async def _lock_answer(self, caller: _Caller, args: LockAnswerArgs) -> dict[str, Any]:
        row = await self._own_run(caller, args.fid)
        self._check_mode(caller, row)
        unlock = await self._locks.answer(args.fid, args.lid, args.candidate, caller.principal, args.key)
        return {"unlock": unlock}

    # --- outputs ---

    async def _output_list(self, caller: _Caller, args: FidArgs) -> dict[str, Any]:
        self._check_outputs(caller, await self._own_run(caller, args.fid))
        return {
            "result": [
                {
                    "name": row.name,
                    "size": row.manifest.size,
                    "media_type": row.media_type,
                    "sha256": row.manifest.sha256.hex(),
                }
                for row in await self._store.outputs(args.fid)
            ]
        }

    async def _output_manifest(self, caller: _Caller, args: ManifestArgs) -> dict[str, Any]:
        row = await self._output(caller, args.fid, args.name)
        chunks = row.manifest.chunks
        return {
            "name": row.name,
            "size": row.manifest.size,
            "sha256": row.manifest.sha256.hex(),
            "chunk_bytes": CHUNK_BYTES,
            "from": args.from_,
            "chunks": list(chunks[args.from_ : args.from_ + args.count]),
            "total_chunks": len(chunks),
        }

    async def _output_read(self, caller: _Caller, args: ReadArgs) -> dict[str, Any]:
        row = await self._output(caller, args.fid, args.name)
        size = row.manifest.size
        if args.offset > size:
            raise CallError(416, "bad-range", f"the output has {size} bytes, so nothing at byte {args.offset}")
        sent = 0
        reading = self._outputs.read(args.fid, row.name, row.manifest, args.offset, args.length)
        try:
            async with contextlib.aclosing(reading) as pieces:
                async for piece in pieces:
                    await caller.asked.send(piece)
                    sent += len(piece)
        except NotFoundError as error:
            raise CallError(410, "output-gone", str(error)) from None
        return {"bytes": sent}

    # --- inputs ---

    async def _input_write(self, caller: _Caller, args: InputWriteArgs) -> dict[str, Any]:
        principal = caller.principal
        if not any(principal.flow_grant(flow.path, "x") for flow in self._catalog.flows):
            raise CallError(403, "not-granted", "you may run no flow here, so there is nothing to upload for")
        await self._uploads.sweep([live.view.inputs for live in self._runs.live.values()])
        return await self._uploads.write(principal.id, args, caller.asked.uploads())

    # --- inside ---

    async def _own_run(self, caller: _Caller, fid: str) -> RunRow:
        """Give a run of the caller's.

        Raises:
            CallError: 404 `no-such-run`, whether there is none or it is somebody else's.
        """
        row = await self._store.run(fid)
        if row is None or row.principal != caller.principal.id:
            raise _no_such_run()
        return row

    async def _output(self, caller: _Caller, fid: str, name: str) -> OutputRow:
        self._check_outputs(caller, await self._own_run(caller, fid))
        row = await self._store.output(fid, name)
        if row is None:
            raise CallError(404, "no-such-output", "this run has no such output")
        return row

    def _check_mode(self, caller: _Caller, row: RunRow) -> None:
        if caller.principal.flow_grant(row.path, "x") is None:
            raise CallError(403, "not-granted", "your grant on this flow is for reading only")

    def _check_outputs(self, caller: _Caller, row: RunRow) -> None:
        if _level(caller.principal, row) < 1:
            raise CallError(403, "not-granted", "outputs need a grant of level 1 or more")

    def _runtime(self, row: RunRow) -> float:
        if row.runtime_s is not None:
            return row.runtime_s
        end = row.modified if row.state.over else self._clock.now_ms()
        return max(end - row.created, 0) / 1000


def _told(stale: list[Stale]) -> dict[str, Any]:
    rows = [each._asdict() for each in stale[:_CLEANUP_ROWS]]
    return {"total_records": len(stale), "bytes": sum(each.bytes for each in stale), "result": rows}


def _check_operator(principal: Principal) -> None:
    if not principal.operator:
        raise CallError(403, "operator-only", "only the node's operator may do this: the user of the node's own home")


def _granted(principal: Principal) -> Callable[[str], bool]:
    return lambda path: principal.flow_grant(path, "r") is not None


def _level(principal: Principal, row: RunRow) -> int:
    grant = principal.flow_grant(row.path, "r")
    return grant.level if grant is not None else 0


def _fatal(view: RunView, level: int) -> dict[str, Any] | None:
    if view.fatal is None or level >= 2:
        return view.fatal
    return {key: value for key, value in view.fatal.items() if key != "traceback"}


def _no_such_run() -> CallError:
    return CallError(404, "no-such-run", "there is no such run here, or it is not yours")
