"""What the registry keeps: signed records, who is alive, and the flows to search. One owner, one SQLite file.

The calls are async and never block the loop: one thread writes, each write a transaction; two threads read, each from
one consistent snapshot (WAL). Cancelling a call is safe: its transaction is done whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import sqlite3
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kodo.p2p.errors import CallError, UsageError
from kodo.registry.glob import fold
from kodo.registry.mesh_store import MeshStore, note, note_beat
from kodo.registry.pages import PageRequest, read_flows, read_nodes
from kodo.registry.record import FlowRecord, Goodbye, Heartbeat, NodeRecord
from kodo.registry.schema import connect, create, lock_file
from kodo.registry.status import STATUS_SQL

__all__ = ["MAX_CLOCK_AHEAD_S", "Accepted", "Bounds", "Store"]

MAX_CLOCK_AHEAD_S = 300
"""Seconds that a node's clock may be ahead of the registry's."""

_READERS = 2
_DEADLINE_S = 15.0
_PATIENCE_S = 5.0
"""Seconds, waiting included, that one page may take."""
_STEPS = 5_000
"""SQLite instructions between two looks at the clock."""

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the registry keeps.

    Attributes:
        nodes: node records.
        flows: flows of all nodes together.
        names: names that one peer id may bind.
        read_s: seconds of work that one page may take.
    """

    nodes: int = 100_000
    flows: int = 1_000_000
    names: int = 16
    read_s: float = 0.2


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a record: `flows` are the paths listed, `refused` maps of `path`, `reason` and more."""

    flows: list[str]
    refused: list[dict[str, Any]]


class Store:
    """The registry's data. `async with`; closing is idempotent."""

    def __init__(self, database: Path, bounds: Bounds | None = None) -> None:
        self._database = database
        self._bounds = bounds or Bounds()
        self._closing = contextlib.ExitStack()
        self._writing: ThreadPoolExecutor | None = None
        self._reading: ThreadPoolExecutor | None = None
        self._writer: sqlite3.Connection | None = None
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self.mesh = MeshStore(self._write, self._read, self._put, _goodbye, _remove)
        """What is told to other registries, and taken from them."""

    async def __aenter__(self) -> Store:
        """Open the file.

        Raises:
            UsageError: it cannot be opened, is of a later release, or another process owns it.
        """
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish what is being written, and close the file."""
        closing, self._closing = self._closing, contextlib.ExitStack()
        self._writing = self._reading = None
        await asyncio.to_thread(closing.close)

    async def put(self, record: NodeRecord, signed: bytes, now: int) -> Accepted:
        """Take a verified record; `now` in ms UTC. The very same record again changes nothing.

        Raises:
            CallError: 400 expired or from the future, 409 old `seq` or name of another peer, 507 full.
        """

        def work(connection: sqlite3.Connection) -> Accepted:
            before = connection.total_changes
            accepted = self._put(connection, record, signed, now)
            if connection.total_changes != before:
                note(connection, record.peer_id)
            return accepted

        accepted = await self._write(work)
        self.mesh.bell.ring()
        return accepted

    async def heartbeat(self, heartbeat: Heartbeat, signed: bytes, now: int, *, gap_ms: int) -> None:
        """Note a verified heartbeat, `gap_ms` or more after the one before it.

        Raises:
            CallError: 404 unknown node, 406 send `up` again, 409 `at` does not rise, 429 too often.
        """

        def work(connection: sqlite3.Connection) -> bool:
            _heartbeat(connection, heartbeat, now, gap_ms)
            return note_beat(connection, heartbeat.peer_id, signed, now)

        if await self._write(work):
            self.mesh.bell.ring()

    async def goodbye(self, goodbye: Goodbye, signed: bytes, now: int) -> None:
        """Note a verified goodbye; the same again changes nothing.

        Raises:
            CallError: 404 unknown node, 409 a newer record is known.
        """

        def work(connection: sqlite3.Connection) -> None:
            if _goodbye(connection, goodbye, signed, now):
                note(connection, goodbye.peer_id)

        await self._write(work)
        self.mesh.bell.ring()

    async def signed_record(self, peer_id: str) -> bytes:
        """Give the record of `peer_id` as it came.

        Raises:
            CallError: 404.
        """
        row = await self._read(
            lambda connection: connection.execute("SELECT signed FROM nodes WHERE peer_id = ?", (peer_id,)).fetchone()
        )
        if row is None:
            raise _no_such_node(peer_id)
        signed: bytes = row[0]
        return signed

    async def nodes(self, request: PageRequest, now: int) -> dict[str, Any]:
        """Give a page of nodes.

        Raises:
            CallError: 400 unknown sort key, 422 over the bound of time.
        """
        return await self._read(lambda connection: read_nodes(connection, request, now))

    async def search(self, request: PageRequest, now: int) -> dict[str, Any]:
        """Give a page of flows.

        Raises:
            CallError: 400 unknown sort key, 422 over the bound of time.
        """
        return await self._read(lambda connection: read_flows(connection, request, now))

    async def counts(self, now: int) -> dict[str, int]:
        """Count nodes by state, and flows."""
        return await self._read(lambda connection: _counts(connection, now))

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lock_file(self._database))
            try:
                writer = stack.enter_context(contextlib.closing(connect(self._database)))
                create(writer)
                for _ in range(_READERS):
                    reader = stack.enter_context(contextlib.closing(connect(self._database, readonly=True)))
                    self._readers.put(reader)
            except sqlite3.Error as error:
                raise UsageError(f"the registry cannot use {self._database}: {error}") from error
            self._writer = writer
            self._writing = stack.enter_context(ThreadPoolExecutor(1, "registry-write"))
            self._reading = stack.enter_context(ThreadPoolExecutor(_READERS, "registry-read"))
            self._closing = stack.pop_all()

    async def _write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        def job() -> _Result:
            assert self._writer is not None
            with _transaction(self._writer, "IMMEDIATE"):
                return work(self._writer)

        return await self._run(self._writing, job)

    async def _read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        def job() -> _Result:
            connection = self._readers.get()
            # Work is counted, not waiting: a busy machine is no fault of the query.
            ends, gives_up = time.thread_time() + self._bounds.read_s, time.monotonic() + _PATIENCE_S
            connection.set_progress_handler(lambda: time.thread_time() > ends or time.monotonic() > gives_up, _STEPS)
            try:
                with _transaction(connection, "DEFERRED"):
                    return work(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                raise CallError(422, "too-slow", "this takes too long here; narrow the search or the query") from None
            finally:
                connection.set_progress_handler(None, 0)
                self._readers.put(connection)

        return await self._run(self._reading, job)

    async def _run(self, pool: ThreadPoolExecutor | None, job: Callable[[], _Result]) -> _Result:
        if pool is None:
            raise CallError(503, "closed", "the registry is shutting down", {"retry_after_s": 5})
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await asyncio.get_running_loop().run_in_executor(pool, job)
        except TimeoutError:
            raise CallError(503, "busy", "the registry is overloaded; try later", {"retry_after_s": 5}) from None
        except sqlite3.OperationalError as error:
            log.error("SQLite refused: %s", error)
            raise CallError(503, "storage", "the registry cannot store or read at present") from None

    def _put(self, connection: sqlite3.Connection, record: NodeRecord, signed: bytes, now: int) -> Accepted:
        if record.issued_at > now + MAX_CLOCK_AHEAD_S * 1000:
            ahead = (record.issued_at - now) // 1000
            raise CallError(
                400, "clock-ahead", f"the record was issued {ahead} s in the future; set the node's clock"
            )
        if now >= record.expires_at:
            raise CallError(400, "record-expired", "the record has expired already; issue a new one")
        listed, refused = _sort_out(record)
        row = connection.execute("SELECT * FROM nodes WHERE peer_id = ?", (record.peer_id,)).fetchone()
        if row is not None:
            newest = max(row["seq"], row["left_seq"])
            if row["left_at"] is None and record.seq == row["seq"] and row["signed"] == signed:
                return self._again(connection, row["id"], listed, refused)
            if record.seq <= newest:
                raise CallError(409, "old-seq", f"seq {newest} is known; send a higher one", {"seq": newest})
        self._bind(connection, record)
        if row is None:
            (nodes,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
            if nodes >= self._bounds.nodes:
                raise CallError(507, "registry-full", f"this registry keeps {self._bounds.nodes} nodes and is full")
        columns = {
            "name": record.name,
            "k_name": fold(record.name),
            "addrs": json.dumps(record.addrs),
            "seq": record.seq,
            "issued_at": record.issued_at,
            "expires_at": record.expires_at,
            "signed": signed,
            "seen_at": now,
            "peer_id": record.peer_id,
        }
        if row is None:
            names = ", ".join(columns)
            marks = ", ".join(f":{name}" for name in columns)
            cursor = connection.execute(f"INSERT INTO nodes ({names}, flows) VALUES ({marks}, 0)", columns)
            node_id = cursor.lastrowid
            assert node_id is not None
        else:
            node_id = row["id"]
            changes = ", ".join(f"{name} = :{name}" for name in columns)
            connection.execute(
                f"UPDATE nodes SET {changes}, beat_at = NULL, beat_seen_at = NULL, left_at = NULL, goodbye = NULL "
                "WHERE peer_id = :peer_id",
                columns,
            )
        return self._list(connection, node_id, record.name, listed, refused)

    def _bind(self, connection: sqlite3.Connection, record: NodeRecord) -> None:
        """Give the name to the first peer that uses it, until an admin takes it away."""
        key = fold(record.name)
        bound = connection.execute("SELECT peer_id FROM names WHERE k_name = ?", (key,)).fetchone()
        if bound is None:
            held = connection.execute("SELECT count(*) FROM names WHERE peer_id = ?", (record.peer_id,)).fetchone()[0]
            if held >= self._bounds.names:
                raise CallError(409, "too-many-names", f"{record.peer_id} has used {held} names here; keep to one")
            connection.execute("INSERT INTO names (k_name, peer_id) VALUES (?, ?)", (key, record.peer_id))
        elif bound[0] != record.peer_id:
            raise CallError(
                409, "name-taken", f"{record.name} belongs to {bound[0]} here; choose another", {"peer_id": bound[0]}
            )

    def _again(
        self, connection: sqlite3.Connection, node_id: int, listed: list[FlowRecord], refused: list[dict[str, Any]]
    ) -> Accepted:
        known = {row[0] for row in connection.execute("SELECT path FROM flows WHERE node_id = ?", (node_id,))}
        accepted = [flow.path for flow in listed if flow.path in known]
        return Accepted(accepted, refused + [_no_room(flow.path) for flow in listed if flow.path not in known])

    def _list(
        self,
        connection: sqlite3.Connection,
        node_id: int,
        name: str,
        listed: list[FlowRecord],
        refused: list[dict[str, Any]],
    ) -> Accepted:
        """Make the node's flows those `listed`; what did not change is not touched, for indexing is what costs."""
        found = connection.execute("SELECT id, path, data, k_node FROM flows WHERE node_id = ?", (node_id,))
        known = {row["path"]: row for row in found}
        node_key = fold(name)
        fresh: list[dict[str, Any]] = []
        for flow in listed:
            row = _flow_row(node_id, node_key, flow)
            before = known.get(flow.path)
            if before is not None and before["data"] == row["data"] and before["k_node"] == node_key:
                del known[flow.path]
            else:
                fresh.append(row)
        connection.executemany("DELETE FROM flows WHERE id = ?", [(row["id"],) for row in known.values()])
        total = connection.execute("SELECT coalesce(sum(flows), 0) FROM nodes WHERE id <> ?", (node_id,)).fetchone()[
            0
        ]
        room = max(self._bounds.flows - total - (len(listed) - len(fresh)), 0)
        fresh, left_out = fresh[:room], fresh[room:]
        connection.executemany(
            "INSERT INTO flows (node_id, path, published, release, data, k_node, k_name, k_description, k_author, "
            "k_organization, k_tags) VALUES (:node_id, :path, :published, :release, :data, :k_node, :k_name, "
            ":k_description, :k_author, :k_organization, :k_tags)",
            fresh,
        )
        without = {row["path"] for row in left_out}
        accepted = [flow.path for flow in listed if flow.path not in without]
        connection.execute("UPDATE nodes SET flows = ? WHERE id = ?", (len(accepted), node_id))
        return Accepted(accepted, refused + [_no_room(row["path"]) for row in left_out])


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sort_out(record: NodeRecord) -> tuple[list[FlowRecord], list[dict[str, Any]]]:
    """Part the flows into those that can be listed and those that cannot, with the reason."""
    listed: dict[str, FlowRecord] = {}
    refused: list[dict[str, Any]] = []
    for flow in record.flows:
        missing = flow.missing()
        if missing:
            refused.append({"path": flow.path, "reason": "missing-fields", "missing": missing})
        elif flow.path in listed:
            refused.append({"path": flow.path, "reason": "duplicate-path"})
        elif _has_control_characters(flow):
            refused.append({"path": flow.path, "reason": "control-characters"})
        else:
            listed[flow.path] = flow
    return list(listed.values()), refused


def _has_control_characters(flow: FlowRecord) -> bool:
    # They would reach people's terminals. A description has lines; nothing else has.
    lines = (flow.path, flow.name, flow.source, flow.author, flow.organization, flow.release, *flow.tags)
    text = "".join((*lines, flow.description.translate({9: None, 10: None, 13: None})))
    return not text.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _flow_row(node_id: int, node_key: str, flow: FlowRecord) -> dict[str, Any]:
    fields = flow.model_dump(exclude_none=True) | {"inputs_schema_sha256": flow.inputs_schema_sha256.hex()}
    return {
        "node_id": node_id,
        "path": flow.path,
        "published": flow.published,
        "release": flow.release,
        "data": json.dumps(fields, ensure_ascii=False, separators=(",", ":")),
        "k_node": node_key,
        "k_name": fold(flow.name),
        "k_description": fold(flow.description),
        "k_author": fold(flow.author),
        "k_organization": fold(flow.organization),
        "k_tags": json.dumps([fold(tag) for tag in flow.tags], ensure_ascii=False),
    }


def _heartbeat(connection: sqlite3.Connection, heartbeat: Heartbeat, now: int, gap_ms: int) -> None:
    row = connection.execute(
        "SELECT seq, expires_at, beat_at, beat_seen_at, left_at FROM nodes WHERE peer_id = ?", (heartbeat.peer_id,)
    ).fetchone()
    if row is None:
        raise _no_such_node(heartbeat.peer_id)
    if row["left_at"] is not None:
        raise CallError(406, "left", "this node said goodbye; send `up` with a higher seq")
    if heartbeat.seq != row["seq"]:
        raise CallError(406, "other-seq", f"the record known here has seq {row['seq']}; send `up` again")
    if now >= row["expires_at"]:
        raise CallError(406, "record-expired", "the record has expired; send `up` again")
    if row["beat_at"] is not None and heartbeat.at <= row["beat_at"]:
        raise CallError(
            409, "not-rising", "a heartbeat with this `at`, or a later one, is known", {"at": row["beat_at"]}
        )
    # A clock that was set back must not lock a node out: an age below zero counts as long ago.
    if row["beat_seen_at"] is not None and 0 <= now - row["beat_seen_at"] < gap_ms:
        wait = -(-(gap_ms - (now - row["beat_seen_at"])) // 1000)
        raise CallError(429, "too-often", f"the next heartbeat is due in {wait} s", {"retry_after_s": wait})
    ping = json.dumps(heartbeat.ping.model_dump(exclude_none=True))
    connection.execute(
        "UPDATE nodes SET seen_at = ?, beat_at = ?, beat_seen_at = ?, ping = ? WHERE peer_id = ?",
        (now, heartbeat.at, now, ping, heartbeat.peer_id),
    )


def _goodbye(connection: sqlite3.Connection, goodbye: Goodbye, signed: bytes, now: int) -> bool:
    row = connection.execute("SELECT seq, left_seq FROM nodes WHERE peer_id = ?", (goodbye.peer_id,)).fetchone()
    if row is None:
        raise _no_such_node(goodbye.peer_id)
    if goodbye.seq < row["seq"]:
        raise CallError(409, "old-seq", f"seq {row['seq']} is known; this goodbye is older", {"seq": row["seq"]})
    if goodbye.seq <= row["left_seq"]:
        return False
    connection.execute(
        "UPDATE nodes SET left_at = ?, left_seq = ?, goodbye = ? WHERE peer_id = ?",
        (now, goodbye.seq, signed, goodbye.peer_id),
    )
    return True


def _remove(connection: sqlite3.Connection, peer_id: str) -> bool:
    """Delete a node, its flows and its names; say whether there was one."""
    row = connection.execute("SELECT id FROM nodes WHERE peer_id = ?", (peer_id,)).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM flows WHERE node_id = ?", (row["id"],))
    connection.execute("DELETE FROM nodes WHERE id = ?", (row["id"],))
    connection.execute("DELETE FROM names WHERE peer_id = ?", (peer_id,))
    return True


def _counts(connection: sqlite3.Connection, now: int) -> dict[str, int]:
    rows = connection.execute(
        f"SELECT {STATUS_SQL} AS online, count(*), sum(n.flows) FROM nodes n GROUP BY online", {"now": now}
    ).fetchall()
    nodes = {row[0]: row[1] for row in rows}
    return {
        "online": nodes.get(1, 0),
        "unknown": nodes.get(0, 0),
        "offline": nodes.get(None, 0),
        "flows": sum(row[2] for row in rows),
    }


def _no_such_node(peer_id: str) -> CallError:
    return CallError(404, "no-such-node", f"no node {peer_id[:64]} is known here")


def _no_room(path: str) -> dict[str, Any]:
    return {"path": path, "reason": "registry-full"}
