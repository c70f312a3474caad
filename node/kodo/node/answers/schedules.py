"""`schedule.*`: flows that are launched at times."""

from __future__ import annotations

from typing import Any

import msgpack

from kodo.node.answers.audit import AuditAnswers
from kodo.node.answers.caller import Caller, Handlers, granted
from kodo.node.catalog.catalog import Catalog
from kodo.node.launches.launcher import Launcher
from kodo.node.launches.schedules import Schedules
from kodo.node.launches.times import Timing
from kodo.node.store.schedule_rows import ScheduleRow
from kodo.p2p.errors import CallError, UsageError
from kodo.p2p.net.turns import FairThreads
from kodo.protocol.access import account_of
from kodo.protocol.args.schedules import ScheduleAddArgs, ScheduleListArgs, SchedulePauseArgs
from kodo.protocol.args.shares import SidArgs
from kodo.protocol.pages import paged

__all__ = ["ScheduleAnswers"]

MAX_INPUT_BYTES = 64 << 10
"""Bound of the inputs that a schedule keeps, packed; larger things are files."""

_TOLD = 3
"""How many of the next times are told."""


class ScheduleAnswers:
    """Answers what is about schedules."""

    def __init__(self, schedules: Schedules, launcher: Launcher, catalog: Catalog, audit: AuditAnswers):
        self._audit = audit
        self._schedules = schedules
        self._launcher = launcher
        self._catalog = catalog
        self._beside = FairThreads(1)

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "schedule.add": self._add,
            "schedule.list": self._list,
            "schedule.pause": self._pause,
            "schedule.remove": self._remove,
        }

    async def _add(self, caller: Caller, args: ScheduleAddArgs) -> dict[str, Any]:
        if (args.path is None) == (args.name is None):
            raise _bad("path", "pass either a path or a name")
        try:
            timing = Timing(args.cron, args.tz, args.at, args.every_s).check()
        except UsageError as error:
            raise _bad("tz" if str(error).startswith("tz") else "cron", str(error)) from None
        principal = caller.principal
        flow = self._catalog.find(path=args.path, name=args.name, granted=granted(principal))
        _, secrets, _ = await self._launcher.check(principal, caller.payer, flow, args.inputs, strict=True)
        await self._catalog.check_by_author(flow, args.inputs, caller.payer)
        if secrets:
            names = sorted({str(path[0]) for path, _ in secrets if path})
            raise CallError(
                400,
                "secret-inputs",
                f"a schedule keeps no secrets; leave these inputs out: {', '.join(names)[:300]}",
                {"names": names[:100]},
            )
        if len(msgpack.packb(args.inputs)) > MAX_INPUT_BYTES:
            raise CallError(413, "too-large", f"a schedule keeps at most {MAX_INPUT_BYTES} bytes of inputs")
        row = ScheduleRow(
            sid="",
            principal=principal.id,
            payer=caller.payer,
            path=flow.path,
            name=flow.name,
            inputs=args.inputs,
            tags=list(args.tags),
            cron=timing.cron,
            tz=timing.tz,
            at=timing.at,
            every_s=timing.every_s,
            missed=args.missed,
            overlap=args.overlap,
            created=0,
            due=None,
        )
        return self._fields(await self._schedules.add(row), caller)

    async def _list(self, caller: Caller, args: ScheduleListArgs) -> dict[str, Any]:
        everybody = args.others and caller.principal.operator
        total, rows = await self._schedules.page(None if everybody else caller.principal.id, args.p, args.pp)
        # The next times of a rare date take milliseconds to find, and there may be a hundred of them on a page. Pages
        # wait for each other: the threads are everybody's.
        shown = await self._beside.do(lambda: [self._fields(row, caller) for row in rows])
        return paged(shown, total, total, args.p, args.pp)

    async def _pause(self, caller: Caller, args: SchedulePauseArgs) -> dict[str, Any]:
        row = await self._found(caller, args.sid, "schedule.pause")
        row = await self._schedules.pause(row, paused=args.paused)
        return self._fields(row, caller)

    async def _remove(self, caller: Caller, args: SidArgs) -> dict[str, Any]:
        row = await self._found(caller, args.sid, "schedule.remove")
        await self._schedules.remove(row)
        return {"sid": row.sid, "removed": True}

    async def _found(self, caller: Caller, sid: str, op: str) -> ScheduleRow:
        """Return a schedule that the caller may change; that an operator changes somebody else's is kept."""
        row, principal = await self._schedules.get(sid), caller.principal
        if row is None or not (row.principal == principal.id or principal.operator):
            raise CallError(404, "no-such-schedule", "there is no such schedule here, or it is not yours")
        if row.principal != principal.id:
            await self._audit.note(caller, op, sid=sid)
        return row

    def _fields(self, row: ScheduleRow, caller: Caller) -> dict[str, Any]:
        """Return a schedule as it is shown; what its runs are about is for its owner alone."""
        own = row.principal == caller.principal.id
        return {
            "sid": row.sid,
            "path": row.path,
            "name": row.name,
            "inputs": row.inputs if own else {},
            "tags": row.tags if own else [],
            "cron": row.cron,
            "tz": row.tz,
            "at": row.at,
            "every_s": row.every_s,
            "missed": row.missed,
            "overlap": row.overlap,
            "created": row.created,
            "paused": row.paused is not None,
            "next": self._schedules.upcoming(row, _TOLD),
            "waits": row.waits,
            "last": None
            if row.last_due is None and row.last_reason is None
            else {
                "due": row.last_due,
                "fid": row.last_fid,
                "reason": row.last_reason if own else _code(row.last_reason),
            },
            "launches": row.launches,
            "own": own,
            "launcher": account_of(row.principal) if own or caller.principal.operator else None,
        }


def _code(reason: str | None) -> str | None:
    """Return of a reason what no input can be part of: what stands before its message."""
    return None if reason is None else reason.partition(":")[0]


def _bad(arg: str, what: str) -> CallError:
    return CallError(400, "bad-args", f"schedule.add: {arg}: {what}", {"arg": arg})
