"""Readers: one moment's state a read, and no connection that is left open."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.sqlite.file import DatabaseFile
from kodo.sqlite.readers import Readers

FILE = DatabaseFile(name="a file of tests", version=1, schema="CREATE TABLE a (x); INSERT INTO a VALUES (1);")


async def test_a_read_sees_one_moment_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(FILE.open_writer(path)) as writer:
        readers = Readers(lambda: FILE.open_reader(path), 2, name="test-read")
        readers.open()

        def twice(connection: sqlite3.Connection) -> tuple[int, int]:
            (first,) = connection.execute("SELECT sum(x) FROM a").fetchone()
            writer.execute("UPDATE a SET x = x + 1")
            (second,) = connection.execute("SELECT sum(x) FROM a").fetchone()
            return first, second

        assert await readers.read(twice) == (1, 1)
        assert await readers.read(twice) == (2, 2)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await readers.read(lambda connection: connection.execute("DELETE FROM a"))
        with pytest.raises(KeyError):
            await readers.read(lambda connection: {}["a"])
        assert await readers.read(twice) == (3, 3)
        await asyncio.to_thread(readers.close)
        await asyncio.to_thread(readers.close)
        with pytest.raises(UsageError, match="not open"):
            await readers.read(twice)


def test_of_readers_that_cannot_all_be_opened_none_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    FILE.open_writer(path).close()
    opened: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        if len(opened) == 2:
            raise sqlite3.OperationalError("no more")
        opened.append(FILE.open_reader(path))
        return opened[-1]

    with pytest.raises(sqlite3.OperationalError, match="no more"):
        Readers(connect, 3, name="test-read").open()
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
