"""What one transaction of the event log may do. Runs in the store's writer thread only.

Several jobs share a transaction (group commit). A job either refuses before it has written anything, by raising a
`KodoError`, or it does all that it was asked. What the jobs change in the rows of runs is gathered in `_Head`s and
written once a transaction, however many jobs there were.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgpack

from kodo.node.store import share_rows
from kodo.node.store.rows import (
    KEY_REUSED,
    Created,
    KeyReusedError,
    NewEvent,
    NewRun,
    OnceKey,
    OutputRow,
    RunNotOverError,
    RunOverError,
    RunSharedError,
)
from kodo.p2p.errors import NotFoundError
from kodo.protocol.events import EVENTS, Event, Kind, is_whole
from kodo.protocol.run_state import Head, RunState, ends, reduce

__all__ = ["KEY_LIFE_MS", "Commit", "Downloaded", "Heads", "Transaction"]

KEY_LIFE_MS = 24 * 3600 * 1000
"""How long an idempotency key is remembered."""

T = TypeVar("T")

_MAX_HEADS = 4096
_MAX_CUT = 2000
"""Pages that one transaction gives back: others wait for it."""


class Commit(NamedTuple):
    """What followers are told about one run after a commit: its new events (≥ 1), their data packed, its state."""

    fid: str
    events: list[Event]
    packed: list[bytes]
    state: RunState


class Downloaded(NamedTuple):
    """A shared run that was downloaded whole by its share `sid`, for the `number`-th time."""

    fid: str
    sid: str
    number: int


@dataclass(slots=True)
class _Head:
    """The end of one run's log: all that the next event needs."""

    rid: int
    last_seq: int
    last_rseq: int
    modified: int
    killed: bool
    run: Head
    progress: bytes | None
    runtime_s: float | None
    acknowledged: int | None

    @property
    def state(self) -> RunState:
        return self.run.state

    def apply(self, new: NewEvent, at: int) -> None:
        self.run = reduce(self.run, new.event, new.data)
        match new.event:
            case "progress":
                if is_whole(new.data):
                    self.progress = new.packed
            case "final":
                runtime = new.data.get("runtime_s")
                self.runtime_s = float(runtime) if isinstance(runtime, int | float) else None
            case "kill":
                self.killed = True
            case "acknowledge":
                self.acknowledged = at


Heads = OrderedDict[str, _Head]
"""The heads that the writer keeps between transactions, least recently used first."""


class Transaction:
    """One transaction under way.

    Args:
        connection: the writer's, inside `BEGIN IMMEDIATE`.
        heads: kept heads; those touched are taken out, and put back by `keep` after the commit.
        now: ms UTC, the same for all that the transaction does.
    """

    def __init__(self, connection: sqlite3.Connection, heads: Heads, now: int):
        self.connection = self._connection = connection
        self.now = self._now = now
        self._heads = heads
        self._touched: dict[str, _Head] = {}
        self.commits: list[Commit] = []
        self.downloads: list[Downloaded] = []

    def create(self, run: NewRun, events: Sequence[NewEvent], key: OnceKey | None) -> Created:
        """Store a run with its first events, unless `key` says that it is there already.

        Raises:
            KeyReusedError: when the key came with other contents before.
        """
        if key is not None and (earlier := self._once(key)) is not None:
            return Created(earlier, False)
        cursor = self._connection.execute(
            "INSERT INTO runs (fid, principal, path, name, entry, resources, tags, state, locks, created, modified,"
            " payer, max_events, max_event_bytes, last_seq, last_rseq) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,0,0)",
            (
                run.fid,
                run.principal,
                run.path,
                run.name,
                run.entry,
                msgpack.packb(run.resources),
                msgpack.packb(list(run.tags)),
                RunState.PENDING.value,
                msgpack.packb([]),
                self._now,
                self._now,
                run.payer,
                run.max_events,
                run.max_event_bytes,
            ),
        )
        assert cursor.lastrowid is not None
        head = _Head(cursor.lastrowid, 0, 0, self._now, False, Head(), None, None, None)
        self._touched[run.fid] = head
        self._write(run.fid, head, events)
        return Created(run.fid, True)

    def append(
        self, fid: str, events: Sequence[NewEvent], outputs: Sequence[OutputRow], key: OnceKey | None
    ) -> list[Event] | str:
        """Store the events that are not stored yet; give them back, numbered. With a known `key`: its value, a str.

        A runner numbers its events in order, so what is not above the highest stored `rseq` is stored already.

        Raises:
            NotFoundError: when there is no such run.
            RunOverError: when the run is over and one of the events is not of kind `manage`, or a `kill`.
            KeyReusedError: when the key came with other contents before.
        """
        head = self._head(fid)
        fresh: list[NewEvent] = []
        last_rseq = head.last_rseq
        for new in events:
            if new.rseq is not None:
                if new.rseq <= last_rseq:
                    continue
                last_rseq = new.rseq
            fresh.append(new)
        if head.acknowledged is not None:
            fresh = [new for new in fresh if new.event != "acknowledge"]
        over = head.state.over
        for new in fresh:
            # A kill that comes a moment after the end has ended nothing, and must not be told as if it had.
            if over and (new.event == "kill" or EVENTS[new.event].kind is not Kind.MANAGE):
                raise RunOverError(fid, head.state if head.state.over else RunState.DONE)
            over = over or ends(new.event)
        if key is not None:
            earlier = self._once(key)
            if earlier is not None:
                return earlier
        for output in outputs:
            self._connection.execute(
                "INSERT INTO outputs (rid, name, size, sha256, media_type, chunks) VALUES (?,?,?,?,?,?)"
                " ON CONFLICT (rid, name) DO UPDATE SET size=excluded.size, sha256=excluded.sha256,"
                " media_type=excluded.media_type, chunks=excluded.chunks",
                (
                    head.rid,
                    output.name,
                    output.manifest.size,
                    output.manifest.sha256,
                    output.media_type,
                    b"".join(output.manifest.chunks),
                ),
            )
        return self._write(fid, head, fresh)

    def delete(self, fid: str, *, unless_shared: bool = False) -> None:
        """Remove a run that is over, its events, outputs and shares, and the idempotency keys that name it.

        Its followers are told by a `delete` event that is not stored.

        Raises:
            NotFoundError: when there is no such run.
            RunNotOverError: when it is pending or locked; nothing was removed.
            RunSharedError: with `unless_shared`, when it has a live share; nothing was removed.
        """
        head = self._head(fid)
        if not head.state.over:
            raise RunNotOverError(fid, head.state)
        if unless_shared and share_rows.is_shared(self._connection, head.rid, self._now):
            raise RunSharedError(f"the run {fid} is shared")
        del self._touched[fid]
        share_rows.bury_run(self._connection, head.rid, self._now)
        self._connection.execute("DELETE FROM runs WHERE rid=?", (head.rid,))
        self._connection.execute(
            "DELETE FROM keys WHERE value=? OR (key>=? AND key<?)", (fid, f"answer/{fid}/", f"answer/{fid}0")
        )
        event = Event(head.last_seq + 1, max(self._now, head.modified), EVENTS["delete"].kind.value, "delete", {})
        self.commits.append(Commit(fid, [event], [msgpack.packb({})], head.state))

    def forget_keys(self) -> None:
        """Remove the idempotency keys that are older than `KEY_LIFE_MS`."""
        self._connection.execute("DELETE FROM keys WHERE at <= ?", (self._now - KEY_LIFE_MS,))

    def shrink(self) -> int:
        """Cut free pages off the file, at most `_MAX_CUT`; give how many."""
        if not self._connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
            return 0  # made by an early kodo: the pages are used again, and stay
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        count: int = min(free, _MAX_CUT)
        for _ in range(count):
            # The pragma cuts one page a step, and a statement without columns is stepped once by Python.
            self._connection.execute("PRAGMA incremental_vacuum")
        return count

    def hand(self, fid: str) -> None:
        """Note that from now on an executor may have started the run."""
        self._connection.execute("UPDATE runs SET handed=1 WHERE fid=?", (fid,))

    def published(self, releases: Sequence[tuple[str, str]]) -> list[int]:
        """Return, for each (path, release), the ms UTC at which it was first asked for: now, for one never seen."""
        self._connection.executemany(
            "INSERT INTO published (path, release, at) VALUES (?,?,?) ON CONFLICT DO NOTHING",
            [(path, release, self._now) for path, release in releases],
        )
        return [
            self._connection.execute(
                "SELECT at FROM published WHERE path=? AND release=?", (path, release)
            ).fetchone()[0]
            for path, release in releases
        ]

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on tables that are not the log's; what it raises undoes it alone."""
        self._connection.execute("SAVEPOINT work")
        try:
            result = work(self._connection)
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO work")
                self._connection.execute("RELEASE work")
            raise
        self._connection.execute("RELEASE work")
        return result

    def count(self, name: str) -> int:
        """Return the next number of the counter `name`: above the last one, and no lower than now in ms."""
        row = self._connection.execute("SELECT value FROM counters WHERE name=?", (name,)).fetchone()
        value = max(self._now, row[0] + 1 if row else 0)
        self._connection.execute("INSERT OR REPLACE INTO counters (name, value) VALUES (?,?)", (name, value))
        return value

    def flush(self) -> None:
        """Write the rows of all runs that were touched; call once, before the commit."""
        self._connection.executemany(
            "UPDATE runs SET state=?, locks=?, progress=?, runtime_s=?, killed=?, modified=?, last_seq=?,"
            " last_rseq=?, acknowledged=?, payer=iif(?, '', payer) WHERE rid=?",
            [
                (
                    head.state.value,
                    msgpack.packb(sorted(head.run.locks)),
                    head.progress,
                    head.runtime_s,
                    head.killed,
                    head.modified,
                    head.last_seq,
                    head.last_rseq,
                    head.acknowledged,
                    head.state.over,
                    head.rid,
                )
                for head in self._touched.values()
            ],
        )

    def keep(self) -> None:
        """Keep the touched heads for the next transaction; call after the commit."""
        for fid, head in self._touched.items():
            if not head.state.over:
                self._heads[fid] = head
        while len(self._heads) > _MAX_HEADS:
            self._heads.popitem(last=False)

    def _head(self, fid: str) -> _Head:
        head = self._touched.get(fid) or self._heads.pop(fid, None)
        if head is None:
            row = self._connection.execute(
                "SELECT rid, last_seq, last_rseq, modified, killed, locks, state, progress, runtime_s, acknowledged"
                " FROM runs WHERE fid=?",
                (fid,),
            ).fetchone()
            if row is None:
                raise NotFoundError(f"there is no run {fid}")
            rid, seq, rseq, modified, killed, locks, state, progress, runtime_s, acknowledged = row
            head = _Head(
                rid,
                seq,
                rseq,
                modified,
                bool(killed),
                Head(state == RunState.DONE.value, state == RunState.ERROR.value, frozenset(msgpack.unpackb(locks))),
                progress,
                runtime_s,
                acknowledged,
            )
        self._touched[fid] = head
        return head

    def _write(self, fid: str, head: _Head, fresh: Sequence[NewEvent]) -> list[Event]:
        if not fresh:
            return []
        at = max(self._now, head.modified)
        seq = head.last_seq
        events: list[Event] = []
        rows: list[tuple[Any, ...]] = []
        for new in fresh:
            seq += 1
            events.append(Event(seq, at, EVENTS[new.event].kind.value, new.event, new.data))
            rows.append((head.rid, seq, at, new.event, new.rseq, new.packed))
            if new.rseq is not None:
                head.last_rseq = new.rseq
            head.apply(new, at)
        _insert(self._connection, rows)
        head.last_seq, head.modified = seq, at
        self.commits.append(Commit(fid, events, [new.packed for new in fresh], head.state))
        return events

    def _once(self, key: OnceKey) -> str | None:
        """Remember `key`; give the value that it was remembered with, if it was, within `KEY_LIFE_MS`."""
        earlier = self.earlier(key)
        if earlier is None:
            self._connection.execute(
                "INSERT INTO keys (principal, key, value, digest, at) VALUES (?,?,?,?,?)",
                (key.principal, key.key, key.value, key.digest, self._now),
            )
        return earlier

    def earlier(self, key: OnceKey) -> str | None:
        """Return the value that `key` was remembered with, if it was, within `KEY_LIFE_MS`.

        Raises:
            KeyReusedError: it came with other contents.
        """
        self.forget_keys()
        row = self._connection.execute(
            "SELECT value, digest FROM keys WHERE principal=? AND key=?", (key.principal, key.key)
        ).fetchone()
        if row is None:
            return None
        value, digest = row
        if digest != key.digest:
            raise KeyReusedError(KEY_REUSED)
        return str(value)


def _insert(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows of `events`, many a statement: Python lets its lock go, and waits for it again, once for each."""
    start = 0
    for many, statement in _INSERTS:
        while len(rows) - start >= many:
            connection.execute(statement, list(chain.from_iterable(rows[start : start + many])))
            start += many


_INSERTS = [
    (many, "INSERT INTO events (rid, seq, at, event, rseq, data) VALUES " + ",".join(["(?,?,?,?,?,?)"] * many))
    for many in (512, 64, 8, 1)
]
