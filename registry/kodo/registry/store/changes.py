"""What happens to the registry's data: each function is one change, made whole or not at all by who commits it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kodo.p2p.errors import CallError
from kodo.registry.query.glob import fold
from kodo.registry.reads.work import Work
from kodo.registry.records.record import FlowRecord, Goodbye, Heartbeat, NodeRecord
from kodo.registry.records.status import CHANGES_SQL, STATUS_SQL, UNKNOWN_AFTER_S
from kodo.registry.store.last_seqs import forget_seq, keep_seq, newest_past_seq
from kodo.registry.store.listing import add_flows, drop_flows, flow_row, known_flows, notes_of, sort_out

__all__ = [
    "EVICT_AFTER_S",
    "MAX_CLOCK_AHEAD_S",
    "Accepted",
    "Bounds",
    "counts",
    "goodbye",
    "heartbeat",
    "no_such_node",
    "put",
    "relist",
    "remove",
    "settle",
    "show_words",
    "signed_bytes",
]

MAX_CLOCK_AHEAD_S = 300
"""Seconds that a node's clock may be ahead of the registry's."""

EVICT_AFTER_S = 24 * 3600
"""Seconds of silence after which a node that is offline makes room in a registry that is full."""

_EVICT_AT_ONCE = 32
_SETTLE_S = 1
"""Seconds between two looks for nodes whose silence says something."""


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


def put(connection: sqlite3.Connection, bounds: Bounds, record: NodeRecord, signed: bytes, now: int) -> Accepted:
    """Take a record; see `Store.put`."""
    if record.issued_at > now + MAX_CLOCK_AHEAD_S * 1000:
        ahead = (record.issued_at - now) // 1000
        raise CallError(400, "clock-ahead", f"the record was issued {ahead} s in the future; set the node's clock")
    if now >= record.expires_at:
        raise CallError(400, "record-expired", "the record has expired already; issue a new one")
    listed, refused = sort_out(record)
    row = connection.execute("SELECT * FROM nodes WHERE peer_id = ?", (record.peer_id,)).fetchone()
    if row is not None:
        newest = max(row["seq"], row["left_seq"])
        if row["left_at"] is None and record.seq == row["seq"] and signed_bytes(connection, row["id"]) == signed:
            return _again(connection, row["id"], listed, refused)
        if record.seq <= newest:
            raise CallError(409, "old-seq", f"seq {newest} is known; send a higher one", {"seq": newest})
    if row is None:
        if record.seq <= (past := newest_past_seq(connection, record.peer_id, now)):
            raise CallError(409, "old-seq", f"seq {past} was known here; send a higher one", {"seq": past})
        _make_room(connection, bounds, now)
    _bind(connection, bounds, record)
    key = fold(record.name)
    columns = {
        "name": record.name,
        "k_name": key,
        "addrs": json.dumps(record.addrs),
        "seq": record.seq,
        "issued_at": record.issued_at,
        "expires_at": record.expires_at,
        "seen_at": now,
        "online": 1,
        "changes_at": min(now + UNKNOWN_AFTER_S * 1000, record.expires_at),
        "peer_id": record.peer_id,
    }
    if row is None:
        names = ", ".join(columns)
        marks = ", ".join(f":{name}" for name in columns)
        node_id = connection.execute(f"INSERT INTO nodes ({names}, flows) VALUES ({marks}, 0)", columns).lastrowid
        assert node_id is not None
        connection.execute("INSERT INTO records (node_id, signed) VALUES (?, ?)", (node_id, signed))
        connection.execute("UPDATE totals SET nodes = nodes + 1")
        forget_seq(connection, record.peer_id, now)
        words = notes_of(connection, record.peer_id).get("")
        if words is not None:
            show_words(connection, node_id, False, {}, words)
    else:
        node_id = row["id"]
        sets = ", ".join(f"{name} = :{name}" for name in columns)
        connection.execute(
            f"UPDATE nodes SET {sets}, beat_at = NULL, beat_seen_at = NULL, left_at = NULL WHERE peer_id = :peer_id",
            columns,
        )
        connection.execute("UPDATE records SET signed = ?, goodbye = NULL WHERE node_id = ?", (signed, node_id))
    old_key = key if row is None else row["k_name"]
    without = relist(connection, bounds, record.peer_id, node_id, old_key, key, listed, now)
    accepted = [flow.path for flow in listed if flow.path not in without]
    return Accepted(accepted, refused + [_no_room(flow.path) for flow in listed if flow.path in without])


def heartbeat(connection: sqlite3.Connection, beat: Heartbeat, now: int, gap_ms: int) -> None:
    """Note a heartbeat; see `Store.heartbeat`."""
    row = connection.execute(
        "SELECT id, seq, expires_at, beat_at, beat_seen_at, left_at, online FROM nodes WHERE peer_id = ?",
        (beat.peer_id,),
    ).fetchone()
    if row is None:
        raise no_such_node(beat.peer_id)
    if row["left_at"] is not None:
        raise CallError(406, "left", "this node said goodbye; send `up` with a higher seq")
    if beat.seq != row["seq"]:
        raise CallError(406, "other-seq", f"the record known here has seq {row['seq']}; send `up` again")
    if now >= row["expires_at"]:
        raise CallError(406, "record-expired", "the record has expired; send `up` again")
    if row["beat_at"] is not None and beat.at <= row["beat_at"]:
        raise CallError(409, "not-rising", "this heartbeat is not newer than the last one", {"at": row["beat_at"]})
    # A clock that was set back must not lock a node out: an age below zero counts as long ago.
    if row["beat_seen_at"] is not None and 0 <= now - row["beat_seen_at"] < gap_ms:
        wait = -(-(gap_ms - (now - row["beat_seen_at"])) // 1000)
        raise CallError(429, "too-often", f"the next heartbeat is due in {wait} s", {"retry_after_s": wait})
    ping = json.dumps(beat.ping.model_dump(exclude_none=True))
    changes_at = min(now + UNKNOWN_AFTER_S * 1000, row["expires_at"])
    # Its index is touched only when it changes.
    online = "" if row["online"] == 1 else ", online = 1"
    connection.execute(
        f"UPDATE nodes SET seen_at = ?, beat_at = ?, beat_seen_at = ?, ping = ?, changes_at = ?{online} WHERE id = ?",
        (now, beat.at, now, ping, changes_at, row["id"]),
    )


def goodbye(connection: sqlite3.Connection, said: Goodbye, signed: bytes, now: int) -> bool:
    """Note a goodbye; see `Store.goodbye`. Say whether it is new."""
    row = connection.execute("SELECT id, seq, left_seq FROM nodes WHERE peer_id = ?", (said.peer_id,)).fetchone()
    if row is None:
        raise no_such_node(said.peer_id)
    if said.seq < row["seq"]:
        raise CallError(409, "old-seq", f"seq {row['seq']} is known; this goodbye is older", {"seq": row["seq"]})
    if said.seq <= row["left_seq"]:
        return False
    connection.execute(
        "UPDATE nodes SET left_at = ?, left_seq = ?, online = NULL, changes_at = NULL WHERE id = ?",
        (now, said.seq, row["id"]),
    )
    connection.execute("UPDATE records SET goodbye = ? WHERE node_id = ?", (signed, row["id"]))
    return True


def show_words(
    connection: sqlite3.Connection, node_id: int, hidden: bool, said: Mapping[str, Any], words: Mapping[str, Any]
) -> bool:
    """Show an admin's words on a node in the place of its own; return whether it is hidden now.

    Args:
        connection: of the writer.
        node_id: of the node.
        hidden: whether it was hidden before.
        said: the words that were shown before.
        words: those to show.
    """
    hides = bool(words.get("hidden"))
    tags = json.dumps(words.get("tags", []), ensure_ascii=False)
    connection.execute(
        "UPDATE nodes SET tags = ?, description = ?, hidden = ? WHERE id = ?",
        (tags, words.get("description"), int(hides), node_id),
    )
    for name in ("availability", "performance"):
        # What a registry measured stays where an admin never said anything.
        if name in words or name in said:
            connection.execute(f"UPDATE nodes SET {name} = ? WHERE id = ?", (words.get(name), node_id))
    connection.execute("UPDATE totals SET hidden_nodes = hidden_nodes + ?", (hides - hidden,))
    return hides


def remove(connection: sqlite3.Connection, peer_id: str) -> bool:
    """Forget a node, its flows and its names; say whether there was one.

    What an admin said of it stays, for the node may come back. So does its `seq`: nothing older comes back, and
    nothing that it said goodbye to.
    """
    row = connection.execute("SELECT * FROM nodes WHERE peer_id = ?", (peer_id,)).fetchone()
    if row is None:
        return False
    flows = list(known_flows(connection, row["id"]).values())
    drop_flows(connection, row["k_name"], flows)
    connection.execute("DELETE FROM records WHERE node_id = ?", (row["id"],))
    connection.execute("DELETE FROM nodes WHERE id = ?", (row["id"],))
    connection.execute("DELETE FROM names WHERE peer_id = ?", (peer_id,))
    keep_seq(connection, peer_id, max(row["seq"] - 1, row["left_seq"]), row["issued_at"])
    _count(connection, nodes=-1, hidden_nodes=-row["hidden"], flows=-len(flows), hidden_flows=-_hidden(flows))
    return True


def settle(connection: sqlite3.Connection, now: int) -> int:
    """Judge the nodes whose silence has lasted; give when to look again, ms UTC."""
    connection.execute(
        f"UPDATE nodes AS n SET online = {STATUS_SQL}, changes_at = {CHANGES_SQL} WHERE changes_at <= :now",
        {"now": now},
    )
    (due,) = connection.execute("SELECT min(changes_at) FROM nodes WHERE changes_at IS NOT NULL").fetchone()
    return now + _SETTLE_S * 1000 if due is None else int(due)


def counts(work: Work) -> dict[str, int]:
    """Count nodes by state, and flows."""
    hidden = work.rows("SELECT hidden_nodes, flows - hidden_flows AS flows FROM totals", {})[0]
    where = " WHERE hidden = 0" if hidden["hidden_nodes"] else ""
    nodes = {row[0]: row[1] for row in work.rows(f"SELECT online, count(*) FROM nodes{where} GROUP BY online", {})}
    return {
        "online": nodes.get(1, 0),
        "unknown": nodes.get(0, 0),
        "offline": nodes.get(None, 0),
        "flows": hidden["flows"],
    }


def no_such_node(peer_id: str) -> CallError:
    """Make the refusal."""
    return CallError(404, "no-such-node", f"no node {peer_id[:64]} is known here")


def signed_bytes(connection: sqlite3.Connection, node_id: int) -> bytes:
    """Return the node's record as it came."""
    signed: bytes = connection.execute("SELECT signed FROM records WHERE node_id = ?", (node_id,)).fetchone()[0]
    return signed


def _bind(connection: sqlite3.Connection, bounds: Bounds, record: NodeRecord) -> None:
    """Bind the name to the first peer that uses it, until an admin takes it away."""
    key = fold(record.name)
    # Here and not only where nodes announce themselves: what the mesh brings may not take a reserved name either.
    listed = connection.execute("SELECT peer_id FROM admitted WHERE k_name = ?", (key,)).fetchone()
    if listed is not None and listed[0] not in (None, record.peer_id):
        raise CallError(403, "other-peer", f"{record.name} is registered here for another peer id")
    bound = connection.execute("SELECT peer_id FROM names WHERE k_name = ?", (key,)).fetchone()
    if bound is None:
        held = connection.execute("SELECT count(*) FROM names WHERE peer_id = ?", (record.peer_id,)).fetchone()[0]
        if held >= bounds.names:
            raise CallError(409, "too-many-names", f"{record.peer_id} has used {held} names here; use one of them")
        connection.execute("INSERT INTO names (k_name, peer_id) VALUES (?, ?)", (key, record.peer_id))
    elif bound[0] != record.peer_id:
        raise CallError(
            409, "name-taken", f"{record.name} belongs to {bound[0]} here; choose another", {"peer_id": bound[0]}
        )


def _make_room(connection: sqlite3.Connection, bounds: Bounds, now: int) -> None:
    """See that one more node can be kept."""
    (nodes,) = connection.execute("SELECT nodes FROM totals").fetchone()
    if nodes >= bounds.nodes and not (_evict(connection, now) or _evict_unproved(connection)):
        raise CallError(507, "registry-full", f"this registry keeps {bounds.nodes} nodes and is full")


def _evict_unproved(connection: sqlite3.Connection, besides: int = 0) -> bool:
    """Forget some of the nodes that were probed and never answered, and that no operator listed.

    Anybody can announce nodes that are not there, and beat for them. Say whether there were any.
    """
    rows = connection.execute(
        "SELECT peer_id FROM nodes WHERE availability = 0 AND id <> ?"
        " AND k_name NOT IN (SELECT k_name FROM admitted) ORDER BY seen_at"
        f" LIMIT {_EVICT_AT_ONCE}",
        (besides,),
    ).fetchall()
    return _forget(connection, rows)


def _evict(connection: sqlite3.Connection, now: int, besides: int = 0) -> bool:
    """Forget some of the nodes that have been silent longest; say whether there were any."""
    rows = connection.execute(
        f"SELECT peer_id FROM nodes WHERE seen_at <= ? AND id <> ? ORDER BY seen_at LIMIT {_EVICT_AT_ONCE}",
        (now - EVICT_AFTER_S * 1000, besides),
    ).fetchall()
    return _forget(connection, rows)


def _forget(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> bool:
    for row in rows:
        remove(connection, row["peer_id"])
        connection.execute("DELETE FROM changes WHERE peer_id = ?", (row["peer_id"],))
    return bool(rows)


def relist(
    connection: sqlite3.Connection,
    bounds: Bounds | None,
    peer_id: str,
    node_id: int,
    old_key: str,
    key: str,
    listed: list[FlowRecord],
    now: int,
) -> set[str]:
    """Make the node's flows those `listed`, as far as there is room; give the paths that had none.

    What did not change is not touched, for indexing is what costs.
    """
    known = known_flows(connection, node_id)
    notes = notes_of(connection, peer_id)
    hidden = bool(notes.get("", {}).get("hidden"))
    fresh: list[dict[str, Any]] = []
    stale = dict(known)
    for flow in listed:
        row = flow_row(node_id, flow, notes.get(flow.path, {}), hidden=hidden)
        before = known.get(flow.path)
        if before is not None and old_key == key and {**row, "id": before["id"]} == before:
            del stale[flow.path]
        else:
            fresh.append(row)
    drop_flows(connection, old_key, stale.values())
    _count(connection, flows=-len(stale), hidden_flows=-_hidden(stale.values()))
    left_out: set[str] = set()
    if bounds is not None:
        room = _room(connection, bounds)
        while room < len(fresh) and (
            _evict(connection, now, besides=node_id) or _evict_unproved(connection, besides=node_id)
        ):
            room = _room(connection, bounds)
        left_out = {row["path"] for row in fresh[max(room, 0) :]}
        fresh = fresh[: max(room, 0)]
    add_flows(connection, key, fresh)
    _count(connection, flows=len(fresh), hidden_flows=_hidden(fresh))
    connection.execute("UPDATE nodes SET flows = ? WHERE id = ?", (len(known) - len(stale) + len(fresh), node_id))
    return left_out


def _room(connection: sqlite3.Connection, bounds: Bounds) -> int:
    (flows,) = connection.execute("SELECT flows FROM totals").fetchone()
    return bounds.flows - int(flows)


def _again(
    connection: sqlite3.Connection, node_id: int, listed: list[FlowRecord], refused: list[dict[str, Any]]
) -> Accepted:
    known = {row[0] for row in connection.execute("SELECT path FROM flows WHERE node_id = ?", (node_id,))}
    accepted = [flow.path for flow in listed if flow.path in known]
    return Accepted(accepted, refused + [_no_room(flow.path) for flow in listed if flow.path not in known])


def _count(connection: sqlite3.Connection, **more: int) -> None:
    changed = {name: value for name, value in more.items() if value}
    if changed:
        sets = ", ".join(f"{name} = {name} + :{name}" for name in changed)
        connection.execute(f"UPDATE totals SET {sets}", changed)


def _hidden(rows: Iterable[Mapping[str, Any]]) -> int:
    return sum(row["hidden"] for row in rows)


def _no_room(path: str) -> dict[str, Any]:
    return {"path": path, "reason": "registry-full"}
