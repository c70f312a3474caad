"""What a database file of one kind is, and how connections to it are opened.

Every file is in WAL mode, so that readers and the writer do not wait for each other, and private (mode 0600). Its
`user_version` counts up as its tables change; each step from one version to the next is one transaction, so that a
crash repeats it whole.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kodo.p2p.errors import CapacityError, UsageError
from kodo.sqlite.script import run_script

__all__ = ["DatabaseFile", "Step", "database_bytes", "transaction", "truncate_wal", "unfolded_bytes"]

logger = logging.getLogger(__name__)

Step = str | Callable[[sqlite3.Connection], None]
"""What brings a file from one version to the next: a script, or a function inside of a transaction."""

BUSY_SECONDS = 10.0
"""How long a connection waits for another one's lock."""


def _nothing(connection: sqlite3.Connection) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class DatabaseFile:
    """What files of one kind are.

    Attributes:
        name: of the kind, as people are told: `a database of kodo's memories`.
        version: of its tables.
        schema: the script that makes the tables of a new file.
        steps: from each earlier version to the next.
        mark: the `application_id` that tells this kind from any other SQLite file; None: there is none.
        durable: whether a commit survives the loss of power (`synchronous=FULL`), or only a crash of the process.
        erases: whether what is deleted is overwritten (`secure_delete`).
        shrinks: whether space that deleted rows leave can be given back to the disk piece by piece.
        set_up: called with each new connection, readers' too; it must not write.
        elsewhere: what helps when there is a file that is none of this kind.
    """

    name: str
    version: int
    schema: str
    steps: Mapping[int, Step] = field(default_factory=dict)
    mark: int | None = None
    durable: bool = True
    erases: bool = False
    shrinks: bool = False
    set_up: Callable[[sqlite3.Connection], None] = _nothing
    elsewhere: str = "move it away"

    def open_writer(self, path: Path, *, max_bytes: int | None = None) -> sqlite3.Connection:
        """Open a connection that writes; make the file, or bring it up to this version, where need be.

        Args:
            path: the file.
            max_bytes: bound of its size; None: the disk's.

        Raises:
            UsageError: it is of another kind, or a newer kodo's, or cannot be opened here.
            CapacityError: there is no room for it.
            sqlite3.Error: SQLite refused; see `faults`.
        """
        _make(path)
        with _opening(path) as connection:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            version = self._check(connection, path) if tables else None
            if version is None and self.shrinks:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if self.durable else 'NORMAL'}")
            if self.erases:
                connection.execute("PRAGMA secure_delete=ON")
            if max_bytes is not None:
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count={max(max_bytes // page, 1)}")
            self.set_up(connection)
            connection.execute("PRAGMA foreign_keys=OFF")  # steps may rename tables
            self._bring_up(connection, path, version)
            connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def open_reader(self, path: Path) -> sqlite3.Connection:
        """Open a connection that can only read.

        Raises:
            sqlite3.Error: SQLite refused.
        """
        with _opening(path) as connection:
            self.set_up(connection)
            connection.execute("PRAGMA query_only=ON")
        return connection

    def _check(self, connection: sqlite3.Connection, path: Path) -> int:
        """Return the version of a file that has tables."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if mark != (self.mark or 0) or (version < self.version and version not in self.steps):
            raise UsageError(f"{path} is not {self.name}; {self.elsewhere}")
        if version > self.version:
            raise UsageError(f"{path} was written by a newer kodo (schema {version}); update kodo")
        return int(version)

    def _bring_up(self, connection: sqlite3.Connection, path: Path, version: int | None) -> None:
        if version is None:
            with transaction(connection):
                run_script(connection, self.schema)
                if self.mark is not None:
                    connection.execute(f"PRAGMA application_id={self.mark}")
                connection.execute(f"PRAGMA user_version={self.version}")
            return
        for before in range(version, self.version):
            logger.info("%s goes from version %d of its tables to %d", path, before, before + 1)
            step = self.steps[before]
            with transaction(connection):
                if isinstance(step, str):
                    run_script(connection, step)
                else:
                    step(connection)
                connection.execute(f"PRAGMA user_version={before + 1}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Do the block's writes whole, or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def truncate_wal(path: Path) -> bool:
    """Fold the write-ahead log into the file and cut it to nothing; return whether that was possible just now.

    What was deleted is overwritten in the file by then, and nowhere else. Waits 0.2 s for readers at most: a writer
    waits that long too.
    """
    try:
        with contextlib.closing(_connect(path)) as connection:
            connection.execute("PRAGMA busy_timeout=200")
            return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return False


def database_bytes(path: Path) -> int:
    """Return the bytes of a database and its write-ahead log."""
    return _file_bytes(path) + unfolded_bytes(path)


def unfolded_bytes(path: Path) -> int:
    """Return the bytes of a database's write-ahead log, which will be folded into the database."""
    return _file_bytes(path.with_name(f"{path.name}-wal"))


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _make(path: Path) -> None:
    # Made here for its mode, which SQLite gives to the files that it keeps beside it too.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"{path} cannot be made ({error.strerror}); free disk space and try again") from error
        raise UsageError(f"{path} cannot be opened: {error.strerror}; check its folder's permissions") from error


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[sqlite3.Connection]:
    """Connect; when anything fails before the block ends, close the connection."""
    connection = _connect(path)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _connect(path: Path) -> sqlite3.Connection:
    # One thread at a time uses a connection; which one may change.
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
