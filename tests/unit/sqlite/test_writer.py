"""Group commit: what shares a transaction, what is undone alone, and who is told when."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.sqlite.faults import Fault, fault_of
from kodo.sqlite.file import DatabaseFile
from kodo.sqlite.writer import Alone, GroupWriter, Unit
from tests.unit.node.conftest import settled

FILE = DatabaseFile(name="a file of tests", version=1, schema="CREATE TABLE a (x INTEGER PRIMARY KEY) STRICT;")
Work = Callable[[sqlite3.Connection], Any]


class Bench:
    """A writer whose works can be held back, so that they share a transaction, and whose connections are counted."""

    def __init__(self, path: Path, unit: Callable[[sqlite3.Connection], Unit[sqlite3.Connection]] = Alone):
        self.path = path
        self.opened = 0
        self.fail: Exception | None = None
        self.writer = GroupWriter(self.connect, unit, name="test-write")

    def connect(self) -> sqlite3.Connection:
        if self.fail is not None:
            raise self.fail
        self.opened += 1
        return FILE.open_writer(self.path)

    async def together(self, *works: Work) -> list[Any]:
        """Do works in one transaction; return their results and errors."""
        begun, go_on = threading.Event(), threading.Event()

        def hold(connection: sqlite3.Connection) -> None:
            begun.set()
            go_on.wait(60)

        held = asyncio.ensure_future(self.writer.do(hold))
        await asyncio.to_thread(begun.wait, 60)
        tasks = [asyncio.ensure_future(self.writer.do(work)) for work in works]
        await settled(lambda: self.writer.waiting == len(works))
        go_on.set()
        await held
        return await asyncio.gather(*tasks, return_exceptions=True)

    def rows(self) -> list[int]:
        reader = FILE.open_reader(self.path)
        try:
            return [x for (x,) in reader.execute("SELECT x FROM a ORDER BY x")]
        finally:
            reader.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "a.db")
    made.writer.open()
    yield made
    await asyncio.to_thread(made.writer.close)


def put(x: int, error: Exception | None = None) -> Work:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO a VALUES (?)", (x,))
        if error is not None:
            raise error
        return x

    return work


def changes(connection: sqlite3.Connection) -> int:
    return connection.total_changes


async def test_a_result_is_given_once_it_is_stored(bench: Bench) -> None:
    assert await bench.writer.do(put(1)) == 1
    assert bench.rows() == [1]


async def test_what_a_work_raises_undoes_it_alone(bench: Bench) -> None:
    refusal = ValueError("no")
    assert await bench.together(put(1), put(2, refusal), put(3)) == [1, refusal, 3]
    assert bench.rows() == [1, 3]
    assert bench.opened == 1


async def test_what_sqlite_refuses_to_one_is_no_harm_to_others(bench: Bench) -> None:
    first, second, third = await bench.together(put(1), put(1), put(2))
    assert (first, third) == (1, 2)
    assert isinstance(second, sqlite3.IntegrityError)
    assert bench.rows() == [1, 2]


async def test_a_failing_disk_is_told_to_all_at_once_and_nothing_is_tried_again(bench: Bench) -> None:
    failing, tries = sqlite3.OperationalError("failing"), []
    failing.sqlite_errorcode = sqlite3.SQLITE_IOERR

    def counted(connection: sqlite3.Connection) -> None:
        tries.append(1)

    assert await bench.together(counted, put(1), put(2, failing)) == [failing] * 3
    assert len(tries) == 1
    assert bench.rows() == []
    # And it goes on, on a connection that knows what the file holds.
    assert await bench.writer.do(put(1)) == 1
    assert bench.opened == 2


async def test_a_work_that_needs_more_room_than_there_is_fails_alone(bench: Bench) -> None:
    bench.writer.connection.execute("CREATE TABLE texts (text TEXT)")
    pages = bench.writer.connection.execute("PRAGMA page_count").fetchone()[0]

    def connect() -> sqlite3.Connection:
        connection = FILE.open_writer(bench.path)
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
        return connection

    bench.writer._connect = connect
    bench.writer.connection.execute(f"PRAGMA max_page_count={pages + 2}")

    def big(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO texts VALUES (?)", ("x" * 1_000_000,))

    first, refused, second = await bench.together(put(1), big, put(2))
    assert (first, second) == (1, 2)
    assert isinstance(refused, sqlite3.Error)
    assert fault_of(refused) is Fault.FULL
    assert bench.rows() == [1, 2]


async def test_a_file_that_cannot_be_opened_again_is_tried_at_each_write(bench: Bench) -> None:
    io = sqlite3.OperationalError("io")
    io.sqlite_errorcode = sqlite3.SQLITE_IOERR
    with pytest.raises(sqlite3.OperationalError):
        await bench.writer.do(put(1, io))
    bench.fail = OSError("no such device")
    with pytest.raises(OSError, match="no such device"):
        await bench.writer.do(put(1))
    bench.fail = None
    assert await bench.writer.do(put(1)) == 1


class Log(Unit[sqlite3.Connection]):
    """Notes what happens to it; an error that is no `ValueError` undoes all."""

    notes: list[str]

    def do(self, work: Work) -> Any:
        try:
            return work(self.lent)
        except ValueError as error:
            return error

    def flush(self) -> None:
        self.notes.append("flush")

    def committed(self) -> None:
        self.notes.append("committed")

    def rolled_back(self) -> None:
        self.notes.append("rolled back")

    def tell(self) -> None:
        self.notes.append("tell")


async def test_a_unit_is_told_what_became_of_it_before_its_works_are(tmp_path: Path) -> None:
    class Noted(Log):
        notes: list[str] = []  # noqa: RUF012

    bench = Bench(tmp_path / "a.db", Noted)
    bench.writer.open()
    try:
        await bench.writer.do(put(1))
        assert Noted.notes == ["flush", "committed", "tell"]
        Noted.notes.clear()
        with pytest.raises(KeyError):
            await bench.writer.do(put(2, KeyError("a fault")))
        assert Noted.notes == ["rolled back"]
        answers = await bench.together(put(3), put(4, KeyError("a fault")), put(5))
        assert [type(each) for each in answers] == [int, KeyError, int]
    finally:
        await asyncio.to_thread(bench.writer.close)
    assert bench.rows() == [1, 3, 5]


async def test_a_wait_that_is_cancelled_takes_nothing_from_others(bench: Bench) -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(bench.writer.do(put(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await asyncio.gather(cancelled(), bench.writer.do(put(2)))
    assert bench.rows() in ([1, 2], [2])


async def test_what_waits_is_done_before_the_end(bench: Bench) -> None:
    tasks = [asyncio.ensure_future(bench.writer.do(put(x))) for x in range(1000)]
    await asyncio.sleep(0)
    await asyncio.to_thread(bench.writer.close)
    assert "test-write" not in {thread.name for thread in threading.enumerate()}
    assert await asyncio.gather(*tasks) == list(range(1000))
    assert bench.rows() == list(range(1000))
    await asyncio.to_thread(bench.writer.close)
