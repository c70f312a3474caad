"""Schedules in the node's database: launches that are due at times."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgpack

from kodo.protocol.uploads import find_uploads

__all__ = [
    "Missed",
    "Overlap",
    "ScheduleRow",
    "add",
    "by_sid",
    "counts",
    "due",
    "files",
    "hold",
    "move",
    "next_due",
    "page",
    "pause",
    "remove",
    "resume",
    "sweep",
]

Missed = Literal["once", "skip"]
Overlap = Literal["skip", "queue", "allow"]

_PACKED = ("inputs", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule.

    Attributes:
        principal: whose it is, and to whom its runs belong.
        payer: against whose bounds it and its runs count.
        cron, tz, at, every_s, created: see `Timing`; `every_s` counts from `created`. Times are ms UTC.
        missed: what becomes of times at which the node was down: one launch, or none.
        overlap: what becomes of a time at which an earlier run goes on.
        paused: since when it is; None when it is not.
        due: when it is due next; None when never again.
        waits: whether that time was taken note of when it came, and the launch waits for something.
        last_due, last_fid, last_reason: the latest time that it was due, and what became of it: a run, or why none.
        launches: how many runs it has launched.
    """

    sid: str
    principal: str
    payer: str
    path: str
    name: str
    inputs: dict[str, Any]
    tags: list[str]
    cron: str | None
    tz: str
    at: int | None
    every_s: int | None
    missed: Missed
    overlap: Overlap
    created: int
    due: int | None
    paused: int | None = None
    waits: bool = False
    last_due: int | None = None
    last_fid: str | None = None
    last_reason: str | None = None
    launches: int = 0


_NAMES = tuple(each.name for each in fields(ScheduleRow))
_COLUMNS = ", ".join(_NAMES)


def _row(values: tuple[Any, ...]) -> ScheduleRow:
    told = dict(zip(_NAMES, values, strict=True))
    return ScheduleRow(
        **{**told, **{name: msgpack.unpackb(told[name]) for name in _PACKED}, "waits": bool(told["waits"])}
    )


def by_sid(connection: sqlite3.Connection, sid: str) -> ScheduleRow | None:
    """Return one schedule."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM schedules WHERE sid=?", (sid,)).fetchone()
    return None if found is None else _row(found)


def page(connection: sqlite3.Connection, principal: str | None, p: int, pp: int) -> tuple[int, list[ScheduleRow]]:
    """Return how many schedules a principal (None: everybody) has, and a page of them, the latest first."""
    bound = {"who": principal, "pp": pp, "skip": (p - 1) * pp}
    where = "(:who IS NULL OR principal=:who)"
    total = connection.execute(f"SELECT count(*) FROM schedules WHERE {where}", bound).fetchone()[0]
    query = f"SELECT {_COLUMNS} FROM schedules WHERE {where} ORDER BY sid DESC LIMIT :pp OFFSET :skip"
    return total, [_row(each) for each in connection.execute(query, bound)]


def counts(connection: sqlite3.Connection, payer: str) -> tuple[int, int]:
    """Return how many schedules a payer has, and how many there are in all."""
    query = "SELECT coalesce(sum(payer=?), 0), count(*) FROM schedules"
    mine, total = connection.execute(query, (payer,)).fetchone()
    return mine, total


def due(connection: sqlite3.Connection, now: int, count: int, after: tuple[int, str] = (0, "")) -> list[ScheduleRow]:
    """Return schedules that are due by `now`, those that are so for longest first, `count` at most.

    Payers take turns. Those that wait come last; of them those that follow `after`, a (due, sid), come before the
    others.
    """
    turns = (
        "SELECT sid AS which, row_number() OVER (PARTITION BY payer, waits ORDER BY due, sid) AS turn FROM schedules"
        " WHERE due<=:now AND paused IS NULL"
    )
    query = (
        f"SELECT {_COLUMNS} FROM ({turns}) JOIN schedules ON sid=which"
        " ORDER BY waits, CASE WHEN waits THEN (due, sid)<=(:due, :sid) ELSE turn END, due, sid LIMIT :count"
    )
    bound = {"now": now, "count": count, "due": after[0], "sid": after[1]}
    return [_row(each) for each in connection.execute(query, bound)]


def next_due(connection: sqlite3.Connection, now: int) -> int | None:
    """Return when the next schedule is due after `now`."""
    found: int | None = connection.execute(
        "SELECT min(due) FROM schedules WHERE due>? AND paused IS NULL", (now,)
    ).fetchone()[0]
    return found


def files(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Return, by sid, the ids of the uploads that schedules need which may launch again."""
    found = connection.execute("SELECT sid, inputs FROM schedules WHERE due IS NOT NULL")
    return {sid: frozenset(find_uploads(msgpack.unpackb(packed))) for sid, packed in found}


# --- changes ---


def add(connection: sqlite3.Connection, row: ScheduleRow) -> None:
    """Store a schedule."""
    told = {name: getattr(row, name) for name in _NAMES}
    told |= {name: msgpack.packb(told[name]) for name in _PACKED}
    marks = ", ".join(f":{name}" for name in _NAMES)
    connection.execute(f"INSERT INTO schedules ({_COLUMNS}) VALUES ({marks})", told)


def move(
    connection: sqlite3.Connection, row: ScheduleRow, due: int | None, *, fid: str | None, reason: str | None
) -> bool:
    """Note what became of the time at which a schedule was due, and when it is next; whether that was still to do."""
    done = connection.execute(
        "UPDATE schedules SET due=:next, waits=0, last_due=:due, last_fid=coalesce(:fid, last_fid),"
        " last_reason=:reason, launches=launches+:made WHERE sid=:sid AND due=:due AND paused IS NULL",
        {"next": due, "due": row.due, "fid": fid, "reason": reason, "made": fid is not None, "sid": row.sid},
    )
    return done.rowcount == 1


def hold(connection: sqlite3.Connection, row: ScheduleRow, reason: str) -> None:
    """Note that the launch for the time at which a schedule is due waits, and for what."""
    connection.execute(
        "UPDATE schedules SET waits=1, last_reason=? WHERE sid=? AND due=? AND paused IS NULL",
        (reason, row.sid, row.due),
    )


def pause(connection: sqlite3.Connection, sid: str, at: int) -> None:
    """Pause a schedule; one that is paused stays so since when it was."""
    connection.execute("UPDATE schedules SET paused=?, waits=0 WHERE sid=? AND paused IS NULL", (at, sid))


def resume(connection: sqlite3.Connection, sid: str, due: int | None) -> None:
    """Resume a paused schedule from `due`; one that was due for the last time is not due again."""
    connection.execute(
        "UPDATE schedules SET paused=NULL, due=iif(due IS NULL, NULL, ?), waits=0 WHERE sid=? AND paused IS NOT NULL",
        (due, sid),
    )


def remove(connection: sqlite3.Connection, sid: str) -> bool:
    """Remove a schedule; whether there was one."""
    return connection.execute("DELETE FROM schedules WHERE sid=?", (sid,)).rowcount == 1


def sweep(connection: sqlite3.Connection, before: int) -> None:
    """Remove schedules that launch nothing any more and were due last before that, ms UTC."""
    connection.execute("DELETE FROM schedules WHERE due IS NULL AND coalesce(last_due, created)<?", (before,))
