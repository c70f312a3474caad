"""Database files of one kind: made, brought up to date, told from others, and closed when they cannot be opened."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.sqlite.file import DatabaseFile, database_bytes, transaction, truncate_wal, unfolded_bytes

FIRST = DatabaseFile(name="a file of tests", version=1, schema="CREATE TABLE a (x INTEGER) STRICT;", mark=7)
GROWN = "ALTER TABLE a ADD COLUMN y TEXT; CREATE TABLE b (x); INSERT INTO b VALUES ('of a step; with a semicolon');"


def value(connection: sqlite3.Connection, statement: str) -> object:
    return connection.execute(statement).fetchone()[0]


def third(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE a SET y = x + 1")


NOW = replace(FIRST, version=3, schema=f"{FIRST.schema} {GROWN}", steps={1: GROWN, 2: third})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def make(kind: DatabaseFile, path: Path, statement: str = "INSERT INTO a (x) VALUES (41)") -> None:
    with contextlib.closing(kind.open_writer(path)) as connection:
        connection.execute(statement)


def test_a_new_file_is_private_marked_and_of_the_version(path: Path) -> None:
    make(NOW, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with contextlib.closing(NOW.open_reader(path)) as connection:
        pragmas = ("application_id", "user_version", "journal_mode", "foreign_keys")
        assert [value(connection, f"PRAGMA {name}") for name in pragmas[:3]] == [7, 3, "wal"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (NOW, {"synchronous": 2, "auto_vacuum": 0}),
        (replace(NOW, durable=False), {"synchronous": 1, "auto_vacuum": 0}),
        (replace(NOW, erases=True, shrinks=True), {"synchronous": 2, "auto_vacuum": 2, "secure_delete": 1}),
    ],
)
def test_a_connection_that_writes_is_as_its_kind_says(
    path: Path, kind: DatabaseFile, expected: dict[str, int]
) -> None:
    expected = {**expected, "foreign_keys": 1}
    with contextlib.closing(kind.open_writer(path)) as connection:
        assert {name: value(connection, f"PRAGMA {name}") for name in expected} == expected


def test_a_file_of_an_earlier_version_goes_through_each_step(path: Path) -> None:
    make(FIRST, path)
    with contextlib.closing(NOW.open_writer(path)) as connection:
        assert connection.execute("SELECT x, y FROM a").fetchall() == [(41, "42")]
        assert value(connection, "SELECT x FROM b") == "of a step; with a semicolon"
        assert value(connection, "PRAGMA user_version") == 3


@pytest.mark.parametrize("step", ["CREATE TABLE c (x); DROP TABLE no_such_table;", "crash"])
def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, step: str) -> None:
    def crash(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE c (x)")
        raise KeyboardInterrupt

    make(FIRST, path)
    broken = replace(NOW, steps={1: GROWN, 2: crash if step == "crash" else step})
    with pytest.raises((KeyboardInterrupt, sqlite3.OperationalError)):
        broken.open_writer(path)
    with contextlib.closing(FIRST.open_reader(path)) as connection:
        assert value(connection, "PRAGMA user_version") == 2
        assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == [("a",), ("b",)]
    NOW.open_writer(path).close()


def other_mark(path: Path) -> None:
    make(replace(FIRST, mark=8), path)


def no_mark(path: Path) -> None:
    make(replace(FIRST, mark=None), path)


def no_version(path: Path) -> None:
    make(replace(FIRST, version=0), path)


@pytest.mark.parametrize("foreign", [other_mark, no_mark, no_version])
def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, foreign: Callable[[Path], None]) -> None:
    foreign(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is not a file of tests; move it away"):
        NOW.open_writer(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    make(NOW, path)
    with pytest.raises(UsageError, match=r"newer kodo \(schema 3\); update kodo"):
        FIRST.open_writer(path)


def test_a_place_where_no_file_can_be_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened: No such file or directory"):
        NOW.open_writer(tmp_path / "none" / "a.db")


def test_a_file_does_not_grow_over_its_bound(path: Path) -> None:
    with contextlib.closing(NOW.open_writer(path, max_bytes=64 << 10)) as connection:
        with pytest.raises(sqlite3.OperationalError) as caught, transaction(connection):
            connection.execute("INSERT INTO b VALUES (zeroblob(100000))")
        assert caught.value.sqlite_errorcode == sqlite3.SQLITE_FULL
        assert not connection.in_transaction


def test_a_reader_cannot_write(path: Path) -> None:
    make(NOW, path)
    with (
        contextlib.closing(NOW.open_reader(path)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM a")


def test_what_is_deleted_stands_nowhere_once_the_log_is_cut(path: Path) -> None:
    kind = replace(NOW, erases=True)
    with contextlib.closing(kind.open_writer(path)) as connection:
        connection.execute("INSERT INTO b VALUES ('a canary')")
        connection.execute("DELETE FROM b")
        assert database_bytes(path) == path.stat().st_size + unfolded_bytes(path) > path.stat().st_size
        assert truncate_wal(path)
        assert unfolded_bytes(path) == 0
        assert b"a canary" not in path.read_bytes()
    assert not truncate_wal(path.parent)
