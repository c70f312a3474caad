"""Notices in the node's database: what targets are still to be told, each until its target took it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

__all__ = [
    "MAX_QUEUED",
    "NoticeRow",
    "Waiting",
    "add",
    "drop",
    "drop_old",
    "keep_only",
    "next_due",
    "put_off",
    "waiting",
]

MAX_QUEUED = 2000
"""Notices that wait for one target; the oldest go first."""


class NoticeRow(NamedTuple):
    """A notice for one target. `at`, `due`: ms UTC; `tries`: how often the target did not take it; `event`: JSON."""

    id: int
    at: int
    due: int
    tries: int
    event: str


class Waiting(NamedTuple):
    """How many notices wait for a target, and since when the oldest does, ms UTC."""

    amount: int
    oldest: int | None


def add(connection: sqlite3.Connection, targets: Sequence[str], now: int, events: Sequence[str]) -> int:
    """Keep events for each of the targets; return how many older ones went for want of room."""
    dropped = 0
    for target in targets:
        connection.executemany(
            "INSERT INTO notices (target, at, due, tries, event) VALUES (?,?,?,0,?)",
            [(target, now, now, event) for event in events],
        )
        dropped += connection.execute(
            "DELETE FROM notices WHERE target=? AND id<="
            "(SELECT id FROM notices WHERE target=? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (target, target, MAX_QUEUED),
        ).rowcount
    return dropped


def next_due(connection: sqlite3.Connection, target: str) -> NoticeRow | None:
    """Return the notice that a target is to be told next."""
    found = connection.execute(
        "SELECT id, at, due, tries, event FROM notices WHERE target=? ORDER BY due, id LIMIT 1", (target,)
    ).fetchone()
    return None if found is None else NoticeRow(*found)


def put_off(connection: sqlite3.Connection, row: NoticeRow, due: int) -> None:
    """Note that a notice was not taken, and when it is to be told again."""
    connection.execute("UPDATE notices SET tries=tries+1, due=? WHERE id=?", (due, row.id))


def drop(connection: sqlite3.Connection, row: NoticeRow) -> None:
    """Forget a notice: its target took it."""
    connection.execute("DELETE FROM notices WHERE id=?", (row.id,))


def drop_old(connection: sqlite3.Connection, target: str, before: int) -> int:
    """Forget what a target was to be told earlier than that, ms UTC; return how many notices those were."""
    return connection.execute("DELETE FROM notices WHERE target=? AND at<?", (target, before)).rowcount


def keep_only(connection: sqlite3.Connection, targets: Collection[str]) -> None:
    """Forget the notices of all other targets."""
    marks = ",".join("?" * len(targets))
    connection.execute(f"DELETE FROM notices WHERE target NOT IN ({marks})", tuple(targets))


def waiting(connection: sqlite3.Connection) -> dict[str, Waiting]:
    """Return what waits, by target."""
    found = connection.execute("SELECT target, count(*), min(at) FROM notices GROUP BY target")
    return {target: Waiting(count, oldest) for target, count, oldest in found}
