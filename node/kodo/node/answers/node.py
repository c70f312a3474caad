"""`node.*`, `cleanup.*`: the node itself."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kodo.access.roles import check_operator
from kodo.node.answers.caller import Caller, Handlers
from kodo.node.catalog.load import Load
from kodo.node.clock import Clock
from kodo.node.files.ledger import Ledger
from kodo.node.housekeeping.cleanup import Stale
from kodo.node.housekeeping.deletion import Manager
from kodo.node.runs.runs import Runs
from kodo.node.twins import Twins
from kodo.node.webhooks.webhooks import Webhooks
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.args.base import NoArgs
from kodo.protocol.args.node import CleanupArgs, ScaleArgs, ShutdownArgs
from kodo.protocol.pages import fitting

__all__ = ["NodeAnswers", "NodeFacts"]

_LARGEST = 10
"""Runs that are named because they take most."""

_CLEANUP_ROWS = 5000
"""Rows of one answer at most; the totals count all."""


@dataclass(slots=True)
class NodeFacts:
    """What `node.state` says besides the load.

    Attributes:
        started_at: ms UTC.
        registries: gives each, `{url, online}`.
        twins: where other nodes with the same key were met.
        ledger: what is known of the disk, which operators are shown.
        webhooks: what tells the operator's targets, which operators are shown.
    """

    name: str
    peer_id: str
    version: str
    started_at: int
    registries: Callable[[], list[dict[str, Any]]] = list
    twins: Twins | None = None
    webhooks: Webhooks | None = None
    ledger: Ledger | None = None


class NodeAnswers:
    """Answers what is about the node as a whole."""

    def __init__(self, facts: NodeFacts, runs: Runs, manager: Manager, clock: Clock, load: Callable[[], Load]):
        self._facts = facts
        self._runs = runs
        self._manager = manager
        self._clock = clock
        self._load = load

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "node.state": self._state,
            "node.shutdown": self._shutdown,
            "node.scale": self._scale,
            "cleanup.list": self._cleanup_list,
            "cleanup.run": self._cleanup_run,
        }

    async def _state(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        load = self._load()
        hooks = self._facts.webhooks if caller.principal.operator else None
        webhooks = await hooks.state() if hooks is not None else []
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
            **({"twins": list(self._facts.twins.seen)} if self._facts.twins and self._facts.twins.seen else {}),
            **({"webhooks": webhooks} if webhooks else {}),
            **({"room": self._room()} if caller.principal.operator and self._facts.ledger is not None else {}),
        }

    def _room(self) -> dict[str, Any]:
        """Return what the node keeps and may keep, in bytes, how many runs wait for room, and why none is left."""
        ledger = self._facts.ledger
        assert ledger is not None
        waiting = sum(bool(live.waits) for live in self._runs.live.values())
        told: dict[str, Any] = {"kept": dict(ledger.parts), "quota": ledger.quota_bytes, "waiting": waiting}
        try:
            ledger.check()
        except CapacityError as error:
            told["full"] = str(error)
        return told

    async def _shutdown(self, caller: Caller, args: ShutdownArgs) -> dict[str, Any]:
        check_operator(caller.principal)
        self._runs.drain(args.drain_s)
        return {"stopping": True, "unfinished": len(self._runs.live), "drain_s": args.drain_s}

    async def _scale(self, caller: Caller, args: ScaleArgs) -> dict[str, Any]:
        check_operator(caller.principal)
        self._runs.scale(args.runners)
        return {"runners": args.runners}

    async def _cleanup_list(self, caller: Caller, args: CleanupArgs) -> dict[str, Any]:
        check_operator(caller.principal)
        told = _told(await self._manager.housekeeping.stale(self._kinds(args)))
        room = {"room": self._room()} if self._facts.ledger is not None else {}
        return {**told, **room, "largest": await self._manager.largest(_LARGEST)}

    async def _cleanup_run(self, caller: Caller, args: CleanupArgs) -> dict[str, Any]:
        check_operator(caller.principal)
        return _told(await self._manager.housekeeping.clean(self._kinds(args)))

    def _kinds(self, args: CleanupArgs) -> list[str] | None:
        known = self._manager.housekeeping.kinds
        for kind in args.what or ():
            if kind not in known:
                said = f"housekeeping knows no {kind!r}; it knows {', '.join(known)}"
                raise CallError(400, "bad-args", said, {"arg": "what"})
        return args.what


def _told(stale: list[Stale]) -> dict[str, Any]:
    rows = fitting([each._asdict() for each in stale[:_CLEANUP_ROWS]])
    return {"total_records": len(stale), "bytes": sum(each.bytes for each in stale), "result": rows}
