"""One inbox over all nodes that a user deals with: what waits for an answer, and what has ended since they looked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kodo.client.filelock import locked
from kodo.client.near import rows_of
from kodo.client.peer import RemoteNode
from kodo.client.run_selection import RunSelection, selected_rows
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import write_private

__all__ = ["Inbox", "LookedAt", "ask_for_news", "inbox_of"]

LATEST = 200
"""Of each node, among how many of the latest runs those are that have ended."""

FIRST_LOOK_S = 86_400
"""How long ago runs have ended that are new to whoever looks for the first time."""

MAX_FILE_BYTES = 1 << 20


@dataclass(slots=True)
class Inbox:
    """What there is to see to.

    Attributes:
        waiting: rows of `lock.list` with `node` and `peer_id`: questions that wait for this user's answer.
        ended: rows of `run.list` with `node` and `peer_id`: this user's runs that have ended since, latest first.
        away: the nodes that could not be asked: name → why.
        seen: by peer id, up to when (ms UTC, of that node's clock) its runs are in `ended`.
    """

    waiting: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    away: dict[str, str] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


async def ask_for_news(remote: RemoteNode) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the open locks of one node, and its latest runs."""
    return await rows_of(remote, "lock.list", {}), await selected_rows(remote, RunSelection(limit=LATEST))


def inbox_of(
    given: Sequence[tuple[RemoteNode, tuple[list[dict[str, Any]], list[dict[str, Any]]]]],
    away: Mapping[str, str],
    since: Mapping[str, int],
    now: float,
) -> Inbox:
    """Return the inbox that the answers of `ask_for_news` make; `now`: seconds UTC."""
    found = Inbox(away=dict(away))
    for remote, (waiting, runs) in given:
        peer = str(remote.peer_id)
        after = since.get(peer, int((now - FIRST_LOOK_S) * 1000))
        found.waiting += waiting
        new = [row for row in runs if row.get("own") is not False and _ended(row) > after]
        found.ended += new
        found.seen[peer] = max([after, *map(_ended, new)])
    found.ended.sort(key=_ended, reverse=True)
    return found


def _ended(row: Mapping[str, Any]) -> int:
    """Return when a run ended, ms UTC; 0 when it has not."""
    at = row.get("modified")
    return at if row.get("state") in ("done", "error") and isinstance(at, int) else 0


class LookedAt:
    """`inbox.json` in a home: up to when what has ended was looked at, by peer id."""

    def __init__(self, home: Path):
        self.path = home / "inbox.json"

    def get(self) -> dict[str, int]:
        """Return it; a file that is none counts as empty.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                read = json.loads(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from error
        except ValueError:
            return {}
        pairs = read.items() if isinstance(read, Mapping) else ()
        return {str(peer): at for peer, at in pairs if isinstance(at, int)}

    def put(self, seen: Mapping[str, int]) -> None:
        """Take note of it; of several processes the latest times count.

        Raises:
            UsageError: it cannot be written.
        """
        with locked(self.path):
            kept = self.get()
            merged = {**kept, **{peer: max(at, kept.get(peer, 0)) for peer, at in seen.items()}}
            # The nodes that were met last stay, however many strangers there were.
            latest = dict(sorted(merged.items(), key=lambda pair: pair[1])[-1000:])
            write_private(self.path, json.dumps(latest).encode())
