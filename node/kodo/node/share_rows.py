"""Shares in the node's database: rows, and what the writer does to them.

A share is `revoked`, `expired`, `used-up` or `live`, in this order, and that is always computed, never stored.

A download of a share with a limit is a row of `downloads` per (share, peer id):

    reserved   takes a place, from its first byte on; 24 h after its last byte it counts as a download,
               unless it got under 1 % of the run's bytes
    done       every byte was sent: it counts; the same peer may read again for 24 h, at no price
    released   broke off under 1 %: takes no place; its bytes add up with those of all that were released, and each
               time they make a whole run a download counts, so that many small pieces are no way around the limit
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgpack

from kodo.node.spans import Spans, span_bytes
from kodo.p2p.errors import CallError, CapacityError, NotFoundError
from kodo.protocol.access import Mode

if TYPE_CHECKING:
    from kodo.node.transaction import Transaction

__all__ = [
    "DOWNLOAD_MS",
    "EXPIRED_KEPT_MS",
    "MAX_SHARES",
    "Gone",
    "NewShare",
    "ShareRow",
    "Taken",
    "add",
    "bury_run",
    "by_digest",
    "by_sid",
    "concerning",
    "ended",
    "forget",
    "given",
    "gone",
    "has_live",
    "is_shared",
    "mark",
    "of_principal",
    "of_run",
    "release",
    "reserve",
    "revoke",
]

DOWNLOAD_MS = 24 * 3600 * 1000
"""How long a download that stopped can be gone on with, and one that is complete be repeated."""

EXPIRED_KEPT_MS = 7 * 24 * 3600 * 1000
"""How long an expired link is still known as expired."""

MAX_SHARES = 1000
"""Shares of one run, ended ones too."""

MAX_GIVEN = 10_000
"""Shared runs that one principal's list may hold."""

Gone = Literal["expired", "used-up", "revoked", "deleted"]
"""Why a link is dead."""

_MERCY = 100
"""A download that got less than one part of so many is released when it breaks off."""


@dataclass(frozen=True, slots=True)
class NewShare:
    """A share that asks to be stored. `digest`: SHA-256 of its link's secret; None: it is for users and roles."""

    sid: str
    fid: str
    level: int
    mode: Mode
    expires: int
    downloads: int | None = None
    digest: bytes | None = None
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


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


_SIZE = "(SELECT coalesce(sum(o.size), 0) FROM outputs o WHERE o.rid=s.rid)"
_LAPSED = f"d.sid=s.sid AND d.at<=:lapse AND d.state='reserved' AND d.sent*{_MERCY}>={_SIZE}"
_SPILLED = (
    "(s.spilled + (SELECT coalesce(sum(d.sent), 0) FROM downloads d WHERE d.sid=s.sid AND d.peer<>:peer"
    f" AND (d.state='released' OR (d.state='reserved' AND d.at<=:lapse AND d.sent*{_MERCY}<{_SIZE}))))"
)
_DONE = f"(s.counted + (SELECT count(*) FROM downloads d WHERE {_LAPSED}) + {_SPILLED} / max({_SIZE}, 1))"
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
    """Give the shares that fit `where`; for whom they are only with `names`."""
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
    """Give the condition that a share is for one of these, and bind them."""
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
    """Give one share."""
    rows = _select(connection, "s.sid=:sid", now, peer, sid=sid)
    return rows[0] if rows else None


def by_digest(
    connection: sqlite3.Connection, digest: bytes, now: int, peer: str
) -> tuple[ShareRow | None, Gone | None]:
    """Give the share whose link's secret has this hash, and why a link with it is dead; the same work in any case."""
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
    """Give what lets a caller see the run: shares for its names, roles and links; and why links of it are dead."""
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
    """Give the live shares that are for one of these users or roles, the latest first."""
    bound: dict[str, Any] = {}
    where = f"{_for(users, roles, bound)} AND s.revoked IS NULL AND s.expires>:now"
    rows = _select(connection, where, now, peer, f"ORDER BY s.sid DESC LIMIT {MAX_GIVEN}", **bound)
    return [row for row in rows if row.usable]


def of_run(connection: sqlite3.Connection, fid: str, now: int) -> list[ShareRow]:
    """Give all shares of a run, the latest first."""
    return _select(connection, "r.fid=:fid", now, tail="ORDER BY s.sid DESC", names=True, fid=fid)


def of_principal(
    connection: sqlite3.Connection, principal: str, now: int, p: int, pp: int
) -> tuple[int, list[ShareRow]]:
    """Give how many shares there are of a principal's runs, and a page of them, the latest first."""
    total = connection.execute(f"SELECT count(*) {_FROM} WHERE r.principal=?", (principal,)).fetchone()[0]
    tail = f"ORDER BY s.sid DESC LIMIT {int(pp)} OFFSET {int((p - 1) * pp)}"
    return total, _select(connection, "r.principal=:principal", now, tail=tail, names=True, principal=principal)


def has_live(rid: str) -> str:
    """Give the SQL condition that the run `rid` has a live share; it takes `:now`, `:lapse` and `:peer`."""
    return f"EXISTS (SELECT 1 FROM shares s WHERE s.rid={rid} AND {_LIVE})"


def is_shared(connection: sqlite3.Connection, rid: int, now: int) -> bool:
    """Say whether a run has a live share."""
    bound = {"rid": rid, "now": now, "lapse": now - DOWNLOAD_MS, "peer": ""}
    return bool(connection.execute(f"SELECT {has_live(':rid')}", bound).fetchone()[0])


def ended(connection: sqlite3.Connection, now: int) -> tuple[list[tuple[str, int]], tuple[int, int]]:
    """Give the shares that need not be kept (sid, bytes), and how many tombstones are past their time, with bytes."""
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


# --- writing ---


def add(tx: Transaction, new: NewShare) -> None:
    """Store a share.

    Raises:
        NotFoundError: there is no such run.
        CapacityError: the run has too many.
    """
    row = tx.connection.execute(
        "SELECT rid, (SELECT count(*) FROM shares WHERE shares.rid=runs.rid) FROM runs WHERE fid=?", (new.fid,)
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {new.fid}")
    rid, count = row
    if count >= MAX_SHARES:
        raise CapacityError(f"this run has {count} shares; revoke some and run cleanup")
    tx.connection.execute(
        "INSERT INTO shares (sid, rid, digest, level, mode, downloads, created, expires) VALUES (?,?,?,?,?,?,?,?)",
        (new.sid, rid, new.digest, new.level, new.mode, new.downloads, tx.now, new.expires),
    )
    names = {("user", name) for name in new.users} | {("role", name) for name in new.roles}
    tx.connection.executemany(
        "INSERT INTO share_to (kind, name, sid) VALUES (?,?,?)", [(kind, name, new.sid) for kind, name in names]
    )


def revoke(tx: Transaction, sid: str) -> bool:
    """End a share; say whether it was not revoked before."""
    return bool(
        tx.connection.execute("UPDATE shares SET revoked=? WHERE sid=? AND revoked IS NULL", (tx.now, sid)).rowcount
    )


def bury_run(connection: sqlite3.Connection, rid: int, now: int) -> None:
    """Keep, of a run that is about to be deleted, what its links' holders are to be told until those expire."""
    _bury(connection, "s.rid=:rid", "'deleted'", {"rid": rid, "now": now, "lapse": now - DOWNLOAD_MS, "peer": ""})


def forget(tx: Transaction, sids: Sequence[str]) -> None:
    """Remove shares, and tombstones that are past their time; links leave a tombstone until they expire."""
    for sid in sids:
        times = {"sid": sid, "now": tx.now, "lapse": tx.now - DOWNLOAD_MS, "peer": ""}
        _bury(tx.connection, "s.sid=:sid", "'used-up'", times)
        tx.connection.execute("DELETE FROM shares WHERE sid=?", (sid,))
    tx.connection.execute("DELETE FROM dead_links WHERE expires<=?", (tx.now,))


def _bury(connection: sqlite3.Connection, where: str, otherwise: str, bound: dict[str, Any]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO dead_links (digest, reason, expires) SELECT s.digest, CASE WHEN s.revoked IS NOT NULL"
        f" THEN 'revoked' WHEN s.downloads IS NOT NULL AND {_DONE}>=s.downloads THEN 'used-up' ELSE {otherwise} END,"
        f" s.expires FROM shares s WHERE {where} AND s.digest IS NOT NULL AND s.expires>:now",
        bound,
    )


# --- downloads ---


@dataclass(frozen=True, slots=True)
class Taken:
    """A place that a peer holds. `spans`: by output, what it was sent; `sent`: bytes in all, repeated ones too."""

    spans: dict[str, Spans]
    sent: int


def reserve(tx: Transaction, sid: str, peer: str) -> Taken:
    """Take a place for `peer`, or find the one that it holds.

    Raises:
        CallError: 410 when the share is over or used up, 429 `busy` while others hold all places.
    """
    connection = tx.connection
    _settle(tx, sid)
    share = by_sid(connection, sid, tx.now, peer)
    if share is None or not share.usable:
        raise gone("deleted" if share is None else share.state)
    if not share.mine and share.downloads is not None and share.done + share.under_way >= share.downloads:
        message = "all downloads that this share allows are under way; try again later"
        raise CallError(429, "busy", message, {"retry_after_ms": 60_000})
    connection.execute(
        "INSERT INTO downloads (sid, peer, state, at) VALUES (?,?,'reserved',?) ON CONFLICT (sid, peer) DO UPDATE"
        " SET at=CASE state WHEN 'done' THEN at ELSE excluded.at END,"
        " state=CASE state WHEN 'done' THEN 'done' ELSE 'reserved' END",
        (sid, peer, tx.now),
    )
    rows = connection.execute("SELECT name, spans FROM downloaded WHERE sid=? AND peer=?", (sid, peer))
    spans = {name: _unpack(packed) for name, packed in rows}
    row = connection.execute("SELECT sent FROM downloads WHERE sid=? AND peer=?", (sid, peer)).fetchone()
    return Taken(spans, row[0])


def mark(tx: Transaction, sid: str, peer: str, name: str, spans: Spans, sent: int) -> None:
    """Note what a peer has been, or is about to be, sent of the output `name`, and in all."""
    connection = tx.connection
    row = connection.execute("SELECT state FROM downloads WHERE sid=? AND peer=?", (sid, peer)).fetchone()
    if row is None or row[0] == "done":
        return
    before = connection.execute(
        "SELECT spans FROM downloaded WHERE sid=? AND peer=? AND name=?", (sid, peer, name)
    ).fetchone()
    more = span_bytes(spans) - (span_bytes(_unpack(before[0])) if before else 0)
    connection.execute(
        "UPDATE downloads SET at=?, sent=?, covered=covered+? WHERE sid=? AND peer=?", (tx.now, sent, more, sid, peer)
    )
    connection.execute(
        "INSERT OR REPLACE INTO downloaded (sid, peer, name, spans) VALUES (?,?,?,?)",
        (sid, peer, name, msgpack.packb([list(span) for span in spans])),
    )


def release(tx: Transaction, sid: str, peer: str, *, last: bool) -> None:
    """Take note of the end of a read: the download counts when all was sent, and is given up when little was.

    Args:
        last: whether the peer reads nothing else of this share now.
    """
    bound = {"sid": sid, "peer": peer, "now": tx.now}
    found = tx.connection.execute(
        f"SELECT d.state, d.sent, d.covered, {_SIZE}, r.state FROM downloads d JOIN shares s ON s.sid=d.sid"
        " JOIN runs r ON r.rid=s.rid WHERE d.sid=:sid AND d.peer=:peer",
        bound,
    ).fetchone()
    if found is None or found[0] != "reserved":
        return
    _, sent, covered, size, run = found
    if last and covered >= size and run in ("done", "error"):
        tx.connection.execute("UPDATE downloads SET state='done', at=:now WHERE sid=:sid AND peer=:peer", bound)
        tx.connection.execute("UPDATE shares SET counted=counted+1 WHERE sid=:sid", {"sid": sid})
    elif last and sent * _MERCY < size:
        tx.connection.execute("UPDATE downloads SET state='released' WHERE sid=:sid AND peer=:peer", bound)


def gone(reason: str) -> CallError:
    """Give the refusal of a share that is over: 410 with its reason."""
    said = {
        "expired": "this share has expired",
        "used-up": "this link was for a number of downloads, and all of them were made",
        "revoked": "this share was revoked",
        "deleted": "the run that was shared here was deleted",
    }
    return CallError(410, reason, said.get(reason, "this share is over"))


def _settle(tx: Transaction, sid: str) -> None:
    """Settle the downloads of a share whose 24 h are over."""
    bound = {"sid": sid, "lapse": tx.now - DOWNLOAD_MS}
    connection = tx.connection
    lapsed = connection.execute(
        f"SELECT d.peer, d.state, d.sent, {_SIZE} FROM downloads d JOIN shares s ON s.sid=d.sid"
        " WHERE d.sid=:sid AND d.at<=:lapse",
        bound,
    ).fetchall()
    for peer, state, sent, size in lapsed:
        counts = state == "reserved" and sent * _MERCY >= size
        spilled = 0 if counts or state == "done" else sent
        connection.execute(
            "UPDATE shares SET counted=counted+?, spilled=spilled+? WHERE sid=?", (int(counts), spilled, sid)
        )
        connection.execute("DELETE FROM downloads WHERE sid=? AND peer=?", (sid, peer))


def _unpack(packed: bytes) -> Spans:
    return tuple((start, end) for start, end in msgpack.unpackb(packed))
