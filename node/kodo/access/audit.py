"""The audit: a line for each thing that was done to a node or registry as its operator, in its own database.

A line is kept in the transaction of the change that it tells of, so that there is neither without the other. It says
who, what and with which arguments; never a password, a code or a token.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from kodo.p2p.errors import CapacityError

__all__ = ["ACCOUNT_CHANGES", "AUDIT_DDL", "MAX_AUDIT_LINES", "AuditLine", "AuditedTables", "Transact", "audit_lines"]

logger = logging.getLogger(__name__)

MAX_AUDIT_LINES = 10_000
"""Lines that are kept; older ones go."""

AUDIT_DDL = """
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    by TEXT NOT NULL,               -- peer id; at a node the user's name, where there is one
    what TEXT NOT NULL,
    data TEXT NOT NULL              -- JSON object
) STRICT;
"""

ACCOUNT_CHANGES = frozenset(
    [
        "user.add",
        "user.remove",
        "user.enrol",
        "user.logout",
        "user.password",
        "role.add",
        "role.remove",
        "role.assign",
        "role.unassign",
        "grant.add",
        "grant.remove",
    ]
)
"""The ops that change users, roles and grants."""

_SECRETS = frozenset(["password", "old"])

T = TypeVar("T")


class Transact(Protocol):
    """Does work with a connection and gives its result."""

    def __call__(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class AuditLine:
    """What was changed: by the peer id or user `by`, `at` ms UTC."""

    by: str
    what: str
    data: Mapping[str, Any]
    at: int

    @classmethod
    def of_op(cls, by: str, op: str, args: Mapping[str, Any], at: int) -> AuditLine:
        """Return the line about an op, with its arguments but for secrets."""
        return cls(by, op, {name: value for name, value in args.items() if name not in _SECRETS}, at)

    def log(self, connection: sqlite3.Connection) -> None:
        """Keep it: inside of the transaction that it tells of."""
        data = json.dumps(dict(self.data), ensure_ascii=False)
        connection.execute(
            "INSERT INTO audit (at, by, what, data) VALUES (?, ?, ?, ?)", (self.at, self.by, self.what, data)
        )
        connection.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (MAX_AUDIT_LINES,))


def audit_lines(connection: sqlite3.Connection, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many lines there are, and page `p`, from 1, of `pp`, latest first: `at, by, what, data`."""
    (total,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    rows = connection.execute(
        "SELECT at, by, what, data FROM audit ORDER BY id DESC LIMIT ? OFFSET ?", (pp, (p - 1) * pp)
    )
    return total, [{"at": at, "by": by, "what": what, "data": json.loads(data)} for at, by, what, data in rows]


class AuditedTables:
    """The tables of users, roles and grants, as `kodo.access.tables.Database`, with the audit beside them.

    Args:
        change: does work in a transaction.
        ask: does work that only reads.
    """

    def __init__(self, change: Transact, ask: Transact) -> None:
        self._change = change
        self._ask = ask
        self._line: ContextVar[AuditLine | None] = ContextVar("audit line", default=None)

    @contextlib.contextmanager
    def told_by(self, line: AuditLine) -> Iterator[None]:
        """Keep a line in the audit with each change that this task makes inside of the block, in one transaction."""
        token = self._line.set(line)
        try:
            yield
        finally:
            self._line.reset(token)

    async def note(self, line: AuditLine) -> None:
        """Keep a line about what is about to be done; with a full disk the log has it alone."""
        try:
            await self._change(line.log)
        except CapacityError as error:
            # What makes room, or ends what fills the disk, must not be kept from it by a line.
            logger.warning("%s by %s is not in the audit: %s", line.what, line.by, error)
        else:
            _tell(line)

    async def lines(self, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
        """Return a page of the audit, as `audit_lines`."""
        return await self._ask(lambda connection: audit_lines(connection, p, pp))

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction."""
        line = self._line.get()
        if line is None:
            return await self._change(work)

        def told(connection: sqlite3.Connection) -> T:
            result = work(connection)
            line.log(connection)
            return result

        result = await self._change(told)
        _tell(line)
        return result

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which only reads."""
        return await self._ask(work)


def _tell(line: AuditLine) -> None:
    # Its arguments are in the audit only: that has a bound and readers of its own.
    logger.info("%s by %s", line.what, line.by, extra={"event": line.what, "by": line.by})
