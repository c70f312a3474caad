"""Schedules: flows that a node launches at times, for this user."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from kodo.client.flow import FlowFinder, FlowOnNode
from kodo.client.inputs import to_inputs
from kodo.client.peer import RemoteNode
from kodo.client.resolve import Reference, parse_schedule, safe_text
from kodo.client.upload import upload_inputs
from kodo.p2p.errors import CallError, PeerError, UsageError
from kodo.protocol.texts import several
from kodo.settings.units import parse_seconds

if TYPE_CHECKING:
    from kodo.client.near import Change

__all__ = ["Schedules", "local_zone", "schedule_args"]

_LOCAL = "/etc/localtime"


class Schedules:
    """Flows that nodes launch at times for a client's user; from `Client.schedules`."""

    def __init__(
        self,
        finder: FlowFinder,
        patience: float,
        rows: Callable[[str, str | None, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]],
        change: Callable[[str, Reference, str | None, str, Change], Awaitable[dict[str, Any]]],
    ):
        self._finder = finder
        self._patience = patience
        self._rows = rows
        self._change = change

    async def add(
        self,
        flow: str | FlowOnNode,
        *,
        cron: str | None = None,
        at: str | datetime | None = None,
        every: str | float | None = None,
        tz: str | None = None,
        missed: Literal["once", "skip"] = "once",
        overlap: Literal["skip", "queue", "allow"] = "skip",
        inputs: Mapping[str, Any] | None = None,
        tags: str | Sequence[str] | None = None,
        node: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Launch a flow at set times, even while this client is away; return the schedule.

        Args:
            flow: as for `Client.launch`, and so are `inputs`, `tags`, `node` and further keyword arguments. Secrets
                are refused.
            cron: five fields: minute, hour, day of month, month, day of week, as `0 7 * * MON-FRI`.
            at: a time, once: ISO 8601, or a `datetime`.
            every: a duration: `30m`, `12h`, or seconds.
            tz: the IANA name of the time zone in which `cron` and `at` are read; this machine's by default.
            missed: `once` launches one run for times at which the node was down, `skip` none.
            overlap: what becomes of a time at which an earlier run of the schedule goes on: `skip` it, `queue` it, so
                that it is launched when that run is over (one waits at most), or `allow` both.

        Returns:
            The answer of `schedule.add`: `sid, next` (ms UTC) and what was said, with `node` and `peer_id`.

        Raises:
            UsageError: it is no schedule.
            CallError: 400 `bad-inputs`, `secret-inputs`; 429 `busy`.
        """
        args = schedule_args(cron=cron, at=at, every=every, tz=tz, missed=missed, overlap=overlap, tags=tags)
        found = flow if isinstance(flow, FlowOnNode) else await self._finder.find_flow(flow, node=node)
        remote, given = found.remote, to_inputs({**(inputs or {}), **kwargs}, found.inputs_schema)
        await self._finder.prove(found, given)
        given = await upload_inputs(remote, given, patience=self._patience)
        # Not made again when the answer was lost: that would make a second one.
        answer = await remote.request("schedule.add", {"path": found.path, "inputs": given, **args}, repeat=False)
        return _told(remote, answer, "schedule.add")

    async def list(self, node: str | None = None, *, others: bool = False) -> list[dict[str, Any]]:
        """Return this user's schedules, on `node` or on all near nodes, with `node` and `peer_id`.

        Args:
            others: everybody's, where this user is an operator.
        """
        return await self._rows("schedule.list", node, {"others": True} if others else {})

    async def remove(self, sid: str, *, node: str | None = None) -> dict[str, Any]:
        """Remove a schedule: `NODE/SID`, or a sid on `node`, or on any near node. Its runs go on.

        Raises:
            UsageError: it is not a sid.
            NotFoundError: no near node has such a schedule of this user's.
        """
        change = partial(_ask, op="schedule.remove")
        return await self._change("schedule", parse_schedule(sid), node, "schedule.remove", change)

    async def pause(self, sid: str, *, paused: bool = True, node: str | None = None) -> dict[str, Any]:
        """Pause a schedule, or with `paused=False` let it go on with the next time from now; as `remove`."""
        change = partial(_ask, op="schedule.pause", paused=paused)
        return await self._change("schedule", parse_schedule(sid), node, "schedule.pause", change)


def schedule_args(
    *,
    cron: str | None,
    at: str | datetime | None,
    every: str | float | None,
    tz: str | None,
    missed: str,
    overlap: str,
    tags: str | Sequence[str] | None,
) -> dict[str, Any]:
    """Return what `schedule.add` takes, besides the flow and its inputs; see `Schedules.add`.

    Raises:
        UsageError: it is no schedule.
    """
    if sum(each is not None for each in (cron, at, every)) != 1:
        raise UsageError("say when: exactly one of cron, at and every")
    args: dict[str, Any] = {"missed": missed, "overlap": overlap, "tags": list(several(tags or ()))}
    if cron is not None:
        return {**args, "cron": cron, "tz": tz or local_zone()}
    if every is not None:
        seconds = parse_seconds(every)
        if not isinstance(seconds, (int, float)) or seconds != int(seconds) or not 60 <= seconds <= 366 * 86_400:
            said = safe_text(every, 40)
            raise UsageError(
                f"`every` must be a duration of at least one minute, such as 30m, 12h or 7d; {said!r} is not"
            )
        return {**args, "every_s": int(seconds)}
    assert at is not None
    return {**args, "at": _moment(at, tz or local_zone()), "tz": tz or local_zone()}


def _moment(at: str | datetime, tz: str) -> int:
    """Return a moment as ms UTC; one without a zone is read in `tz`."""
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        said = safe_text(at, 40)
        raise UsageError(f"at is a time such as '2026-12-01 07:00' or 2026-12-01T07:00+01:00, not {said!r}") from None
    if moment.tzinfo is None:
        try:
            zone = ZoneInfo(tz)
        except (ValueError, KeyError, OSError):
            raise UsageError(
                f"there is no time zone {safe_text(tz, 40)!r}; use a name such as Europe/Berlin"
            ) from None
        local = moment.replace(tzinfo=zone)
        if local.astimezone(ZoneInfo("UTC")).astimezone(zone).replace(tzinfo=None) != moment:
            raise UsageError(f"{safe_text(at, 40)} does not exist in {tz}: summer time begins there then")
        moment = local
    return int(moment.timestamp() * 1000)


def local_zone() -> str:
    """Return the IANA name of this machine's time zone; UTC where it cannot be told."""
    named = os.environ.get("TZ", "").lstrip(":")
    try:
        linked = os.path.realpath(_LOCAL).partition("/zoneinfo/")[2]
    except OSError:
        linked = ""
    for name in (named, linked.removeprefix("posix/")):
        try:
            if name:
                return ZoneInfo(name).key
        except (ValueError, KeyError, OSError):
            continue
    return "UTC"


async def _ask(remote: RemoteNode, *, op: str, sid: str, **args: Any) -> dict[str, Any] | None:
    """Change a schedule on a node; give its answer, None when it knows no such schedule of this user's."""
    try:
        told = _told(remote, await remote.request(op, {"sid": sid, **args}), op)
    except CallError as error:
        if error.code == 404:
            return None
        raise
    if told.get("sid") != sid:
        raise PeerError(f"the answer to {op} is not about that schedule")
    return told


def _told(remote: RemoteNode, answer: Any, op: str) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        raise PeerError(f"the answer to {op} is not a map")
    return {**{str(key): value for key, value in answer.items()}, "node": str(remote), "peer_id": str(remote.peer_id)}
