"""Questions to the node's database. Run in reader threads; each is one short read, so checkpoints are not held up."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgpack

from kodo.node.store import share_rows
from kodo.node.store.rows import OnceKey, OutputRow, RunRow, SearchTooLongError
from kodo.protocol.event_budget import UNCOUNTED
from kodo.protocol.events import EVENTS, MAX_LISTED, Event, RunState, RunView
from kodo.protocol.manifest import Manifest

__all__ = [
    "Page",
    "RunFilter",
    "events",
    "fatal_types",
    "has_traces",
    "inputs",
    "largest",
    "obsolete",
    "old_keys",
    "once",
    "output",
    "outputs",
    "packed_events",
    "run",
    "runs",
    "said",
    "unfinished",
    "unread",
    "view",
]

_ANSWER_BYTES = 4 << 20
_ROW = (
    "fid, principal, path, name, entry, resources, tags, state, progress, runtime_s, handed, killed,"
    " created, modified, last_seq, last_rseq, acknowledged, payer,"
    " max_events, max_event_bytes"
)
_SILENT = ("result", "result-error", "action", "action-error", "log", "stdout", "stderr", "progress")
"""Events that change nothing in a `RunView` but what the run's row holds too."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs: those of `principal`; in `state`, of the flow at `path`, made from `since` on, before `until` (ms).

    With `others` everybody's runs too of the flows whose path passes it. `shared`: fids of others' runs besides.
    `flow`, `tag` and `search` are those of `RunMatch`. `queued`: the fids of the runs that wait for their turn; then
    the states `queued` and `running` are known, too.
    """

    principal: str
    state: str | None = None
    path: str | None = None
    since: int | None = None
    until: int | None = None
    flow: str | None = None
    tag: str | None = None
    search: str | None = None
    queued: frozenset[str] = frozenset()
    others: Callable[[str], bool] | None = None
    shared: tuple[str, ...] = ()


class Page(NamedTuple):
    """`total`: the runs that may be seen; `filtered`: those that match; `rows`: one page of them."""

    total: int
    filtered: int
    rows: list[RunRow]


def _row(values: tuple[Any, ...]) -> RunRow:
    (fid, principal, path, name, entry, resources, tags, state, progress, runtime, handed, killed, *times) = values
    created, modified, last_seq, last_rseq, acknowledged, payer, max_events, max_event_bytes = times
    return RunRow(
        fid=fid,
        principal=principal,
        path=path,
        name=name,
        entry=entry,
        resources=msgpack.unpackb(resources, strict_map_key=False),
        tags=tuple(msgpack.unpackb(tags)),
        state=RunState(state),
        progress=None if progress is None else msgpack.unpackb(progress, strict_map_key=False),
        runtime_s=runtime,
        handed=bool(handed),
        killed=bool(killed),
        created=created,
        modified=modified,
        last_seq=last_seq,
        last_rseq=last_rseq,
        acknowledged=acknowledged,
        payer=payer,
        max_events=max_events,
        max_event_bytes=max_event_bytes,
    )


def said(connection: sqlite3.Connection, fid: str) -> tuple[int, int]:
    """Count the events of a run's runner that count against its budget, and their bytes."""
    marks = ",".join("?" * len(UNCOUNTED))
    row = connection.execute(
        "SELECT count(*), coalesce(sum(length(data)), 0) FROM events JOIN runs USING (rid)"
        f" WHERE fid=? AND rseq IS NOT NULL AND event NOT IN ({marks})",
        (fid, *sorted(UNCOUNTED)),
    ).fetchone()
    return int(row[0]), int(row[1])


def run(connection: sqlite3.Connection, fid: str) -> RunRow | None:
    """Return one run."""
    values = connection.execute(f"SELECT {_ROW} FROM runs WHERE fid=?", (fid,)).fetchone()
    return None if values is None else _row(values)


def runs(connection: sqlite3.Connection, chosen: RunFilter, p: int, pp: int) -> Page:
    """Return a page of runs, the latest first."""
    mine, args = "principal=?", [chosen.principal]
    if chosen.others is not None:
        paths = [path for (path,) in connection.execute("SELECT DISTINCT path FROM runs") if chosen.others(path)]
        mine, args = f"(principal=? OR path IN ({','.join('?' * len(paths))}))", [*args, *paths]
    if chosen.shared:
        mine, args = f"({mine} OR fid IN ({','.join('?' * len(chosen.shared))}))", [*args, *chosen.shared]
    where = [mine]
    bound: list[Any] = list(args)
    state = RunState.PENDING.value if chosen.state in ("queued", "running") else chosen.state
    columns = (
        ("state=?", state),
        ("path=?", chosen.path),
        ("created>=?", chosen.since),
        ("created<?", chosen.until),
        ("kodo_fits(?, path, name)", chosen.flow),
        ("principal=? AND kodo_tagged(?, tags)", chosen.tag),
        (
            f"(kodo_holds(?, path, name, fid) OR principal=? AND (kodo_holds(?, tags) OR {_INPUTS_HOLD}))",
            chosen.search,
        ),
    )
    for column, value in columns:
        if value is not None:
            where.append(column)
            bound.extend(chosen.principal if asked == "principal=?" else value for asked in _PLACES.findall(column))
    if state != chosen.state:
        where.append("kodo_queued(fid)" if chosen.state == "queued" else "NOT kodo_queued(fid)")
    search = _Search(chosen.search or "")
    _add_functions(connection, chosen, search)
    condition = " AND ".join(where)
    total = connection.execute(f"SELECT count(*) FROM runs WHERE {mine}", args).fetchone()[0]
    filtered = (
        total
        if len(where) == 1
        else connection.execute(f"SELECT count(*) FROM runs WHERE {condition}", bound).fetchone()[0]
    )
    rows = connection.execute(
        f"SELECT {_ROW} FROM runs WHERE {condition} ORDER BY rid DESC LIMIT ? OFFSET ?", [*bound, pp, (p - 1) * pp]
    )
    found = [_row(values) for values in rows]
    if search.is_over:
        raise SearchTooLongError(SEARCH_SECONDS)
    return Page(total, filtered, found)


SEARCH_SECONDS = 0.5
"""Seconds of work that one search in texts may take; who has so many runs narrows it."""
_SEARCHED_BYTES = 64 << 10
"""Of the inputs of a run so many are looked into."""


class _Search:
    """Looks for a text in what one query reads, for `SEARCH_SECONDS` of work; then it finds nothing more."""

    def __init__(self, text: str):
        self._text = text.casefold()
        self._until = time.thread_time() + SEARCH_SECONDS
        self.is_over = False

    def holds(self, *values: str | bytes) -> bool:
        """Return whether one of these has the text, whatever the case of letters."""
        self.is_over = self.is_over or time.thread_time() > self._until
        return not self.is_over and any(self._text in _text_of(each).casefold() for each in values)


_FIRST = 64
"""Among how many first events of a run its inputs are: it begins with them, or with the question for them."""

_INPUTS_HOLD = (
    f"EXISTS (SELECT 1 FROM events WHERE events.rid=runs.rid AND seq<={_FIRST} AND event='inputs'"
    f" AND kodo_holds(?, substr(data, 1, {_SEARCHED_BYTES})))"
)
_PLACES = re.compile(r"principal=\?|\?")


def _add_functions(connection: sqlite3.Connection, chosen: RunFilter, search: _Search) -> None:
    """Add to a connection what SQL cannot say of names, tags and inputs; text is compared without its case."""

    def add(name: str, test: Callable[..., bool]) -> None:
        connection.create_function(name, -1, test, deterministic=True)

    add("kodo_fits", lambda glob, *names: any(fnmatchcase(name.casefold(), glob.casefold()) for name in names))
    add("kodo_tagged", lambda tag, tags: tag.casefold() in (each.casefold() for each in msgpack.unpackb(tags)))
    add("kodo_holds", lambda text, *values: search.holds(*values))
    add("kodo_queued", lambda fid: fid in chosen.queued)


def _text_of(value: str | bytes) -> str:
    """Return what a text, or data as msgpack, says; of data that was cut, the texts in it."""
    if isinstance(value, str):
        return value
    if len(value) >= _SEARCHED_BYTES:
        return value.decode("utf-8", "replace")
    return json.dumps(msgpack.unpackb(value, strict_map_key=False), ensure_ascii=False, default=str)


def inputs(connection: sqlite3.Connection, fids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the inputs of these runs, by fid."""
    found: dict[str, dict[str, Any]] = {}
    for fid in fids:
        row = connection.execute(
            "SELECT data FROM events WHERE rid=(SELECT rid FROM runs WHERE fid=?) AND seq<=? AND event='inputs'"
            " ORDER BY seq DESC LIMIT 1",
            (fid, _FIRST),
        ).fetchone()
        if row is not None:
            found[fid] = msgpack.unpackb(row[0], strict_map_key=False)
    return found


def fatal_types(connection: sqlite3.Connection, fids: Sequence[str]) -> dict[str, str]:
    """Return, by fid, the type of the error that ended each of these runs; those without one are left out."""
    found: dict[str, str] = {}
    for fid in fids:
        # From the end of the log: only `manage` events come after it.
        row = connection.execute(
            "SELECT data FROM events WHERE rid=(SELECT rid FROM runs WHERE fid=?) AND event='fatal'"
            " ORDER BY seq DESC LIMIT 1",
            (fid,),
        ).fetchone()
        if row is not None:
            found[fid] = str(msgpack.unpackb(row[0], strict_map_key=False).get("type", ""))
    return found


def unfinished(connection: sqlite3.Connection) -> list[RunRow]:
    """Return all runs that are pending or locked, the oldest first."""
    rows = connection.execute(f"SELECT {_ROW} FROM runs WHERE state IN ('pending', 'locked') ORDER BY rid")
    return [_row(values) for values in rows]


def _event(seq: int, at: int, event: str, data: bytes) -> Event:
    return Event(seq, at, EVENTS[event].kind.value, event, msgpack.unpackb(data, strict_map_key=False))


def events(
    connection: sqlite3.Connection, fid: str, after: int, limit: int, only: Sequence[str] | None
) -> list[Event]:
    """Return up to `limit` events, about 4 MiB at most, with `seq` > `after`, in order."""
    return packed_events(connection, fid, after, limit, only)[0]


def packed_events(
    connection: sqlite3.Connection, fid: str, after: int, limit: int, only: Sequence[str] | None = None
) -> tuple[list[Event], list[bytes]]:
    """Return what `events` gives, and the data of each as msgpack."""
    condition, bound = "", [fid, after]
    if only is not None:
        condition = f" AND event IN ({','.join('?' * len(only))})"
        bound.extend(only)
    rows = connection.execute(
        "SELECT seq, at, event, data FROM events WHERE rid=(SELECT rid FROM runs WHERE fid=?) AND seq>?"
        f"{condition} ORDER BY seq LIMIT ?",
        [*bound, limit],
    )
    found: list[Event] = []
    packed: list[bytes] = []
    size = 0
    for seq, at, event, data in rows:
        found.append(_event(seq, at, event, data))
        packed.append(data)
        size += len(data)
        if size >= _ANSWER_BYTES:
            break
    rows.close()
    return found, packed


def view(connection: sqlite3.Connection, fid: str) -> RunView | None:
    """Return what a run's events add up to."""
    row = run(connection, fid)
    if row is None:
        return None
    result = RunView()
    marks = ",".join("?" * len(_SILENT))
    for seq, at, event, data in connection.execute(
        "SELECT seq, at, event, data FROM events WHERE rid=(SELECT rid FROM runs WHERE fid=?)"
        f" AND event NOT IN ({marks}) ORDER BY seq",
        (fid, *_SILENT),
    ):
        result.apply(_event(seq, at, event, data))
    told = connection.execute(
        "SELECT data FROM events WHERE rid=(SELECT rid FROM runs WHERE fid=?) AND event='progress'"
        " ORDER BY seq DESC LIMIT ?",
        (fid, MAX_LISTED),
    ).fetchall()
    for (data,) in reversed(told):
        result.go_on(msgpack.unpackb(data, strict_map_key=False))
    result.progress = row.progress
    result.last_seq, result.modified = row.last_seq, row.modified
    return result


def outputs(connection: sqlite3.Connection, fid: str, p: int, pp: int) -> tuple[int, list[OutputRow]]:
    """Return how many outputs a run has, and a page of them by name, with empty chunk lists."""
    of_run = "FROM outputs WHERE rid=(SELECT rid FROM runs WHERE fid=?)"
    total = connection.execute(f"SELECT count(*) {of_run}", (fid,)).fetchone()[0]
    rows = connection.execute(
        f"SELECT name, media_type, size, sha256 {of_run} ORDER BY name LIMIT ? OFFSET ?", (fid, pp, (p - 1) * pp)
    )
    return total, [OutputRow(name, media, Manifest(size, sha256, ())) for name, media, size, sha256 in rows]


def output(connection: sqlite3.Connection, fid: str, name: str) -> OutputRow | None:
    """Return one output with the hashes of its chunks."""
    row = connection.execute(
        "SELECT media_type, size, sha256, chunks FROM outputs"
        " WHERE rid=(SELECT rid FROM runs WHERE fid=?) AND name=?",
        (fid, name),
    ).fetchone()
    if row is None:
        return None
    media, size, sha256, chunks = row
    hashes = tuple(chunks[start : start + 32] for start in range(0, len(chunks), 32))
    return OutputRow(name, media, Manifest(size, sha256, hashes))


def obsolete(connection: sqlite3.Connection, before: int, now: int) -> list[tuple[str, int]]:
    """Return the runs acknowledged at or before `before` (ms UTC), oldest first: fid, bytes of events and outputs.

    A run that is shared stays until its last share has ended.
    """
    return _unneeded(connection, "acknowledged<=:before", before, now)


def unread(connection: sqlite3.Connection, before: int, now: int) -> list[tuple[str, int]]:
    """Return, as `obsolete`, the runs that ended at or before `before` and that nobody acknowledged."""
    over = "state NOT IN ('pending', 'locked') AND acknowledged IS NULL AND modified<=:before"
    return _unneeded(connection, over, before, now)


def _unneeded(connection: sqlite3.Connection, which: str, before: int, now: int) -> list[tuple[str, int]]:
    return list(
        connection.execute(
            "SELECT fid, (SELECT coalesce(sum(length(data)), 0) FROM events WHERE events.rid=runs.rid)"
            " + (SELECT coalesce(sum(size), 0) FROM outputs WHERE outputs.rid=runs.rid)"
            f" FROM runs WHERE {which} AND NOT {share_rows.has_live('runs.rid')} ORDER BY rid",
            {"before": before, "now": now, "lapse": now - share_rows.DOWNLOAD_MS, "peer": ""},
        )
    )


def largest(connection: sqlite3.Connection, count: int, now: int) -> list[dict[str, Any]]:
    """Return the runs that are over and have the largest outputs, `count` at most, the largest first.

    Of each: `fid, name, launcher, ended, acknowledged, shared, bytes`; times are ms UTC.
    """
    rows = connection.execute(
        "SELECT fid, name, principal, modified, acknowledged,"
        f" {share_rows.has_live('runs.rid')},"
        " size + (SELECT coalesce(sum(length(data)), 0) FROM events WHERE events.rid=runs.rid)"
        " FROM (SELECT rid AS which, sum(size) AS size FROM outputs GROUP BY rid ORDER BY size DESC LIMIT :most)"
        " JOIN runs ON rid=which WHERE state NOT IN ('pending', 'locked') ORDER BY size DESC LIMIT :count",
        # Of those that go on there are few.
        {"most": count + 100, "count": count, "now": now, "lapse": now - share_rows.DOWNLOAD_MS, "peer": ""},
    )
    return [
        {
            "fid": fid, "name": name, "launcher": launcher, "ended": ended, "acknowledged": acknowledged,
            "shared": bool(shared), "bytes": size,
        }
        for fid, name, launcher, ended, acknowledged, shared, size in rows
    ]  # fmt: skip


def old_keys(connection: sqlite3.Connection, before: int) -> tuple[int, int]:
    """Return how many idempotency keys were used at or before `before` (ms UTC), and their bytes."""
    count, size = connection.execute(
        "SELECT count(*), coalesce(sum(length(principal) + length(key) + length(value) + length(digest)), 0)"
        " FROM keys WHERE at<=?",
        (before,),
    ).fetchone()
    return int(count), int(size)


def once(connection: sqlite3.Connection, principal: str, key: str, after: int) -> OnceKey | None:
    """Return what an idempotency key was used for, if that was later than `after` (ms UTC)."""
    row = connection.execute(
        "SELECT value, digest FROM keys WHERE principal=? AND key=? AND at>?", (principal, key, after)
    ).fetchone()
    return None if row is None else OnceKey(principal, key, row[0], row[1])


def has_traces(connection: sqlite3.Connection, principal: str) -> bool:
    """Return whether runs, schedules or invitations belong to a principal, or runs are shared with it by name.

    Its runs are its own and those that they launched.
    """
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE principal=:who OR substr(principal, 27)='/' || :who)"
        " OR EXISTS (SELECT 1 FROM share_to WHERE kind='user' AND name=:who)"
        " OR EXISTS (SELECT 1 FROM schedules WHERE principal=:who)"
        " OR EXISTS (SELECT 1 FROM invitations WHERE principal=:who)",
        {"who": principal},
    ).fetchone()
    return bool(found[0])
