"""What is told of a run: that it waits for an answer, has ended, or was downloaded. Never what is in it.

A notice is an event of CloudEvents 1.0, as JSON:

    {"specversion": "1.0", "id": …, "source": "kodo://<peer id of the node>", "type": "kodo.run.locked",
     "subject": <fid>, "time": …, "datacontenttype": "application/json",
     "data": {"node": …, "run": …, "flow": …, "launched_by": …, …}}

Its `id` is the same however often it is sent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kodo.node.runs.fatals import FATAL_TYPES
from kodo.node.store.transaction import Commit, Downloaded
from kodo.protocol.events import Event

__all__ = ["Source", "make_test", "notices_of", "text_of"]

_KINDS = {"lock": "locked", "final": "done", "fatal": "error"}
"""Events of the log, and the notices that they are."""

_TEXT = 300
"""Characters of a name that are told; authors choose it."""


@dataclass(frozen=True, slots=True)
class Source:
    """The node that notices come from, and which of `locked`, `done`, `error` and `downloaded` it tells."""

    peer_id: str
    name: str
    kinds: frozenset[str]


def notices_of(
    source: Source,
    connection: sqlite3.Connection,
    commits: Sequence[Commit],
    downloads: Sequence[Downloaded],
    now: int,
) -> list[str]:
    """Return what is to be told of a transaction, as JSON.

    Args:
        connection: inside of that transaction.
        now: ms UTC.
    """
    found = [
        (commit.fid, event)
        for commit in commits
        for event in commit.events
        if _KINDS.get(event.event) in source.kinds
    ]
    notices = []
    for fid, event in found:
        if (run := _run(source, connection, fid)) is not None:
            kind = _KINDS[event.event]
            notices.append(
                _event(source, f"{fid}-{event.seq}", f"kodo.run.{kind}", event.at, run, _about(event, run))
            )
    for each in downloads if "downloaded" in source.kinds else ():
        if (run := _run(source, connection, each.fid)) is not None:
            told = {"share": each.sid, "downloads": each.number}
            ident = f"{each.sid}-{each.number}"
            notices.append(_event(source, ident, "kodo.share.downloaded", now, run, told))
    return notices


def make_test(source: Source, ident: str, now: int) -> str:
    """Return a notice by which an operator tries a target."""
    return _event(source, ident, "kodo.test", now, {"node": source.name, "run": ""}, {})


def text_of(notice: str) -> tuple[str, str]:
    """Return a notice for people: title and text, plain."""
    event: dict[str, Any] = json.loads(notice)
    told = event["data"]
    if event["type"] == "kodo.test":
        return f"kodo: a test of {told['node']}", "Notices of its runs come here."
    what = {
        "kodo.run.locked": "waits for an answer",
        "kodo.run.done": "is done",
        "kodo.run.error": f"ended with an error: {told.get('why')}",
        "kodo.share.downloaded": "was downloaded by a share",
    }[event["type"]]
    return f"{told['name']} {what}", f"Run {told['node']}/{told['run']}, launched by {told['launched_by']}."


def _run(source: Source, connection: sqlite3.Connection, fid: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT path, name, principal, created FROM runs WHERE fid=?", (fid,)).fetchone()
    if row is None:
        return None
    path, name, principal, created = row
    told = {"node": source.name, "run": fid, "flow": path, "name": name[:_TEXT], "launched_by": principal}
    return {**told, "launched_at": _time(created), "_created": created}


def _about(event: Event, run: Mapping[str, Any]) -> dict[str, Any]:
    if event.event == "lock":
        return {"lock": str(event.data.get("lid", ""))}
    told: dict[str, Any] = {"runtime_s": round(max(event.at - run["_created"], 0) / 1000, 3)}
    if event.event == "fatal":
        kind = str(event.data.get("type"))
        # The message of a flow's own error is a content, and its type a name from the author's code.
        of_node = event.data.get("where") == "node" and kind in FATAL_TYPES
        told["why"] = FATAL_TYPES[kind] if of_node else "an error of the flow"
        if of_node:
            told["type"] = kind
    return told


def _event(source: Source, ident: str, kind: str, at: int, run: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    told = dict(_public(run), **about)
    envelope = {
        "specversion": "1.0",
        "id": ident,
        "source": f"kodo://{source.peer_id}",
        "type": kind,
        **({"subject": run["run"]} if run["run"] else {}),
        "time": _time(at),
        "datacontenttype": "application/json",
        "data": told,
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))


def _public(run: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in run.items() if not name.startswith("_"))


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
