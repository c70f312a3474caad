"""The audit of a node's or registry's administration."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from kodo.access.audit import ACCOUNT_CHANGES, AUDIT_DDL, MAX_AUDIT_LINES, AuditedTables, AuditLine, audit_lines
from kodo.p2p.errors import CapacityError
from kodo.protocol.calls import OPS

T = TypeVar("T")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as opened:
        opened.executescript(AUDIT_DDL + "CREATE TABLE kept (value TEXT);")
        yield opened


@pytest.fixture
def tables(connection: sqlite3.Connection) -> AuditedTables:
    async def transact(work: Callable[[sqlite3.Connection], T]) -> T:
        with connection:
            return work(connection)

    return AuditedTables(transact, transact)


def line(number: int = 1, what: str = "user.add", **data: Any) -> AuditLine:
    return AuditLine("ana", what, data, number)


def test_every_change_of_accounts_is_an_op() -> None:
    assert set(OPS) > ACCOUNT_CHANGES
    changing = {op for op in OPS if op.partition(".")[0] in ("user", "role", "grant") and not op.endswith(".list")}
    assert changing == ACCOUNT_CHANGES


@pytest.mark.parametrize("op", sorted(ACCOUNT_CHANGES))
def test_no_line_holds_a_secret(op: str) -> None:
    told = AuditLine.of_op("ana", op, {"name": "bob", "password": "hunter2", "old": "hunter1"}, 1)
    assert dict(told.data) == {"name": "bob"}


async def test_a_change_and_its_line_are_kept_together_or_not_at_all(
    tables: AuditedTables, connection: sqlite3.Connection
) -> None:
    def keep(opened: sqlite3.Connection) -> None:
        opened.execute("INSERT INTO kept VALUES ('x')")

    def fail(opened: sqlite3.Connection) -> None:
        keep(opened)
        raise KeyError("x")

    with tables.told_by(line(name="bob")):
        await tables.change(keep)
        with pytest.raises(KeyError):
            await tables.change(fail)
    await tables.change(keep)
    assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)
    assert await tables.lines(1, 10) == (1, [{"at": 1, "by": "ana", "what": "user.add", "data": {"name": "bob"}}])


async def test_the_log_has_the_line_without_its_arguments(
    tables: AuditedTables, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kodo.access.audit"):
        await tables.note(line(what="node.shutdown", drain_s=77))
    assert caplog.messages == ["node.shutdown by ana"]


async def test_a_full_disk_keeps_nobody_from_making_room(caplog: pytest.LogCaptureFixture) -> None:
    async def full(work: Callable[[sqlite3.Connection], T]) -> T:
        raise CapacityError("the disk is full")

    await AuditedTables(full, full).note(line(what="cleanup.run"))
    assert "cleanup.run by ana is not in the audit" in caplog.text


def test_the_oldest_lines_go(connection: sqlite3.Connection) -> None:
    for number in range(MAX_AUDIT_LINES + 5):
        line(number).log(connection)
    total, rows = audit_lines(connection, 1, 2)
    assert total == MAX_AUDIT_LINES
    assert [row["at"] for row in rows] == [MAX_AUDIT_LINES + 4, MAX_AUDIT_LINES + 3]
    assert [row["at"] for row in audit_lines(connection, MAX_AUDIT_LINES // 2, 2)[1]] == [6, 5]
