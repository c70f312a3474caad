"""A database of its own for users, roles and grants, and a clock that is told the time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar

import argon2
import pytest

from kodo.access.local import LocalProvider
from kodo.access.passwords import Passwords
from kodo.access.tables import SCHEMA

T = TypeVar("T")


class Tables:
    """The tables in a database in memory."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.executescript(SCHEMA)

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.connection.execute("BEGIN")
        try:
            result = work(self.connection)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return result

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return work(self.connection)


class CountedHasher(argon2.PasswordHasher):
    """Cheap hashes; counts how often one is held against a password."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checks = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.checks += 1
        return super().verify(hash, password)


class Local:
    """A provider `local` at a time that is told; the node is `node`, the home's user `home`."""

    def __init__(self, tables: Tables) -> None:
        self.ms = 1_700_000_000_000
        self.tables = tables
        self.hasher = CountedHasher()
        self.passwords = Passwords(self.hasher)
        self.provider = self.at("node")

    def at(self, node: str) -> LocalProvider:
        """Give the provider of another node with the same database."""
        return LocalProvider("home", node, self.tables, lambda: self.ms, passwords=self.passwords)

    def rows(self, table: str) -> list[Any]:
        return self.tables.connection.execute(f"SELECT * FROM {table}").fetchall()


@pytest.fixture
async def local() -> AsyncIterator[Local]:
    made = Local(Tables())
    await made.provider.open()
    yield made
    made.tables.connection.close()
