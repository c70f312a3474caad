"""What the store keeps for the mesh: each node's latest change, its way here, and cursors into other registries.

One row a node: its record, goodbye or tombstone is the latest thing to tell of it, so the number of changes is
bounded by that of nodes, and a reader that was away for long reads each node once. Changes count up within an
`epoch`, a random name of this file. Origin and member are '' where the node told this registry itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from kodo.p2p.errors import CallError, PeerError
from kodo.registry.records.mesh import MAX_BATCH_BYTES, MAX_HOPS, MAX_ITEMS, TOMBSTONE_S, Item, Tombstone
from kodo.registry.records.record import (
    Goodbye,
    Heartbeat,
    NodeRecord,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from kodo.registry.records.signed import verify
from kodo.registry.records.status import OFFLINE_AFTER_S, UNKNOWN_AFTER_S
from kodo.registry.store.last_seqs import keep_unknown_seq, newest_past_seq
from kodo.registry.store.mesh_changes import note

__all__ = [
    "SILENT_S",
    "Bell",
    "Checked",
    "Cursor",
    "Merged",
    "MeshStore",
    "News",
    "Page",
    "check_item",
]

SILENT_S = UNKNOWN_AFTER_S + OFFLINE_AFTER_S
"""Seconds of silence after which a node that spoke to this registry may be told of by others as theirs."""

_SKEW_S = 300
_TOMBSTONES = 100_000

_Result = TypeVar("_Result")


class _Transact(Protocol):
    def __call__(self, work: Callable[[sqlite3.Connection], _Result]) -> Awaitable[_Result]: ...


class Bell:
    """Wakes whoever waits for a change. One event loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait or listen now."""
        self._rung.set()
        self._rung = asyncio.Event()

    def listen(self) -> News:
        """Begin to listen: what rings from now on is heard by waiting later."""
        return News(self._rung)


@dataclass(frozen=True, slots=True)
class News:
    """The next ring after `Bell.listen`."""

    _rung: asyncio.Event

    async def wait(self, seconds: float) -> None:
        """Wait for it, `seconds` at most; not at all when it has been. Cancelling is safe."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where dealings with another registry go on. `peer_id` is whom they are with; when feeding, which file."""

    peer_id: str
    epoch: bytes
    next: int


@dataclass(frozen=True, slots=True)
class Page:
    """Items since a cursor, and the cursor to go on with."""

    epoch: bytes
    since: int
    next: int
    more: bool
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """An item whose signatures hold."""

    item: Item
    record: NodeRecord | None = None
    beat: Heartbeat | None = None
    goodbye: Goodbye | None = None
    tombstone: Tombstone | None = None

    @property
    def node(self) -> str:
        """Peer id of the node that it is about."""
        about = self.record or self.goodbye
        if about is not None:
            return about.peer_id
        assert self.tombstone is not None
        return self.tombstone.node


@dataclass(slots=True)
class Merged:
    """What became of items, by number."""

    taken: int = 0
    known: int = 0
    stale: int = 0
    refused: int = 0
    nodes: list[str] = field(default_factory=list)


def check_item(item: Item) -> Checked:
    """Verify what an item holds.

    Raises:
        PeerError: a form or a signature is wrong, or the parts are not about one node.
    """
    record = None if item.record is None else verify_record(item.record)
    beat = None if item.beat is None else verify_heartbeat(item.beat)
    if record is not None and beat is not None and (beat.peer_id, beat.seq) != (record.peer_id, record.seq):
        raise PeerError("the heartbeat is about another record")
    goodbye = None if item.goodbye is None else verify_goodbye(item.goodbye)
    if record is not None and goodbye is not None and goodbye.peer_id != record.peer_id:
        raise PeerError("the goodbye is another node's")
    tombstone = None if item.tombstone is None else verify(Tombstone, item.tombstone)
    if tombstone is not None and tombstone.peer_id != item.origin:
        raise PeerError("a tombstone is signed by the origin of what it removes")
    return Checked(item, record, beat, goodbye, tombstone)


class MeshStore:
    """The mesh's side of a store. Cancelling a call is safe.

    Args:
        write: runs work in a transaction that is durable when it ends.
        read: runs work in one snapshot.
        put: takes a record as if a node had sent it; raises `CallError`.
        goodbye: takes a goodbye likewise.
        remove: deletes a node, its flows and its names.
    """

    def __init__(
        self,
        write: _Transact,
        read: _Transact,
        put: Callable[[sqlite3.Connection, NodeRecord, bytes, int], object],
        goodbye: Callable[[sqlite3.Connection, Goodbye, bytes, int], object],
        remove: Callable[[sqlite3.Connection, str], bool],
    ) -> None:
        self._write = write
        self._read = read
        self._put = put
        self._goodbye = goodbye
        self._remove = remove
        self.bell = Bell()

    async def page(self, own: str, since: int, epoch: bytes | None, now: int, *, own_only: bool = False) -> Page:
        """Return what changed after `since`; all there is when `epoch` is another file's.

        Args:
            own: peer id of this registry.
            own_only: leave out what other registries told.
        """
        return await self._read(lambda connection: _page(connection, own, since, epoch, now, own_only))

    async def merge(
        self,
        checked: Sequence[Checked],
        member: str,
        own: str,
        now: int,
        *,
        most_nodes: int,
        cursor: tuple[str, Cursor] | None = None,
    ) -> Merged:
        """Take what is new of `checked`, brought by `member`, and the cursor with it, in one transaction."""

        def work(connection: sqlite3.Connection) -> Merged:
            merged = Merged()
            (held,) = connection.execute(
                "SELECT count(*) FROM changes WHERE member = ? AND tombstone IS NULL", (member,)
            ).fetchone()
            laid = _Laid(connection, member, now) if any(each.tombstone is not None for each in checked) else None
            for each in checked:
                if each.item.origin == own:
                    merged.known += 1
                    continue
                connection.execute("SAVEPOINT item")
                try:
                    fresh, outcome = self._merge(
                        connection, each, member, own, now, room=held < most_nodes, laid=laid
                    )
                except CallError:
                    connection.execute("ROLLBACK TO item")
                    fresh, outcome = False, "refused"
                connection.execute("RELEASE item")
                held += fresh
                setattr(merged, outcome, getattr(merged, outcome) + 1)
                if outcome == "taken":
                    merged.nodes.append(each.node)
            if cursor is not None:
                url, at = cursor
                connection.execute(
                    "INSERT OR REPLACE INTO mesh_cursors (url, peer_id, epoch, next) VALUES (?, ?, ?, ?)",
                    (url, at.peer_id, at.epoch, at.next),
                )
            return merged

        merged = await self._write(work)
        if merged.taken:
            self.bell.ring()
        return merged

    async def cursor(self, url: str) -> Cursor | None:
        """Return the cursor into the registry at `url`; None when it was never read."""
        row = await self._read(
            lambda connection: connection.execute(
                "SELECT peer_id, epoch, next FROM mesh_cursors WHERE url = ?", (url,)
            ).fetchone()
        )
        return None if row is None else Cursor(row["peer_id"], row["epoch"], row["next"])

    async def set_cursor(self, url: str, cursor: Cursor) -> None:
        """Remember the cursor."""
        await self.merge((), "", "", 0, most_nodes=0, cursor=(url, cursor))

    async def forget_cursors(self, kept: Set[str]) -> None:
        """Forget all cursors but those of the URLs `kept`, and with them who those registries were."""

        def work(connection: sqlite3.Connection) -> None:
            for (url,) in connection.execute("SELECT url FROM mesh_cursors").fetchall():
                if url not in kept:
                    connection.execute("DELETE FROM mesh_cursors WHERE url = ?", (url,))

        await self._write(work)

    async def bury(self, signed: bytes, tombstone: Tombstone, now: int) -> bool:
        """Remove a node of this registry's own and tell the mesh; say whether there was one."""

        def work(connection: sqlite3.Connection) -> bool:
            if not self._remove(connection, tombstone.node):
                return False
            _forget_old(connection, now)
            _lay(connection, tombstone, signed, member="", hops=0)
            return True

        buried = await self._write(work)
        if buried:
            self.bell.ring()
        return buried

    def _merge(
        self,
        connection: sqlite3.Connection,
        each: Checked,
        member: str,
        own: str,
        now: int,
        *,
        room: bool,
        laid: _Laid | None,
    ) -> tuple[bool, str]:
        """Return whether a node came that was not there, and the name of the outcome."""
        node = connection.execute(
            "SELECT n.seq, n.left_seq, n.left_at, n.beat_at, n.expires_at, r.signed FROM nodes n "
            "JOIN records r ON r.node_id = n.id WHERE n.peer_id = ?",
            (each.node,),
        ).fetchone()
        change = connection.execute("SELECT * FROM changes WHERE peer_id = ?", (each.node,)).fetchone()
        if each.tombstone is not None:
            assert laid is not None
            return False, self._merge_tombstone(connection, each, node, change, member, own, now, laid)
        fresh, outcome = False, "known"
        if each.record is not None:
            fresh, outcome = self._merge_record(connection, each, node, change, member, own, now, room=room)
        if each.goodbye is not None and self._merge_goodbye(connection, each, member, now):
            outcome = "taken"
        return fresh, outcome

    def _merge_goodbye(self, connection: sqlite3.Connection, each: Checked, member: str, now: int) -> bool:
        """Take a goodbye that is new; say whether it was of a node that is known, and changed it."""
        node = connection.execute("SELECT seq, left_seq FROM nodes WHERE peer_id = ?", (each.node,)).fetchone()
        goodbye, signed = each.goodbye, each.item.goodbye
        assert goodbye is not None
        assert signed is not None
        if node is None:
            # Its record may come later, by another way: from who has not heard yet that it left.
            keep_unknown_seq(connection, goodbye.peer_id, goodbye.seq, now)
            return False
        if goodbye.seq <= node["left_seq"] or goodbye.seq < node["seq"]:
            return False
        self._goodbye(connection, goodbye, signed, now)
        change = connection.execute("SELECT * FROM changes WHERE peer_id = ?", (each.node,)).fetchone()
        way = _way(each, change, member, now, newer=False)
        # It has left: whoever tells of it next may do so as its origin.
        note(connection, each.node, **way._replace(heard_at=None)._asdict())
        return True

    def _merge_record(
        self,
        connection: sqlite3.Connection,
        each: Checked,
        node: sqlite3.Row | None,
        change: sqlite3.Row | None,
        member: str,
        own: str,
        now: int,
        *,
        room: bool,
    ) -> tuple[bool, str]:
        record, signed = each.record, each.item.record
        assert record is not None
        assert signed is not None
        if now >= record.expires_at:
            # Within the skew of two clocks nobody is to blame.
            return False, "stale" if now >= record.expires_at + _SKEW_S * 1000 else "refused"
        if _buried(change, each.item.origin, own, record.seq):
            return False, "known"
        if node is None and record.seq <= newest_past_seq(connection, each.node, now):
            return False, "known"
        newer = node is None or record.seq > max(node["seq"], node["left_seq"])
        if newer:
            if node is None and not room:
                return False, "refused"
            self._put(connection, record, signed, now)
            # What was said long ago does not prove life now.
            connection.execute(
                "UPDATE nodes SET seen_at = ?, changes_at = 0 WHERE peer_id = ?",
                (min(record.issued_at, now), each.node),
            )
        elif node is not None and (record.seq < node["seq"] or node["left_at"] is not None):
            return False, "known"
        elif node is not None and node["signed"] != signed:
            return False, "refused"
        alive = self._beat(connection, each, now)
        if not newer and not alive:
            return False, "known"
        way = _way(each, change, member, now, newer=newer)
        note(
            connection,
            each.node,
            beat=each.item.beat,
            beat_at=None if each.item.beat is None else now,
            **way._asdict(),
        )
        return node is None, "taken"

    def _beat(self, connection: sqlite3.Connection, each: Checked, now: int) -> bool:
        """Note the heartbeat beside a record; say whether it said something new."""
        beat = each.beat
        if beat is None or beat.at > now + _SKEW_S * 1000:
            return False
        changed = connection.execute(
            "UPDATE nodes SET seen_at = max(seen_at, ?), beat_at = ?, ping = ?, changes_at = 0 "
            "WHERE peer_id = ? AND seq = ? AND (beat_at IS NULL OR beat_at < ?)",
            (min(beat.at, now), beat.at, beat.ping.model_dump_json(exclude_none=True), each.node, beat.seq, beat.at),
        )
        return changed.rowcount > 0

    def _merge_tombstone(
        self,
        connection: sqlite3.Connection,
        each: Checked,
        node: sqlite3.Row | None,
        change: sqlite3.Row | None,
        member: str,
        own: str,
        now: int,
        laid: _Laid,
    ) -> str:
        tombstone, signed = each.tombstone, each.item.tombstone
        assert tombstone is not None
        assert signed is not None
        if now >= tombstone.at + TOMBSTONE_S * 1000:
            return "stale"
        if tombstone.at > now + _SKEW_S * 1000:
            return "refused"
        if change is not None and change["tombstone"] is not None:
            if (change["tombstone_seq"], change["tombstone_at"]) >= (tombstone.seq, tombstone.at):
                return "known"
            if change["origin"] == own:
                # What was decided here no other registry replaces.
                return "known"
        elif node is not None:
            if change is None or change["record_origin"] != tombstone.peer_id or node["seq"] > tombstone.seq:
                return "known"
            self._remove(connection, each.node)
        if not laid.room():
            return "refused"
        _lay(connection, tombstone, signed, member=member, hops=each.item.hops)
        return "taken"


class _Laid:
    """How many tombstones there are, in all and of one member; counted once for a batch, for counting reads all."""

    def __init__(self, connection: sqlite3.Connection, member: str, now: int) -> None:
        _forget_old(connection, now)
        self._all, self._of_member = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE member = ?) FROM changes WHERE tombstone IS NOT NULL", (member,)
        ).fetchone()

    def room(self) -> bool:
        """Count one more, if there is room; no member may take all of it."""
        if self._all >= _TOMBSTONES or self._of_member >= _TOMBSTONES // 4:
            return False
        self._all += 1
        self._of_member += 1
        return True


class _Way(NamedTuple):
    """How a node came here, as `note` takes it."""

    origin: str
    member: str
    hops: int
    heard_at: int | None
    record_origin: str


def _way(each: Checked, change: sqlite3.Row | None, member: str, now: int, *, newer: bool) -> _Way:
    """Return how a node comes here of which `member` tells something new; `newer` when that is a record.

    A node that speaks to this registry came by nobody else, until it has been silent: else a member that passes on
    its heartbeat could take it away. One that others told of came by who told its record, whoever tells more of it.
    """
    if change is None or change["tombstone"] is not None:
        return _Way(each.item.origin, member, each.item.hops, None, each.item.origin)
    if change["origin"] == "":
        heard = change["heard_at"]
        if heard is not None and now - heard < SILENT_S * 1000:
            return _Way("", "", 0, heard, "")
        newer = True
    # The origin is told on as it came: who is named there takes back nothing that it told itself.
    by, record_origin = (member, each.item.origin) if newer else (change["member"], change["record_origin"])
    return _Way(each.item.origin, by, each.item.hops, None, record_origin)


def _buried(change: sqlite3.Row | None, origin: str, own: str, seq: int) -> bool:
    if change is None or change["tombstone"] is None:
        return False
    # Origins are the bringer's word: a removal that was decided here holds whoever is named.
    return bool(change["origin"] in (origin, own) and seq <= change["tombstone_seq"])


def _lay(connection: sqlite3.Connection, tombstone: Tombstone, signed: bytes, *, member: str, hops: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO changes (peer_id, origin, member, hops, tombstone, tombstone_seq, tombstone_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (tombstone.node, tombstone.peer_id, member, hops, signed, tombstone.seq, tombstone.at),
    )


def _forget_old(connection: sqlite3.Connection, now: int) -> None:
    connection.execute(
        "DELETE FROM changes WHERE tombstone IS NOT NULL AND tombstone_at < ?", (now - TOMBSTONE_S * 1000,)
    )


def _page(
    connection: sqlite3.Connection, own: str, since: int, epoch: bytes | None, now: int, own_only: bool
) -> Page:
    (mine,) = connection.execute("SELECT epoch FROM mesh_self").fetchone()
    since = since if epoch == mine else 0
    rows = connection.execute(
        "SELECT c.*, r.signed, r.goodbye, n.left_at, n.expires_at, n.hidden "
        "FROM changes c LEFT JOIN nodes n USING (peer_id) LEFT JOIN records r ON r.node_id = n.id "
        f"WHERE c.change > ? {'AND c.member = ?' if own_only else 'AND ? IS NOT NULL'} ORDER BY c.change LIMIT ?",
        (since, "", MAX_ITEMS + 1),
    )
    items: list[Item] = []
    size, after, more = 0, since, False
    for read, row in enumerate(rows):
        if read == MAX_ITEMS or size >= MAX_BATCH_BYTES:
            more = True
            break
        after = row["change"]
        told = _told(row, now)
        if told is not None and row["hops"] < MAX_HOPS:
            items.append(Item(origin=row["origin"] or own, hops=row["hops"] + 1, **told))
            size += items[-1].size
    return Page(mine, since, after, more, tuple(items))


def _told(row: sqlite3.Row, now: int) -> dict[str, Any] | None:
    if row["tombstone"] is not None:
        return {"tombstone": row["tombstone"]} if now < row["tombstone_at"] + TOMBSTONE_S * 1000 else None
    if row["signed"] is None or row["hidden"]:
        return None
    record = {"record": row["signed"]} if now < row["expires_at"] else {}
    if row["left_at"] is not None:
        return {**record, "goodbye": row["goodbye"]}
    return {**record, "beat": row["beat"]} if record else None
