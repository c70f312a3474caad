"""What the store keeps for a registry's operators: who they are, the list of names, and a line for each change."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from typing import Any

from kodo.access.audit import AUDIT_DDL, AuditLine, Transact, audit_lines
from kodo.p2p.errors import CallError
from kodo.registry.query.glob import fold
from kodo.registry.records.claims import enrol_proof
from kodo.registry.records.record import NodeRecord

__all__ = ["ADMIN_DDL", "CODE_S", "MESH_URLS_DDL", "AdminStore"]

CODE_S = 24 * 3600
"""Seconds for which a printed code is good."""

_CODE_TRIES = 5
_MAX_OPERATORS = 256
_MAX_ADMITTED = 100_000
_MAX_URLS = 64
_MAX_OWN = 1000
"""Names that one user lists."""
_PAGE = 500

MESH_URLS_DDL = """
CREATE TABLE mesh_urls (
    url TEXT NOT NULL,
    feed INTEGER NOT NULL,          -- 1: it is told of this registry's own nodes; 0: its nodes are listed here
    PRIMARY KEY (url, feed)
) STRICT, WITHOUT ROWID;
"""

ADMIN_DDL = """
CREATE TABLE operators (
    peer_id TEXT PRIMARY KEY,
    since INTEGER NOT NULL          -- ms UTC
) STRICT, WITHOUT ROWID;
CREATE TABLE enrolment (
    code TEXT NOT NULL,             -- good once; gone then
    made_at INTEGER NOT NULL,
    tries INTEGER NOT NULL
) STRICT;
CREATE TABLE admitted (
    k_name TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    peer_id TEXT,                   -- whose it has to be; NULL: whoever uses it first
    since INTEGER NOT NULL,
    owner TEXT                      -- the user who put it here by a grant; NULL: an operator
) STRICT, WITHOUT ROWID;
"""

ADMIN_DDL += AUDIT_DDL


class AdminStore:
    """The operators' side of a store. Cancelling a call is safe.

    Args:
        write: runs work in a transaction that is durable when it ends.
        read: runs work in one snapshot.
    """

    def __init__(self, write: Transact, read: Transact) -> None:
        self._write = write
        self._read = read

    async def operator(self, peer_id: str) -> bool:
        """Return whether `peer_id` was enrolled."""
        row = await self._read(
            lambda connection: connection.execute("SELECT 1 FROM operators WHERE peer_id = ?", (peer_id,)).fetchone()
        )
        return row is not None

    async def operators(self) -> list[dict[str, Any]]:
        """Return who was enrolled: `peer_id, since`."""
        return await self._read(
            lambda connection: [
                {"peer_id": row["peer_id"], "since": row["since"]}
                for row in connection.execute("SELECT * FROM operators ORDER BY since")
            ]
        )

    async def first_code(self, now: int) -> str | None:
        """Make the code by which the first operator enrols; None when there is an operator, or a code, already."""

        def work(connection: sqlite3.Connection) -> str | None:
            (there,) = connection.execute(
                "SELECT (SELECT count(*) FROM operators) + (SELECT count(*) FROM enrolment) "
                "+ (SELECT count(*) FROM audit)"
            ).fetchone()
            return None if there else _make_code(connection, now)

        return await self._write(work)

    async def new_code(self, by: str, now: int) -> str:
        """Make a code for a further operator; an earlier one ends."""

        def work(connection: sqlite3.Connection) -> str:
            _log(connection, now, by, "enrolment-code", {})
            return _make_code(connection, now)

        return await self._write(work)

    async def enrol(self, peer_id: str, proof: bytes, own: str, now: int) -> None:
        """Make `peer_id` an operator when `proof` proves the code.

        Raises:
            CallError: 403; the code is wrong, used, too old, or was tried too often.
        """

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT * FROM enrolment").fetchone()
            if row is None or now >= row["made_at"] + CODE_S * 1000 or row["tries"] >= _CODE_TRIES:
                return False
            if not hmac.compare_digest(enrol_proof(row["code"], own, peer_id), proof):
                connection.execute("UPDATE enrolment SET tries = tries + 1")
                return False
            (count,) = connection.execute("SELECT count(*) FROM operators").fetchone()
            if count >= _MAX_OPERATORS:
                raise CallError(507, "too-many-operators", f"a registry has at most {_MAX_OPERATORS} operators")
            connection.execute("DELETE FROM enrolment")
            connection.execute("INSERT OR REPLACE INTO operators (peer_id, since) VALUES (?, ?)", (peer_id, now))
            _log(connection, now, peer_id, "enrol", {})
            return True

        if not await self._write(work):
            raise CallError(403, "wrong-code", "the code is wrong, was used, has expired, or was tried too often")

    async def dismiss(self, peer_id: str, by: str, now: int) -> bool:
        """Take an operator off; say whether there was one."""

        def work(connection: sqlite3.Connection) -> bool:
            gone = connection.execute("DELETE FROM operators WHERE peer_id = ?", (peer_id,)).rowcount > 0
            if gone:
                _log(connection, now, by, "dismiss", {"peer_id": peer_id})
            return gone

        return await self._write(work)

    async def admit(self, name: str, peer_id: str | None, by: str, now: int, *, own: str | None = None) -> None:
        """Register a name; with `peer_id` nobody else may use it, and an earlier user of it is unbound.

        Args:
            name: of a node.
            peer_id: whose it has to be.
            by: peer id of who asks.
            now: ms UTC.
            own: the user for whom this is done by a grant; it gets no name that is another's already.

        Raises:
            CallError: 403 another's name, 507 the list is full.
        """

        def work(connection: sqlite3.Connection) -> None:
            key = fold(name)
            if own is not None:
                _check_free(connection, name, peer_id, own)
            (count,) = connection.execute("SELECT count(*) FROM admitted WHERE k_name <> ?", (key,)).fetchone()
            if count >= _MAX_ADMITTED:
                raise CallError(507, "too-many-names", f"a registry lists at most {_MAX_ADMITTED} names")
            connection.execute(
                "INSERT OR REPLACE INTO admitted (k_name, name, peer_id, since, owner) VALUES (?, ?, ?, ?, ?)",
                (key, name, peer_id, now, own),
            )
            if peer_id is not None:
                connection.execute("DELETE FROM names WHERE k_name = ? AND peer_id <> ?", (key, peer_id))
            _log(connection, now, by, "register", {"name": name, "peer_id": peer_id})

        await self._write(work)

    async def expel(
        self, name: str, by: str, now: int, *, own: str | None = None
    ) -> tuple[bool, list[tuple[str, int]]]:
        """Take a name off the list and unbind it; for the user `own` only what it put there.

        Returns:
            Whether it was listed or bound, and the nodes that go by it: peer id and `seq`.

        Raises:
            CallError: 403 another's name.
        """

        def work(connection: sqlite3.Connection) -> tuple[bool, list[tuple[str, int]]]:
            key = fold(name)
            if own is not None and _owner(connection, key) != own:
                raise _not_yours(name)
            listed = connection.execute("DELETE FROM admitted WHERE k_name = ?", (key,)).rowcount > 0
            bound = connection.execute("DELETE FROM names WHERE k_name = ?", (key,)).rowcount > 0
            nodes = [
                (row["peer_id"], row["seq"])
                for row in connection.execute("SELECT peer_id, seq FROM nodes WHERE k_name = ?", (key,))
            ]
            if listed or bound or nodes:
                _log(connection, now, by, "unregister", {"name": name})
            return listed or bound or bool(nodes), nodes

        return await self._write(work)

    async def mesh_urls(self) -> list[tuple[str, bool]]:
        """Return the registries that operators added: URL, and whether it is fed instead of read."""
        return await self._read(
            lambda connection: [
                (row["url"], bool(row["feed"]))
                for row in connection.execute("SELECT url, feed FROM mesh_urls ORDER BY url, feed")
            ]
        )

    async def add_mesh_url(self, url: str, feed: bool, by: str, now: int) -> None:
        """Keep a registry to read, or to feed.

        Raises:
            CallError: 507, there are too many.
        """

        def work(connection: sqlite3.Connection) -> None:
            (count,) = connection.execute("SELECT count(*) FROM mesh_urls WHERE url <> ?", (url,)).fetchone()
            if count >= _MAX_URLS:
                raise CallError(
                    507, "too-many-registries", f"a registry's mesh has at most {_MAX_URLS} other registries"
                )
            connection.execute("INSERT OR IGNORE INTO mesh_urls (url, feed) VALUES (?, ?)", (url, int(feed)))
            _log(connection, now, by, "mesh-add", {"url": url, "feed": feed})

        await self._write(work)

    async def drop_mesh_url(self, url: str, by: str, now: int) -> bool:
        """Take a registry off, read or fed; say whether it was kept."""

        def work(connection: sqlite3.Connection) -> bool:
            gone = connection.execute("DELETE FROM mesh_urls WHERE url = ?", (url,)).rowcount > 0
            if gone:
                _log(connection, now, by, "mesh-remove", {"url": url})
            return gone

        return await self._write(work)

    async def lists_for(self, user: str) -> bool:
        """Return whether names are on the list that a user put there."""
        return await self._read(
            lambda connection: (
                connection.execute("SELECT 1 FROM admitted WHERE owner = ?", (user,)).fetchone() is not None
            )
        )

    async def check(self, record: NodeRecord, *, open_: bool) -> None:
        """Check that a node may announce itself under its name.

        Raises:
            CallError: 403, the name is not listed here, or is another peer's.
        """
        row = await self._read(
            lambda connection: connection.execute(
                "SELECT peer_id FROM admitted WHERE k_name = ?", (fold(record.name),)
            ).fetchone()
        )
        if row is None and not open_:
            raise CallError(
                403, "not-registered", f"{record.name} is not registered here, and this registry is not open"
            )
        if row is not None and row["peer_id"] not in (None, record.peer_id):
            raise CallError(403, "other-peer", f"{record.name} is registered here for another peer id")

    async def admitted(self, p: int) -> dict[str, Any]:
        """Return a page of the list: `name, peer_id, since, owner`."""
        return await self._read(
            lambda connection: _page(connection, "admitted", "k_name", p, ("name", "peer_id", "since", "owner"))
        )

    async def audit(self, p: int) -> dict[str, Any]:
        """Return a page of what was changed, latest first: `at, by, what, data`."""
        total, rows = await self._read(lambda connection: audit_lines(connection, p, _PAGE))
        return _paged(total, p, rows)

    async def note(self, line: AuditLine) -> None:
        """Keep a line about what is about to be done."""
        await self._write(line.log)

    async def peer_of(self, name: str) -> str | None:
        """Return the peer id that a name is bound to."""
        row = await self._read(
            lambda connection: connection.execute(
                "SELECT peer_id FROM names WHERE k_name = ?", (fold(name),)
            ).fetchone()
        )
        return None if row is None else str(row["peer_id"])

    async def stale(self, before: int) -> list[dict[str, Any]]:
        """Return the nodes that were last heard of before `before`, ms UTC; at most 5,000."""
        return await self._read(
            lambda connection: [
                {"peer_id": row["peer_id"], "name": row["name"], "seen_at": row["seen_at"], "flows": row["flows"]}
                for row in connection.execute(
                    "SELECT peer_id, name, seen_at, flows FROM nodes WHERE seen_at < ? ORDER BY seen_at LIMIT 5000",
                    (before,),
                )
            ]
        )


def _check_free(connection: sqlite3.Connection, name: str, peer_id: str | None, own: str) -> None:
    """Add a name to the list for a user: one that is its own already, or nobody's."""
    key = fold(name)
    owner = _owner(connection, key)
    user = connection.execute("SELECT peer_id FROM names WHERE k_name = ?", (key,)).fetchone()
    if owner == own:
        return
    if owner is not None or (user is not None and user["peer_id"] != peer_id):
        raise _not_yours(name)
    (count,) = connection.execute("SELECT count(*) FROM admitted WHERE owner = ?", (own,)).fetchone()
    if count >= _MAX_OWN:
        raise CallError(507, "too-many-names", f"a user lists at most {_MAX_OWN} names here")


def _owner(connection: sqlite3.Connection, key: str) -> str | None:
    """Return who put a name on the list, an empty text for operators; None when it is not there."""
    row = connection.execute("SELECT ifnull(owner, '') FROM admitted WHERE k_name = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _not_yours(name: str) -> CallError:
    return CallError(403, "not-yours", f"{name} belongs to somebody else; ask the operator of this registry")


def _make_code(connection: sqlite3.Connection, now: int) -> str:
    # 80 bits: guessed at five tries, never; typed by a person, in groups of four.
    text = secrets.token_hex(10)
    code = "-".join(text[at : at + 4] for at in range(0, 20, 4))
    connection.execute("DELETE FROM enrolment")
    connection.execute("INSERT INTO enrolment (code, made_at, tries) VALUES (?, ?, 0)", (code.replace("-", ""), now))
    return code


def _log(connection: sqlite3.Connection, now: int, by: str, what: str, data: dict[str, Any]) -> None:
    AuditLine(by, what, data, now).log(connection)


def _page(connection: sqlite3.Connection, table: str, order: str, p: int, columns: tuple[str, ...]) -> dict[str, Any]:
    (total,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order} LIMIT ? OFFSET ?", (_PAGE, (p - 1) * _PAGE)
    )
    return _paged(total, p, [dict(zip(columns, row, strict=True)) for row in rows])


def _paged(total: int, p: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"total_records": total, "total_pages": -(-total // _PAGE), "p": p, "pp": _PAGE, "result": rows}
