"""Where memories lie: values in one SQLite file, files in a folder beside it. Blocking, for one thread at a time.

    memory.db                values, and which file stands for which name; every change is one transaction
    files/<random>           whole, verified files
    parts/<run>-<upload>     files under way, cleared at the start

A file gets a row only when it is whole and on the disk; what has no row is removed at the start. A change that is
asked a second time under the same number (the node died before its answer arrived) is not made again: its answer
is told again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from kodo.p2p.errors import CallError, CapacityError, IntegrityError, KodoError, NotFoundError, UsageError
from kodo.p2p.net.files import open_plain, plain_descriptor
from kodo.protocol.manifest import check_output_name
from kodo.protocol.memory import MEMORY_PIECE_BYTES, Scope, check_key, check_value
from kodo.protocol.room import ENDLESS, Promise, Room
from kodo.sqlite.faults import translate
from kodo.sqlite.file import DatabaseFile, database_bytes, transaction, unfolded_bytes

__all__ = ["MEMORY_FILE", "SENDER", "MemoryLimits", "MemoryRow", "MemoryStore", "Once"]

SENDER = "by."
"""Begins the name of whoever writes files by calls; the others that write some are runs, named by their fids."""

_ALL_SENDERS = 4
"""How many times `MemoryLimits.parts` all of them together write at once."""

_SCHEMA = """
CREATE TABLE memories (
    mid INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    of TEXT NOT NULL,
    keys INTEGER NOT NULL DEFAULT 0,
    key_bytes INTEGER NOT NULL DEFAULT 0,
    files INTEGER NOT NULL DEFAULT 0,
    file_bytes INTEGER NOT NULL DEFAULT 0,
    modified INTEGER NOT NULL,
    UNIQUE (scope, of)
) STRICT;
CREATE TABLE entries (
    mid INTEGER NOT NULL REFERENCES memories (mid) ON DELETE CASCADE,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    value BLOB NOT NULL,
    modified INTEGER NOT NULL,
    PRIMARY KEY (mid, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE files (
    mid INTEGER NOT NULL REFERENCES memories (mid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    place TEXT NOT NULL UNIQUE,
    modified INTEGER NOT NULL,
    PRIMARY KEY (mid, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    fid TEXT NOT NULL,
    aid INTEGER NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (fid, aid)
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (value INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (0);
"""

MEMORY_FILE = DatabaseFile(
    name="a database of kodo's memories",
    version=1,
    schema=_SCHEMA,
    steps={0: ""},  # 0.1.0 left its files without a version
    mark=0x6B6F6D65,  # `kome` in ASCII
    erases=True,
    shrinks=True,
)
_DATABASE = "memory.db"
_PAGE = 1000
_ENTRY_BYTES = 32
_LOG_FACTOR = 2
"""What is stored in the database lies in its write-ahead log too."""

_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE])


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Bounds of one memory; `memories`: of how many there may be; `parts`: files a run or sender writes at once."""

    keys: int = 100_000
    key_bytes: int = 256 << 20
    files: int = 10_000
    file_bytes: int = 4 << 30
    memories: int = 100_000
    parts: int = 64


class Once(NamedTuple):
    """By what a repeated change is known: the run, the question's number, and the lowest one still open."""

    fid: str
    aid: int
    first_open: int


class MemoryRow(NamedTuple):
    """One memory: what it is of, what it holds; `bytes` of values and files, `modified` in ms UTC."""

    scope: str
    of: str
    keys: int
    files: int
    bytes: int
    modified: int


@dataclass(slots=True)
class _Part:
    """A file under way: what is promised to it, the hash of what is there, and how much that is."""

    promise: Promise
    hasher: Any = field(default_factory=hashlib.sha256)
    reached: int = 0


class MemoryStore:
    """All memories below one folder.

    Args:
        root: the folder; mode 0700.
        now_ms: the clock, ms UTC.
        room: on its disk.
    """

    def __init__(
        self,
        root: Path,
        now_ms: Callable[[], int],
        *,
        room: Room = ENDLESS,
        limits: MemoryLimits | None = None,
    ):
        self.root = root
        self.limits = limits or MemoryLimits()
        self._now_ms = now_ms
        self._room = room
        self._db: sqlite3.Connection | None = None
        self._parts: dict[str, _Part] = {}
        self._file_bytes = 0
        self._kept = contextlib.ExitStack()  # room for the change under way
        self._gone: list[str] = []  # places that the change under way leaves without a row
        self._ops: dict[str, Callable[[int, dict[str, Any]], dict[str, Any] | bool]] = {
            "get": self._get,
            "keys": self._keys,
            "files": self._files,
            "file.read": self._read,
            "set": self._set,
            "delete": self._delete,
            "file.write": self._write,
            "file.delete": self._delete_file,
        }

    def open(self) -> None:
        """Open or make the database; remove files that no row names.

        Raises:
            UsageError: the database is damaged or not ours.
            CapacityError: the disk takes nothing.
        """
        for folder in (self.root, self.root / "files", self.root / "parts"):
            if folder.name == "parts":
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / _DATABASE
        try:
            self._db = db = MEMORY_FILE.open_writer(path)
            known = {place for (place,) in db.execute("SELECT place FROM files")}
            self._file_bytes = int(db.execute("SELECT coalesce(sum(size), 0) FROM files").fetchone()[0])
            for file in (self.root / "files").iterdir():
                if file.name not in known:
                    file.unlink(missing_ok=True)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, path) from error
            raise

    def close(self) -> None:
        """Close the database; idempotent."""
        for part in self._parts.values():
            part.promise.close()
        db, self._db = self._db, None
        if db is not None:
            db.close()

    @property
    def taken(self) -> int:
        """The bytes of values and whole files; may be asked in any thread."""
        return self._file_bytes + database_bytes(self.root / _DATABASE)

    @property
    def unfolded(self) -> int:
        """The bytes of the write-ahead log, which will be folded into its file; may be asked in any thread."""
        return unfolded_bytes(self.root / _DATABASE)

    def perform(
        self, op: str, scope: Scope, of: str, args: dict[str, Any], once: Once | None = None
    ) -> dict[str, Any] | bool:
        """Do one op: `get`, `keys`, `set`, `delete`, `files`, `file.read`, `file.write`, `file.delete`.

        Raises:
            CallError: 409 `changed`: another version is there by now.
            NotFoundError, CapacityError, UsageError: as the flow is told.
        """
        work = self._ops.get(op)
        if work is None:
            raise UsageError(f"there is no memory.{op[:40]}")
        try:
            if op in ("get", "keys", "files", "file.read"):
                return work(self._find(scope, of), args)
            return self._change(work, scope, of, args, once)
        except sqlite3.Error as error:
            raise translate(error, self.root) from error
        except OSError as error:
            self._drop(op, args, once)
            if error.errno in _DISK_ERRORS:
                raise CapacityError(f"the memory cannot grow ({error.strerror}); free disk space") from error
            raise
        except OverflowError as error:
            raise CapacityError(str(error)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"memory.{op}: {error}") from None
        except (CapacityError, IntegrityError):
            self._drop(op, args, once)
            raise

    def drop(self, by: str, upload: str) -> None:
        """Forget a file under way that no run writes."""
        self._drop_part(f"{by}-{upload}")

    def ended(self, fid: str) -> None:
        """Forget what a run was about to write, and what it was answered: it asks nothing more."""
        for name in [name for name in self._parts if name.startswith(f"{fid}-")]:
            self._drop_part(name)
        try:
            with self._transaction() as db:
                db.execute("DELETE FROM answers WHERE fid = ?", (fid,))
        except sqlite3.Error as error:
            raise translate(error, self.root) from error

    def forget_answers(self, live: Set[str]) -> None:
        """Forget what runs that are not in `live` were answered."""
        try:
            for (fid,) in self._open().execute("SELECT DISTINCT fid FROM answers").fetchall():
                if fid not in live:
                    self.ended(fid)
        except sqlite3.Error as error:
            raise translate(error, self.root) from error

    def memories(self, scope: Scope | None = None) -> list[MemoryRow]:
        """Return all memories, or those of one scope."""
        query = "SELECT scope, of, keys, files, key_bytes + file_bytes, modified FROM memories"
        where, values = (" WHERE scope = ?", (scope,)) if scope else ("", ())
        return [MemoryRow(*row) for row in self._open().execute(f"{query}{where} ORDER BY scope, of", values)]

    def contents(self, scope: Scope, of: str, prefix: str, skip: int, take: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many values and files there are whose names begin with `prefix`, and some of them, by name.

        Each is `{kind: "value" | "file", key, bytes, modified}`.
        """
        part = "FROM {0} WHERE mid = :mid AND {1} >= :prefix AND substr({1}, 1, :length) = :prefix"
        query = (
            f"SELECT 'value', key, length(value), modified {part.format('entries', 'key')} UNION ALL "
            f"SELECT 'file', name, size, modified {part.format('files', 'name')}"
        )
        names = ("kind", "key", "bytes", "modified")
        values = {"mid": self._find(scope, of), "prefix": prefix, "length": len(prefix), "take": take, "skip": skip}
        db = self._open()
        total = db.execute(f"SELECT count(*) FROM ({query})", values).fetchone()[0]
        rows = db.execute(f"{query} ORDER BY 2, 1 LIMIT :take OFFSET :skip", values).fetchall()
        return total, [dict(zip(names, row, strict=True)) for row in rows]

    def forget(self, scope: Scope, of: str, before: float | None = None) -> None:
        """Remove a memory with all it holds, overwritten on the disk; one changed after `before` (ms UTC) stays."""
        try:
            with self._transaction() as db:
                query = "SELECT modified FROM memories WHERE scope = ? AND of = ?"
                row = db.execute(query, (scope, of)).fetchone()
                if before is not None and row is not None and row[0] > before:
                    return
                mid = self._find(scope, of)
                places = [place for (place,) in db.execute("SELECT place FROM files WHERE mid = ?", (mid,))]
                db.execute("DELETE FROM memories WHERE mid = ?", (mid,))
            self._remove(places)
            db.execute("PRAGMA incremental_vacuum")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise translate(error, self.root) from error

    # --- inside ---

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise KodoError("the memories are closed")
        return self._db

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._open()
        with transaction(db):
            yield db

    def _find(self, scope: str, of: str) -> int:
        row = self._open().execute("SELECT mid FROM memories WHERE scope = ? AND of = ?", (scope, of)).fetchone()
        return int(row[0]) if row else 0

    def _change(
        self,
        work: Callable[[int, dict[str, Any]], dict[str, Any] | bool],
        scope: str,
        of: str,
        args: dict[str, Any],
        once: Once | None,
    ) -> dict[str, Any] | bool:
        with contextlib.ExitStack() as self._kept, self._transaction() as db:
            if once is not None:
                db.execute("DELETE FROM answers WHERE fid = ? AND aid < ?", (once.fid, once.first_open))
                known = db.execute("SELECT answer FROM answers WHERE fid = ? AND aid = ?", once[:2]).fetchone()
                if known is not None:
                    told: dict[str, Any] | bool = msgpack.unpackb(known[0])
                    return told
            mid = self._find(scope, of)
            if not mid:
                if db.execute("SELECT count(*) FROM memories").fetchone()[0] >= self.limits.memories:
                    raise CapacityError(f"this node has {self.limits.memories} memories; clean up")
                mid = int(
                    db.execute(
                        "INSERT INTO memories (scope, of, modified) VALUES (?, ?, ?)", (scope, of, self._now_ms())
                    ).lastrowid
                    or 0
                )
            self._gone = []
            answer = work(mid, {**args, "by": once.fid if once else args.get("by", "")})
            db.execute("UPDATE memories SET modified = ? WHERE mid = ?", (self._now_ms(), mid))
            if once is not None:
                db.execute("INSERT INTO answers VALUES (?, ?, ?)", (once.fid, once.aid, msgpack.packb(answer)))
        self._remove(self._gone)
        return answer

    def _keep(self, size: int) -> None:
        """Reserve room for so many bytes of values until the transaction is over."""
        size *= _LOG_FACTOR
        promise = self._kept.enter_context(self._room.promise(size))
        self._kept.enter_context(promise.writing(size))

    def _drop(self, op: str, args: dict[str, Any], once: Once | None) -> None:
        if op == "file.write":
            self._drop_part(f"{once.fid if once else args.get('by', '')}-{args.get('upload')}")

    def _drop_part(self, name: str) -> None:
        part = self._parts.pop(name, None)
        if part is not None:
            part.promise.close()
            (self.root / "parts" / name).unlink(missing_ok=True)

    def _remove(self, places: list[str]) -> None:
        for place in places:
            with contextlib.suppress(OSError):  # gone with the next start
                path = self.root / "files" / place
                size = path.stat().st_size
                path.unlink()
                self._file_bytes -= size

    def _next(self) -> int:
        row = self._open().execute("UPDATE counter SET value = value + 1 RETURNING value").fetchone()
        return int(row[0])

    def _get(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        key = check_key(args["key"])
        query = "SELECT version, value FROM entries WHERE mid = ? AND key = ?"
        row = self._open().execute(query, (mid, key)).fetchone()
        return {"version": row[0], "value": msgpack.unpackb(row[1])} if row else {"version": 0, "value": None}

    def _keys(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        found = [key for key, *_ in self._page("key", "entries", "key", mid, args)]
        return {"rows": found, "more": found[-1] if len(found) == _PAGE else ""}

    def _files(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        names = ("name", "size", "sha256", "modified")
        columns = ", ".join(names)
        found = [dict(zip(names, row, strict=True)) for row in self._page(columns, "files", "name", mid, args)]
        return {"rows": found, "more": found[-1]["name"] if len(found) == _PAGE else ""}

    def _page(self, columns: str, table: str, by: str, mid: int, args: dict[str, Any]) -> list[tuple[Any, ...]]:
        prefix, after = str(args.get("prefix", "")), str(args.get("after", ""))
        query = f"SELECT {columns} FROM {table} WHERE mid = ? AND {by} > ? AND {by} >= ? AND substr({by}, 1, ?) = ?"
        values = (mid, after, prefix, len(prefix), prefix)
        return self._open().execute(f"{query} ORDER BY {by} LIMIT {_PAGE}", values).fetchall()

    def _set(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        key, packed = check_key(args["key"]), check_value(args["value"])
        db, now = self._open(), self._now_ms()
        query = "SELECT version, length(value) FROM entries WHERE mid = ? AND key = ?"
        version, size = db.execute(query, (mid, key)).fetchone() or (0, -1)
        _check_version(args.get("version"), version)
        self._keep(len(packed) + len(key.encode()))
        added, grown = int(size < 0), len(packed) - size if size >= 0 else len(packed) + len(key) + _ENTRY_BYTES
        self._count(mid, "keys", "key_bytes", added, grown, self.limits.keys, self.limits.key_bytes)
        version = self._next()
        db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", (mid, key, version, packed, now))
        return {"version": version}

    def _delete(self, mid: int, args: dict[str, Any]) -> bool:
        key, db = check_key(args["key"]), self._open()
        row = db.execute(
            "DELETE FROM entries WHERE mid = ? AND key = ? RETURNING length(value)", (mid, key)
        ).fetchone()
        if row is None:
            return False
        self._count(mid, "keys", "key_bytes", -1, -(row[0] + len(key) + _ENTRY_BYTES), 0, 0)
        return True

    def _count(self, mid: int, count: str, size: str, more: int, bytes: int, most: int, most_bytes: int) -> None:
        """Note how much more there is now, and refuse what is above a bound; less is always taken."""
        query = f"UPDATE memories SET {count} = {count} + ?, {size} = {size} + ? WHERE mid = ?"
        row = self._open().execute(f"{query} RETURNING {count}, {size}", (more, bytes, mid)).fetchone()
        if more > 0 and row[0] > most:
            raise CapacityError(f"this memory has {most} {count}; delete some")
        if bytes > 0 and row[1] > most_bytes:
            raise CapacityError(f"this memory would hold {row[1]} bytes of {count}; {most_bytes} are the limit")

    def _read(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        name, offset = check_key(args["name"]), int(args.get("offset", 0))
        query = "SELECT version, size, sha256, place FROM files WHERE mid = ? AND name = ?"
        row = self._open().execute(query, (mid, name)).fetchone()
        if row is None:
            raise NotFoundError(f"this memory has no file {name!r}")
        version, size, sha256, place = row
        _check_version(args.get("version"), version)
        with open_plain(self.root / "files" / place) as file:
            data = os.pread(file.fileno(), MEMORY_PIECE_BYTES, offset)
        return {"version": version, "size": size, "sha256": sha256, "data": data}

    def _write(self, mid: int, args: dict[str, Any]) -> dict[str, Any]:
        """Take a piece; with the last one the file has its name. Gives how far it is by now, in bytes."""
        name, data, offset = check_key(check_output_name(args["name"])), bytes(args["data"]), int(args["offset"])
        size, sha256, upload = int(args["size"]), str(args["sha256"]), str(args["upload"])
        if not upload.isalnum() or len(upload) > 64 or len(data) > MEMORY_PIECE_BYTES or not 0 <= size < 1 << 50:
            raise UsageError("a piece of a file is malformed")
        path = self.root / "parts" / f"{args['by']}-{upload}"
        part = self._parts.get(path.name)
        if offset == 0 and part is not None:
            self._drop_part(path.name)
            part = None
        if part is None:
            if size > self.limits.file_bytes:
                raise CapacityError(f"a memory has at most {self.limits.file_bytes} bytes of files")
            if offset:
                return {"offset": 0}
            self._check_parts(str(args["by"]))
            part = self._parts[path.name] = _Part(self._room.promise(size))
        if offset != part.reached:
            return {"offset": part.reached}
        if part.reached + len(data) > size or (not data and size):
            raise IntegrityError(f"the file {name!r} does not have the announced length")
        descriptor = plain_descriptor(path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, part.reached)
            view = memoryview(data)
            with part.promise.writing(len(data)):
                while view:
                    view = view[os.pwrite(descriptor, view, part.reached + len(data) - len(view)) :]
            part.hasher.update(data)
            part.reached += len(data)
            if part.reached < size:
                return {"offset": part.reached}
            if part.hasher.hexdigest() != sha256:
                raise IntegrityError(f"the file {name!r} did not arrive as it was sent")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return self._place(mid, name, path, size, sha256)

    def _check_parts(self, by: str) -> None:
        """Check that somebody may begin to write one more file."""
        most = self.limits.parts
        if sum(each.startswith(f"{by}-") for each in self._parts) >= most:
            raise CapacityError(f"{most} files are being written at once; finish some first")
        if by.startswith(SENDER) and sum(each.startswith(SENDER) for each in self._parts) >= most * _ALL_SENDERS:
            raise CapacityError(f"{most * _ALL_SENDERS} files are being sent to this node at once; try again later")

    def _place(self, mid: int, name: str, part: Path, size: int, sha256: str) -> dict[str, Any]:
        db, place = self._open(), secrets.token_hex(16)
        old = db.execute("SELECT place, size FROM files WHERE mid = ? AND name = ?", (mid, name)).fetchone()
        grown = size - old[1] if old else size
        self._count(mid, "files", "file_bytes", int(old is None), grown, self.limits.files, self.limits.file_bytes)
        part.replace(self.root / "files" / place)
        folder = os.open(self.root / "files", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._file_bytes += size
        self._parts.pop(part.name).promise.close()
        row = (mid, name, self._next(), size, sha256, place, self._now_ms())
        db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._gone += [old[0]] if old else []
        return {"offset": size}

    def _delete_file(self, mid: int, args: dict[str, Any]) -> bool:
        name, db = check_key(args["name"]), self._open()
        row = db.execute("DELETE FROM files WHERE mid = ? AND name = ? RETURNING place, size", (mid, name)).fetchone()
        if row is None:
            return False
        self._count(mid, "files", "file_bytes", -1, -row[1], 0, 0)
        self._gone.append(row[0])
        return True


def _check_version(wanted: Any, there: int) -> None:
    if wanted is not None and int(wanted) != there:
        raise CallError(409, "changed", "somebody else changed it meanwhile")
