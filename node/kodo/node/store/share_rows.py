"""Shares in the node's database as they are read: what each is now, and who is to see it.

A share is `revoked`, `expired`, `used-up` or `live`, in this order, and that is always computed, never stored. What
is written of shares and of their downloads stands in `share_changes`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kodo.p2p.errors import CallError
from kodo.protocol.access import Mode

__all__ = [
    "DOWNLOAD_MS",
    "EXPIRED_KEPT_MS",
    "MERCY",
    "SIZE",
    "Gone",
    "ShareRow",
    "bury",
    "bury_run",
    "by_digest",
    "by_sid",
    "concerning",
    "ended",
    "given",
    "gone",
    "has_live",
    "is_shared",
    "of_principal",
    "of_run",
]

DOWNLOAD_MS = 24 * 3600 * 1000
"""How long a download that stopped can be gone on with, and one that is complete be repeated."""

EXPIRED_KEPT_MS = 7 * 24 * 3600 * 1000
"""How long an expired link is still known as expired."""

MAX_GIVEN = 10_000
"""Shared runs that one principal's list may hold."""

MERCY = 100
"""A download that got less than one part of so many is released when it breaks off."""

Gone = Literal["expired", "used-up", "revoked", "deleted"]
"""Why a link is dead."""


@dataclass(frozen=True, slots=True)
class ShareRow:
    """A share, with counts of now.

    Attributes:
        principal: to whom its run belongs.
        link: whether it is for whoever holds its link.
        downloads: how many complete downloads it allows; None: any number.
        done: downloads that count.
        under_way: those that hold a place.
        created, expires, revoked: ms UTC.
        at: ms UTC, the now of this row.
        suspended: whether its maker may not deal with the node now, so that it shows nothing to anybody.
        mine: whether the peer that was asked for holds a place, or was done less than 24 h ago.
    """

    sid: str
    fid: str
    path: str
    name: str
    principal: str
    link: bool
    level: int
    mode: Mode
    downloads: int | None
    done: int
    under_way: int
    created: int
    expires: int
    revoked: int | None
    at: int
    mine: bool = False
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    suspended: bool = False

    @property
    def state(self) -> Literal["live", "expired", "used-up", "revoked"]:
        """What it is now, for one who has not begun a download."""
        if self.revoked is not None:
            return "revoked"
        if self.expires <= self.at:
            return "expired"
        return "used-up" if self.downloads is not None and self.done >= self.downloads else "live"

    @property
    def usable(self) -> bool:
        """Whether the peer that was asked for may use it: a download that was begun may be ended."""
        state = self.state
        return state == "live" or (state == "used-up" and self.mine)


SIZE = "(SELECT coalesce(sum(o.size), 0) FROM outputs o WHERE o.rid=s.rid)"
"""SQL: the bytes of the run of share `s`."""

_LAPSED = f"d.sid=s.sid AND d.at<=:lapse AND d.state='reserved' AND d.sent*{MERCY}>={SIZE}"
_SPILLED = (
    "(s.spilled + (SELECT coalesce(sum(d.sent), 0) FROM downloads d WHERE d.sid=s.sid AND d.peer<>:peer"
    f" AND (d.state='released' OR (d.state='reserved' AND d.at<=:lapse AND d.sent*{MERCY}<{SIZE}))))"
)
_DONE = f"(s.counted + (SELECT count(*) FROM downloads d WHERE {_LAPSED}) + {_SPILLED} / max({SIZE}, 1))"
_UNDER_WAY = "(SELECT count(*) FROM downloads d WHERE d.sid=s.sid AND d.at>:lapse AND d.state='reserved')"
_MINE = (
    "EXISTS (SELECT 1 FROM downloads d WHERE d.sid=s.sid AND d.peer=:peer AND d.at>:lapse AND d.state<>'released')"
)
_COUNTS = ", ".join(
    # A share without a limit has no downloads to look for.
    f"CASE WHEN s.downloads IS NULL THEN 0 ELSE {count} END"
    for count in (_DONE, _UNDER_WAY, _MINE)
)
_ROW = (
    "s.sid, r.fid, r.path, r.name, r.principal, s.digest IS NOT NULL, s.level, s.mode, s.downloads,"
    f" {_COUNTS}, s.created, s.expires, s.revoked"
)
_FROM = "FROM shares s JOIN runs r ON r.rid=s.rid"
_LIVE = f"s.revoked IS NULL AND s.expires>:now AND (s.downloads IS NULL OR {_DONE}<s.downloads OR {_UNDER_WAY}>0)"


def _select(
    connection: sqlite3.Connection,
    where: str,
    now: int,
    peer: str = "",
    tail: str = "",
    *,
    names: bool = False,
    **bound: Any,
) -> list[ShareRow]:
    """Return the shares that fit `where`; for whom they are only with `names`."""
    rows = connection.execute(
        f"SELECT {_ROW} {_FROM} WHERE {where} {tail}", {"now": now, "lapse": now - DOWNLOAD_MS, "peer": peer, **bound}
    ).fetchall()
    found = []
    for *first, created, expires, revoked in rows:
        sid, fid, path, name, principal, link, level, mode, downloads, done, under_way, mine = first
        query = "SELECT kind, name FROM share_to WHERE sid=? ORDER BY name"
        to = connection.execute(query, (sid,)).fetchall() if names else ()
        users = tuple(each for kind, each in to if kind == "user")
        roles = tuple(each for kind, each in to if kind == "role")
        facts = (sid, fid, path, name, principal, bool(link), level, mode, downloads, done, under_way)
        found.append(ShareRow(*facts, created, expires, revoked, now, bool(mine), users, roles))
    return found


def _for(users: Sequence[str], roles: Sequence[str], bound: dict[str, Any]) -> str:
    """Return the condition that a share is for one of these, and bind them."""
    marks: dict[str, list[str]] = {"user": [], "role": []}
    for kind, names in (("user", users), ("role", roles)):
        for number, name in enumerate(names):
            bound[f"{kind}{number}"] = name
            marks[kind].append(f":{kind}{number}")
    return (
        "s.sid IN (SELECT sid FROM share_to WHERE "
        + " OR ".join(f"(kind='{kind}' AND name IN ({','.join(some)}))" for kind, some in marks.items())
        + ")"
    )


# --- reading ---


def by_sid(connection: sqlite3.Connection, sid: str, now: int, peer: str = "") -> ShareRow | None:
    """Return one share."""
    rows = _select(connection, "s.sid=:sid", now, peer, sid=sid)
    return rows[0] if rows else None


def by_digest(
    connection: sqlite3.Connection, digest: bytes, now: int, peer: str
) -> tuple[ShareRow | None, Gone | None]:
    """Return the share whose link's secret has this hash, and why such a link is dead; always the same work."""
    rows = _select(connection, "s.digest=:digest", now, peer, digest=digest)
    dead = connection.execute("SELECT reason FROM dead_links WHERE digest=? AND expires>?", (digest, now)).fetchone()
    return (rows[0] if rows else None), (dead[0] if dead else None)


def concerning(
    connection: sqlite3.Connection,
    fid: str,
    users: Sequence[str],
    roles: Sequence[str],
    digests: Sequence[bytes],
    now: int,
    peer: str,
) -> tuple[list[ShareRow], list[Gone]]:
    """Return what lets a caller see the run: shares for its names, roles and links; and why links of it are dead."""
    bound: dict[str, Any] = {"fid": fid}
    names = _for(users, roles, bound)
    links = []
    for number, digest in enumerate(digests):
        bound[f"digest{number}"] = digest
        links.append(f":digest{number}")
    rows = _select(connection, f"r.fid=:fid AND ({names} OR s.digest IN ({','.join(links)}))", now, peer, **bound)
    dead: list[Gone] = [row.state for row in rows if row.link and not row.usable and row.state != "live"]
    marks = ",".join("?" * len(digests))
    query = f"SELECT reason FROM dead_links WHERE digest IN ({marks}) AND expires>?"
    dead += [reason for (reason,) in connection.execute(query, (*digests, now))]
    return rows, dead


def given(
    connection: sqlite3.Connection, users: Sequence[str], roles: Sequence[str], now: int, peer: str
) -> list[ShareRow]:
    """Return the live shares that are for one of these users or roles, the latest first."""
    bound: dict[str, Any] = {}
    where = f"{_for(users, roles, bound)} AND s.revoked IS NULL AND s.expires>:now"
    rows = _select(connection, where, now, peer, f"ORDER BY s.sid DESC LIMIT {MAX_GIVEN}", **bound)
    return [row for row in rows if row.usable]


def of_run(connection: sqlite3.Connection, fid: str, now: int) -> list[ShareRow]:
    """Return all shares of a run, the latest first."""
    return _select(connection, "r.fid=:fid", now, tail="ORDER BY s.sid DESC", names=True, fid=fid)


def of_principal(
    connection: sqlite3.Connection, principal: str, now: int, p: int, pp: int
) -> tuple[int, list[ShareRow]]:
    """Return how many shares there are of a principal's runs, and a page of them, the latest first."""
    total = connection.execute(f"SELECT count(*) {_FROM} WHERE r.principal=?", (principal,)).fetchone()[0]
    tail = f"ORDER BY s.sid DESC LIMIT {int(pp)} OFFSET {int((p - 1) * pp)}"
    return total, _select(connection, "r.principal=:principal", now, tail=tail, names=True, principal=principal)


def has_live(rid: str) -> str:
    """Return the SQL condition that the run `rid` has a live share; it takes `:now`, `:lapse` and `:peer`."""
    return f"EXISTS (SELECT 1 FROM shares s WHERE s.rid={rid} AND {_LIVE})"


def is_shared(connection: sqlite3.Connection, rid: int, now: int) -> bool:
    """Return whether a run has a live share."""
    bound = {"rid": rid, "now": now, "lapse": now - DOWNLOAD_MS, "peer": ""}
    return bool(connection.execute(f"SELECT {has_live(':rid')}", bound).fetchone()[0])


def ended(connection: sqlite3.Connection, now: int) -> tuple[list[tuple[str, int]], tuple[int, int]]:
    """Return the shares that need not be kept (sid, bytes), and the count and bytes of outdated tombstones."""
    times = {"now": now, "lapse": now - DOWNLOAD_MS, "peer": "", "kept": now - EXPIRED_KEPT_MS}
    used = f"s.expires>:now AND s.downloads IS NOT NULL AND {_DONE}>=s.downloads AND NOT EXISTS"
    used += " (SELECT 1 FROM downloads d WHERE d.sid=s.sid AND d.at>:lapse)"
    rows = connection.execute(
        "SELECT s.sid, length(s.sid) + coalesce(length(s.digest), 0)"
        " + (SELECT coalesce(sum(length(name)), 0) FROM share_to t WHERE t.sid=s.sid)"
        " + (SELECT coalesce(sum(length(d.peer)), 0) FROM downloads d WHERE d.sid=s.sid)"
        " + (SELECT coalesce(sum(length(spans)), 0) FROM downloaded e WHERE e.sid=s.sid)"
        f" FROM shares s WHERE s.revoked IS NOT NULL OR s.expires<=:kept OR ({used}) ORDER BY s.sid",
        times,
    ).fetchall()
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(length(digest) + length(reason) + 8), 0) FROM dead_links WHERE expires<=?",
        (now,),
    ).fetchone()
    return rows, (count, size)


def gone(reason: str, what: str = "share") -> CallError:
    """Return the refusal of a share, or of `what` else, that is over: 410 with its reason."""
    said = {
        "expired": f"this {what} has expired",
        "used-up": "this link was for a number of downloads, and all of them were made",
        "revoked": f"this {what} was revoked",
        "deleted": "the run that was shared here was deleted",
    }
    return CallError(410, reason, said.get(reason, f"this {what} is over"))


def bury_run(connection: sqlite3.Connection, rid: int, now: int) -> None:
    """Keep, of a run that is about to be deleted, what its links' holders are to be told until those expire."""
    bury(connection, "s.rid=:rid", "'deleted'", {"rid": rid, "now": now, "lapse": now - DOWNLOAD_MS, "peer": ""})


def bury(connection: sqlite3.Connection, where: str, otherwise: str, bound: dict[str, Any]) -> None:
    """Leave tombstones of the links among the shares `s` for which `where` holds, until they expire."""
    connection.execute(
        "INSERT OR REPLACE INTO dead_links (digest, reason, expires) SELECT s.digest, CASE WHEN s.revoked IS NOT NULL"
        f" THEN 'revoked' WHEN s.downloads IS NOT NULL AND {_DONE}>=s.downloads THEN 'used-up' ELSE {otherwise} END,"
        f" s.expires FROM shares s WHERE {where} AND s.digest IS NOT NULL AND s.expires>:now",
        bound,
    )
