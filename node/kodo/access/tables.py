"""The tables of users, roles and grants, and the little that is needed of a database to keep them.

They stand in the database of whoever uses the provider, among its own tables: in a node's `node.db`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from kodo.access.roles import ROLE_GRANTS

__all__ = ["SCHEMA", "Database", "Watched"]

T = TypeVar("T")

_TABLES = """
CREATE TABLE access_users (
    name TEXT PRIMARY KEY,
    password TEXT,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE access_roles (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

CREATE TABLE access_user_roles (
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (user, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_user_grants (
    holder TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (holder, permission)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_role_grants (
    holder TEXT NOT NULL REFERENCES access_roles (name) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (holder, permission)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_codes (
    peer_id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    proof BLOB NOT NULL,
    tries INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE access_tokens (
    hash BLOB PRIMARY KEY,
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    peer_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX access_tokens_of ON access_tokens (user, created);
"""

SCHEMA = _TABLES + "".join(
    f"INSERT INTO access_roles VALUES ('{role}');\n"
    + "".join(f"INSERT INTO access_role_grants VALUES ('{role}', '{grant}');\n" for grant in grants)
    for role, grants in ROLE_GRANTS.items()
)
"""What `local` keeps; the roles that are there from the start have these grants until an operator says otherwise."""


class Database(Protocol):
    """A database that has these tables. `sqlite3.Connection`s are lent for one piece of work."""

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction; what it raises undoes it. It may be done again when the first try failed."""
        ...

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which only reads."""
        ...


class Watched:
    """A database whose changes are counted: what was read before the latest is old.

    Attributes:
        changes: how many there were.
    """

    def __init__(self, database: Database):
        self._database = database
        self.changes = 0

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction, and count it."""
        try:
            return await self._database.change(work)
        finally:
            # Also when it failed: what is known of it is not sure any more.
            self.changes += 1

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work`, which only reads."""
        return await self._database.ask(work)
