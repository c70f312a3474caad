"""`last_sessions`: which way the sessions with nodes took last, for lists and for `koco doctor`.

One JSON object a line, the latest last. It is for people to read: nothing is dialled, or believed, because of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kodo.client.filelock import locked
from kodo.p2p.net.keystore import write_private

__all__ = ["WHY", "LastSession", "LastSessions"]

MAX_SESSIONS = 64
"""Nodes that are remembered: those that a session was with last."""
MAX_FILE_BYTES = 1 << 18
FRESH_MS = 60_000
"""What has not changed is written anew after so long."""

WHY = {
    "lan": "",
    "direct": "",
    "punched": "none of the node's addresses answers from here until a registry has introduced this machine",
    "relay": "no address of the node answers from here but the one at a registry's relay",
}
"""Why a session took no better way, by its route: the best that answers is taken."""


@dataclass(frozen=True, slots=True)
class LastSession:
    """The latest session with one node.

    Attributes:
        name: what the node was called.
        route: `lan`, `direct`, `punched` or `relay`.
        at: when that was so, ms UTC.
        addresses: how many addresses of the node were known.
    """

    peer_id: str
    name: str
    route: str
    at: int
    addresses: int


class LastSessions:
    """The sessions in one file. Safe to use from several processes at once; reading never fails."""

    def __init__(self, path: Path):
        self.path = path

    def all(self) -> Mapping[str, LastSession]:
        """Return the sessions by peer id, the latest last; lines that cannot be read are left out."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES)
        except OSError:
            return {}
        found: dict[str, LastSession] = {}
        for line in raw.decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                each = LastSession(**json.loads(line))
                if each.route in WHY and all(isinstance(text, str) for text in (each.peer_id, each.name)):
                    found[each.peer_id] = LastSession(
                        each.peer_id, each.name, each.route, int(each.at), int(each.addresses)
                    )
        return found

    def remember(self, sessions: Iterable[LastSession]) -> None:
        """Remember these as the latest.

        Raises:
            UsageError: the file cannot be written.
        """
        new = [each for each in sessions if each.route in WHY]
        known = self.all()
        if all(_is_told(known.get(each.peer_id), each) for each in new):
            return
        with locked(self.path):
            kept = dict(self.all())
            for each in new:
                kept.pop(each.peer_id, None)
                kept[each.peer_id] = each
            lines = [json.dumps(asdict(each)) for each in list(kept.values())[-MAX_SESSIONS:]]
            write_private(self.path, "".join(f"{line}\n" for line in lines).encode())


def _is_told(before: LastSession | None, now: LastSession) -> bool:
    if before is None or now.at - before.at >= FRESH_MS:
        return False
    return (before.route, before.name) == (now.route, now.name)
