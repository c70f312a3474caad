"""The statements of an SQL script, one by one: `executescript` would commit what was done before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

__all__ = ["run_script", "statements"]


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, each with its semicolon; those of a trigger stay together.

    Raises:
        ValueError: the last one does not end.
    """
    statement = ""
    *ended, rest = script.split(";")
    for part in ended:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if (statement + rest).strip():
        raise ValueError(f"this statement does not end: {(statement + rest).strip()[:80]}")


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Do all statements of a script in the transaction that is open."""
    for statement in statements(script):
        connection.execute(statement)
