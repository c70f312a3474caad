"""Invitations in the node's database: links by which a flow is launched in the name of who made them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgpack

__all__ = ["InvitationRow", "add", "by_digest", "by_sid", "count", "counts", "page", "revoke", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRow:
    """An invitation.

    Attributes:
        principal: who made it; its runs are launched with what that one may do at that time.
        payer: against whose bounds it counts.
        digest: SHA-256 of the link's secret.
        inputs: what the form begins with.
        level: what its holder sees of its runs.
        launches, launched: how many runs it may launch, and has.
        see: whether who made it sees its runs, which its holder is told.
        created, expires, revoked: ms UTC.
    """

    sid: str
    principal: str
    payer: str
    digest: bytes
    path: str
    name: str
    inputs: dict[str, Any]
    note: str
    level: int
    launches: int
    see: bool
    created: int
    expires: int
    revoked: int | None = None
    launched: int = 0

    def state(self, now: int) -> Literal["live", "expired", "used-up", "revoked"]:
        """Return what it is at `now`, ms UTC. One that is used up still shows the runs that it has launched."""
        if self.revoked is not None:
            return "revoked"
        if self.expires <= now:
            return "expired"
        return "used-up" if self.launched >= self.launches else "live"


_NAMES = tuple(each.name for each in fields(InvitationRow))
_COLUMNS = ", ".join(_NAMES)


def _row(values: tuple[Any, ...]) -> InvitationRow:
    told = dict(zip(_NAMES, values, strict=True))
    return InvitationRow(**{**told, "inputs": msgpack.unpackb(told["inputs"]), "see": bool(told["see"])})


def by_sid(connection: sqlite3.Connection, sid: str) -> InvitationRow | None:
    """Return one invitation."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM invitations WHERE sid=?", (sid,)).fetchone()
    return None if found is None else _row(found)


def by_digest(connection: sqlite3.Connection, digest: bytes) -> InvitationRow | None:
    """Return the invitation whose link's secret has this hash."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM invitations WHERE digest=?", (digest,)).fetchone()
    return None if found is None else _row(found)


def page(connection: sqlite3.Connection, principal: str, p: int, pp: int) -> tuple[int, list[InvitationRow]]:
    """Return how many invitations a principal has made, and a page of them, the latest first."""
    query = "SELECT count(*) FROM invitations WHERE principal=?"
    total = connection.execute(query, (principal,)).fetchone()[0]
    query = f"SELECT {_COLUMNS} FROM invitations WHERE principal=? ORDER BY sid DESC LIMIT ? OFFSET ?"
    return total, [_row(each) for each in connection.execute(query, (principal, pp, (p - 1) * pp))]


def counts(connection: sqlite3.Connection, payer: str) -> tuple[int, int]:
    """Return how many invitations a payer has made, and how many there are in all."""
    query = "SELECT coalesce(sum(payer=?), 0), count(*) FROM invitations"
    mine, total = connection.execute(query, (payer,)).fetchone()
    return mine, total


# --- changes ---


def add(connection: sqlite3.Connection, row: InvitationRow) -> None:
    """Store an invitation."""
    told = {name: getattr(row, name) for name in _NAMES}
    marks = ", ".join(f":{name}" for name in _NAMES)
    connection.execute(
        f"INSERT INTO invitations ({_COLUMNS}) VALUES ({marks})", {**told, "inputs": msgpack.packb(row.inputs)}
    )


def count(connection: sqlite3.Connection, sid: str, now: int) -> bool:
    """Count a launch, if the invitation allows one more at `now`, ms UTC; say whether it does."""
    done = connection.execute(
        "UPDATE invitations SET launched=launched+1"
        " WHERE sid=? AND launched<launches AND revoked IS NULL AND expires>?",
        (sid, now),
    )
    return done.rowcount == 1


def revoke(connection: sqlite3.Connection, sid: str, now: int) -> None:
    """End an invitation; a second time changes nothing."""
    connection.execute("UPDATE invitations SET revoked=? WHERE sid=? AND revoked IS NULL", (now, sid))


def sweep(connection: sqlite3.Connection, before: int) -> None:
    """Remove invitations that expired before that, ms UTC."""
    connection.execute("DELETE FROM invitations WHERE expires<?", (before,))
