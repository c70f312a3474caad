"""What the registry keeps: signed records, who is alive, and the flows to search. One owner, one SQLite file.

The calls are async and never block the loop: one thread writes, and shares a commit among all that waits; two threads
read, each from one consistent snapshot (WAL), for sources in turn. Cancelling a call is safe: its change is made
whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kodo.access.audit import AuditedTables, AuditLine
from kodo.p2p.errors import CallError, CapacityError, UsageError
from kodo.p2p.net.turns import FairThreads
from kodo.registry.health import Due
from kodo.registry.reads.flow_pages import read_flows
from kodo.registry.reads.node_pages import read_nodes
from kodo.registry.reads.pages import PageRequest
from kodo.registry.reads.work import Work
from kodo.registry.records.record import Goodbye, Heartbeat, NodeRecord
from kodo.registry.store import changes, probes
from kodo.registry.store.annotations import annotate as annotate_record
from kodo.registry.store.changes import Accepted, Bounds
from kodo.registry.store.file import REGISTRY_FILE, lock_file
from kodo.registry.store.listing import notes_of
from kodo.registry.store.mesh_changes import heard_lately, note, note_beat
from kodo.registry.store.mesh_store import MeshStore
from kodo.registry.store.operators import AdminStore
from kodo.sqlite.faults import Fault, fault_of
from kodo.sqlite.file import database_bytes
from kodo.sqlite.readers import Readers
from kodo.sqlite.writer import Alone, GroupWriter

__all__ = ["Bounds", "Store"]

_READERS = 2
_WAITING = 8192
"""Writes that may wait; more are told to come again."""
_DEADLINE_S = 15.0
_SETTLE_AGAIN_MS = 5_000
"""Until it is tried again to note which nodes fell silent, after the disk took nothing."""
_OPENING_BYTES = 1 << 20
"""What the files beside the database take when it is opened, and a little more."""

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Store:
    """The registry's data. `async with`; closing is idempotent."""

    def __init__(self, database: Path, bounds: Bounds | None = None) -> None:
        self._database = database
        self._bounds = bounds or Bounds()
        self._closing = contextlib.ExitStack()
        self._writer: GroupWriter[sqlite3.Connection] | None = None
        self._readers: Readers | None = None
        self._turns = FairThreads(_READERS)
        self._due = 0
        self.kept = 0
        """Nodes that it keeps."""
        self.mesh = MeshStore(self._write_mesh, self._read_mesh, self._put, changes.goodbye, changes.remove)
        """What is told to other registries, and taken from them."""
        self.admin = AdminStore(self._write, self._read_mesh)
        """Who the operators are, the list of names, what was changed."""
        self.access = AuditedTables(self._write, self._read_mesh)
        """The tables of users, roles and grants."""

    async def __aenter__(self) -> Store:
        """Open the file, after bringing it up to this release.

        Raises:
            UsageError: it cannot be opened, is damaged, is of a later release, or another process owns it.
        """
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish what is being written, and close the file."""
        closing, self._closing = self._closing, contextlib.ExitStack()
        self._writer = self._readers = None
        await asyncio.to_thread(closing.close)

    @property
    def size(self) -> int:
        """Size of the file, with its write-ahead log."""
        return database_bytes(self._database)

    async def knows(self, peer_id: str) -> bool:
        """Return whether there is a record of this node, hidden or not."""
        query = "SELECT 1 FROM nodes WHERE peer_id = :peer_id"
        return await self._read(lambda work: bool(work.rows(query, {"peer_id": peer_id})))

    async def put(self, record: NodeRecord, signed: bytes, now: int) -> Accepted:
        """Take a verified record; `now` in ms UTC. The very same record again changes nothing.

        Raises:
            CallError: 400 expired or from the future, 409 old `seq` or name of another peer, 507 full.
        """

        def work(connection: sqlite3.Connection) -> tuple[Accepted, int]:
            before = connection.total_changes
            accepted = self._put(connection, record, signed, now)
            # Others may have told of the same record before.
            if connection.total_changes != before or not heard_lately(connection, record.peer_id, now):
                note(connection, record.peer_id, heard_at=now)
            return accepted, _kept(connection)

        accepted, self.kept = await self._write(work)
        self._due = 0
        self.mesh.bell.ring()
        return accepted

    def _put(self, connection: sqlite3.Connection, record: NodeRecord, signed: bytes, now: int) -> Accepted:
        return changes.put(connection, self._bounds, record, signed, now)

    async def heartbeat(self, heartbeat: Heartbeat, signed: bytes, now: int, *, gap_ms: int) -> None:
        """Note a verified heartbeat, `gap_ms` or more after the one before it.

        Raises:
            CallError: 404 unknown node, 406 send `up` again, 409 `at` does not rise, 429 too often.
        """

        def work(connection: sqlite3.Connection) -> bool:
            changes.heartbeat(connection, heartbeat, now, gap_ms)
            return note_beat(connection, heartbeat.peer_id, signed, now)

        if await self._write(work):
            self.mesh.bell.ring()

    async def goodbye(self, goodbye: Goodbye, signed: bytes, now: int) -> None:
        """Note a verified goodbye; the same again changes nothing.

        Raises:
            CallError: 404 unknown node, 409 a newer record is known.
        """

        def work(connection: sqlite3.Connection) -> None:
            if changes.goodbye(connection, goodbye, signed, now):
                note(connection, goodbye.peer_id)

        await self._write(work)
        self.mesh.bell.ring()

    async def annotate(
        self,
        peer_id: str,
        path: str | None,
        words: Mapping[str, Any],
        *,
        replace: bool,
        line: AuditLine | None = None,
    ) -> None:
        """Put an admin's words in place of those of a node, or of the flow `path` of it; of known fields and types.

        They are kept beside its record, which stays as it was signed, and outlive it: a node that was removed and
        comes back is shown with them.

        Args:
            peer_id: of the node.
            path: of the flow; it need not be listed now.
            words: by field, see `kodo.registry.records.annotation_fields`; None takes a word back.
            replace: whether what was said before is taken back.
            line: what the audit says of it.

        Raises:
            CallError: 404 neither the node nor an annotation of it is known, 400 a field that cannot be annotated,
                507 too many annotations.
        """

        def work(connection: sqlite3.Connection) -> None:
            annotate_record(connection, peer_id, path, words, replace=replace)
            if line is not None:
                line.log(connection)

        await self._write(work)

    async def annotations(self, peer_id: str) -> dict[str, dict[str, Any]]:
        """Return an admin's words on a node by path, those on the node itself by an empty one."""
        return await self._read(lambda work: notes_of(work.connection, peer_id))

    async def remove(self, peer_id: str, *, silent_since: int | None = None) -> bool:
        """Forget a node, its flows and its names, not what an admin said of it; say whether there was one.

        Args:
            peer_id: of the node.
            silent_since: ms UTC; a node that was heard of then or later stays.
        """

        def work(connection: sqlite3.Connection) -> tuple[bool, int]:
            heard = "SELECT 1 FROM nodes WHERE peer_id = ? AND seen_at >= ?"
            if silent_since is not None and connection.execute(heard, (peer_id, silent_since)).fetchone():
                return False, _kept(connection)
            gone = changes.remove(connection, peer_id)
            # A change without its node would count against the member that brought it, for ever.
            connection.execute("DELETE FROM changes WHERE peer_id = ? AND tombstone IS NULL", (peer_id,))
            return gone, _kept(connection)

        gone, self.kept = await self._write(work)
        return gone

    async def due(self, before: int, most: int) -> Sequence[Due]:
        """Return at most `most` nodes that were not probed since `before`, ms UTC."""
        return await self._read(lambda work: probes.due(work.connection, before, most))

    async def measured(self, peer_id: str, took_s: float | None, now: int) -> None:
        """Count a probe: its seconds, None when nobody answered."""
        await self._write(lambda connection: probes.measured(connection, peer_id, took_s, now))

    async def signed_record(self, peer_id: str, *, hidden: bool = True) -> bytes:
        """Return the record of `peer_id` as it came; that of a hidden node only with `hidden`.

        Raises:
            CallError: 404.
        """
        rows = await self._read(
            lambda work: work.rows(
                "SELECT r.signed FROM records r JOIN nodes n ON n.id = r.node_id "
                "WHERE n.peer_id = :peer_id AND n.hidden <= :hidden",
                {"peer_id": peer_id, "hidden": int(hidden)},
            )
        )
        if not rows:
            raise changes.no_such_node(peer_id)
        signed: bytes = rows[0][0]
        return signed

    async def nodes(self, request: PageRequest, now: int) -> dict[str, Any]:
        """Return a page of nodes.

        Raises:
            CallError: 400 unknown sort key, 422 over the bound of time.
        """
        await self._settle(now)
        return await self._read(lambda work: read_nodes(work, request))

    async def search(self, request: PageRequest, now: int) -> dict[str, Any]:
        """Return a page of flows.

        Raises:
            CallError: 400 unknown sort key, 422 over the bound of time.
        """
        await self._settle(now)
        return await self._read(lambda work: read_flows(work, request))

    async def counts(self, now: int) -> dict[str, int]:
        """Count nodes by state, and flows."""
        await self._settle(now)
        return await self._read(changes.counts)

    async def _settle(self, now: int) -> None:
        """Judge the nodes whose silence has lasted long enough to change what they are."""
        if now < self._due:
            return
        try:
            self._due = await self._write(lambda connection: changes.settle(connection, now))
        except CallError as error:
            if error.reason not in ("disk-full", "storage"):
                raise
            # What is there can be read all the same; who fell silent meanwhile shows when there is room again.
            logger.warning("the registry cannot note which nodes fell silent: %s", error.message)
            self._due = now + _SETTLE_AGAIN_MS

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lock_file(self._database))
            writer = GroupWriter(lambda: REGISTRY_FILE.open_writer(self._database), Alone, name="registry-write")
            readers = Readers(lambda: REGISTRY_FILE.open_reader(self._database), _READERS, name="registry-read")
            try:
                writer.open()
                stack.callback(writer.close)
                self.kept = _kept(writer.connection)
                readers.open()
                stack.callback(readers.close)
            except (sqlite3.Error, CapacityError) as error:
                remedy = "put a backup in its place, or move it away: nodes announce themselves again"
                if shutil.disk_usage(self._database.parent).free < _OPENING_BYTES:
                    # Nothing is wrong with the file, whatever SQLite calls it.
                    remedy = "its disk is full: make room and start it again"
                raise UsageError(f"the registry cannot use {self._database}: {error}; {remedy}") from error
            stack.callback(writer.stop)
            self._writer, self._readers = writer, readers
            self._closing = stack.pop_all()

    async def _write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        writer = self._writer
        if writer is None:
            raise _closed()
        if writer.waiting >= _WAITING:
            raise _busy()
        with _told(self._database):
            async with asyncio.timeout(_DEADLINE_S):
                return await writer.do(work)

    async def _write_mesh(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        result = await self._write(work)
        self._due = 0
        return result

    async def _read_mesh(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await self._read(lambda read: work(read.connection))

    async def _read(self, read: Callable[[Work], _Result]) -> _Result:
        def bounded(connection: sqlite3.Connection) -> _Result:
            with contextlib.closing(Work(connection, self._bounds.read_s)) as work:
                return read(work)

        readers = self._readers
        if readers is None:
            raise _closed()
        with _told(self._database):
            async with asyncio.timeout(_DEADLINE_S):
                return await self._turns.do(bounded, readers.read)


def _kept(connection: sqlite3.Connection) -> int:
    (nodes,) = connection.execute("SELECT nodes FROM totals").fetchone()
    return int(nodes)


@contextlib.contextmanager
def _told(database: Path) -> Iterator[None]:
    """Raise what SQLite and the clock refuse as refusals of ours."""
    try:
        yield
    except TimeoutError:
        raise _busy() from None
    except CapacityError:
        raise _full() from None
    except sqlite3.Error as error:
        fault = fault_of(error)
        if fault is Fault.INTERRUPTED:
            raise CallError(422, "too-slow", "this takes too long; narrow the search or the query") from None
        logger.error("SQLite refused %s: %s", database, error)
        if fault is Fault.FULL:
            raise _full() from None
        if fault is Fault.DAMAGED:
            raise CallError(
                503, "damaged", "the registry's database is damaged; its operator must restore a backup"
            ) from None
        raise CallError(503, "storage", "the registry cannot store or read at present") from None


def _full() -> CallError:
    return CallError(507, "disk-full", "the registry's disk is full; nothing was changed")


def _busy() -> CallError:
    return CallError(503, "busy", "the registry is overloaded; try later", {"retry_after_s": 5})


def _closed() -> CallError:
    return CallError(503, "closed", "the registry is shutting down", {"retry_after_s": 5})
