"""What the writer does to shares and to their downloads.

A download of a share with a limit is a row of `downloads` per (share, peer id):

    reserved   takes a place, from its first byte on; 24 h after its last byte it counts as a download,
               unless it got under 1 % of the run's bytes
    done       every byte was sent: it counts; the same peer may read again for 24 h, at no price
    released   broke off under 1 %: takes no place; its bytes add up with those of all that were released, and each
               time they make a whole run a download counts, so that many small pieces are no way around the limit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from kodo.node.store.byte_ranges import Spans, span_bytes
from kodo.node.store.share_rows import DOWNLOAD_MS, MERCY, SIZE, bury, by_sid, gone
from kodo.node.store.transaction import Downloaded, Transaction
from kodo.p2p.errors import CallError, CapacityError, NotFoundError
from kodo.protocol.access import Mode

__all__ = ["MAX_SHARES", "NewShare", "Taken", "add", "forget", "mark", "release", "reserve", "revoke"]

MAX_SHARES = 1000
"""Shares of one run, ended ones too."""


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


def forget(tx: Transaction, sids: Sequence[str]) -> None:
    """Remove shares, and tombstones that are past their time; links leave a tombstone until they expire."""
    for sid in sids:
        times = {"sid": sid, "now": tx.now, "lapse": tx.now - DOWNLOAD_MS, "peer": ""}
        bury(tx.connection, "s.sid=:sid", "'used-up'", times)
        tx.connection.execute("DELETE FROM shares WHERE sid=?", (sid,))
    tx.connection.execute("DELETE FROM dead_links WHERE expires<=?", (tx.now,))


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
        f"SELECT d.state, d.sent, d.covered, {SIZE}, r.state, r.fid FROM downloads d JOIN shares s ON s.sid=d.sid"
        " JOIN runs r ON r.rid=s.rid WHERE d.sid=:sid AND d.peer=:peer",
        bound,
    ).fetchone()
    if found is None or found[0] != "reserved":
        return
    _, sent, covered, size, run, fid = found
    if last and covered >= size and run in ("done", "error"):
        tx.connection.execute("UPDATE downloads SET state='done', at=:now WHERE sid=:sid AND peer=:peer", bound)
        counted = tx.connection.execute(
            "UPDATE shares SET counted=counted+1 WHERE sid=:sid RETURNING counted", {"sid": sid}
        ).fetchone()[0]
        tx.downloads.append(Downloaded(fid, sid, counted))
    elif last and sent * MERCY < size:
        tx.connection.execute("UPDATE downloads SET state='released' WHERE sid=:sid AND peer=:peer", bound)


def _settle(tx: Transaction, sid: str) -> None:
    """Settle the downloads of a share whose 24 h are over."""
    bound = {"sid": sid, "lapse": tx.now - DOWNLOAD_MS}
    connection = tx.connection
    lapsed = connection.execute(
        f"SELECT d.peer, d.state, d.sent, {SIZE} FROM downloads d JOIN shares s ON s.sid=d.sid"
        " WHERE d.sid=:sid AND d.at<=:lapse",
        bound,
    ).fetchall()
    for peer, state, sent, size in lapsed:
        counts = state == "reserved" and sent * MERCY >= size
        spilled = 0 if counts or state == "done" else sent
        connection.execute(
            "UPDATE shares SET counted=counted+?, spilled=spilled+? WHERE sid=?", (int(counts), spilled, sid)
        )
        connection.execute("DELETE FROM downloads WHERE sid=? AND peer=?", (sid, peer))


def _unpack(packed: bytes) -> Spans:
    return tuple((start, end) for start, end in msgpack.unpackb(packed))
