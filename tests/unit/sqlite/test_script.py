"""Scripts, a statement at a time."""

from __future__ import annotations

import sqlite3

import pytest

from kodo.sqlite.script import run_script, statements

TRIGGER = "CREATE TRIGGER t AFTER DELETE ON a BEGIN DELETE FROM b; DELETE FROM c; END;"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("  \n", []),
        ("SELECT 1;", ["SELECT 1;"]),
        ("SELECT 1; ; SELECT 2;\n", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT ';'; SELECT 2;", ["SELECT ';';", "SELECT 2;"]),
        ("SELECT 1 -- what it's; for\n; SELECT 2;", ["SELECT 1 -- what it's; for\n;", "SELECT 2;"]),
        (f"{TRIGGER} SELECT 1;", [TRIGGER, "SELECT 1;"]),
    ],
)
def test_statements_end_where_sqlite_says(script: str, expected: list[str]) -> None:
    assert [each for each in statements(script) if each != ";"] == expected


@pytest.mark.parametrize("script", ["SELECT 1", "SELECT 1; SELECT 2", TRIGGER[:-5], "SELECT 'a;"])
def test_a_statement_without_its_end_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match="does not end"):
        list(statements(script))


def test_a_script_is_done_inside_the_transaction_that_is_open() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    run_script(connection, "CREATE TABLE a (x); INSERT INTO a VALUES (1);")
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
