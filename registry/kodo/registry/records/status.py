"""When a node is online, unknown or offline: a pure function of times, once for Python and once for SQL.

A node is `online` while its heartbeats come and its record holds; `unknown` once none has come for 300 s, or the
record has expired; `offline` when it said goodbye, or has been unknown for an hour.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CHANGES_SQL", "OFFLINE_AFTER_S", "STATUS_SQL", "UNKNOWN_AFTER_S", "Status", "online", "status"]

UNKNOWN_AFTER_S = 300
"""Seconds without a heartbeat after which a node is `unknown`."""

OFFLINE_AFTER_S = 3600
"""Seconds of being `unknown` after which a node is `offline`."""


class Status(StrEnum):
    """What is known of a node's life."""

    ONLINE = "online"
    UNKNOWN = "unknown"
    OFFLINE = "offline"


def status(now: int, *, seen_at: int, expires_at: int, left: bool) -> Status:
    """Judge a node.

    Args:
        now: ms UTC, the registry's clock; so is `seen_at`.
        seen_at: when its last heartbeat or new record came.
        expires_at: when its record ends to hold, ms UTC.
        left: whether it said goodbye since.
    """
    if left:
        return Status.OFFLINE
    unknown_at = min(seen_at + UNKNOWN_AFTER_S * 1000, expires_at)
    if now < unknown_at:
        return Status.ONLINE
    return Status.UNKNOWN if now < unknown_at + OFFLINE_AFTER_S * 1000 else Status.OFFLINE


def online(state: Status) -> bool | None:
    """Return the value of `online` in answers: true, false when unknown, null when offline."""
    return {Status.ONLINE: True, Status.UNKNOWN: False, Status.OFFLINE: None}[state]


_UNKNOWN_AT = f"min(n.seen_at + {UNKNOWN_AFTER_S * 1000}, n.expires_at)"
STATUS_SQL = (
    f"CASE WHEN n.left_at IS NOT NULL OR :now >= {_UNKNOWN_AT} + {OFFLINE_AFTER_S * 1000} THEN NULL "
    f"WHEN :now < {_UNKNOWN_AT} THEN 1 ELSE 0 END"
)
"""The same over a row `n` of table `nodes`, as 1 online, 0 unknown, NULL offline; takes `:now`."""

CHANGES_SQL = (
    f"CASE WHEN n.left_at IS NOT NULL OR :now >= {_UNKNOWN_AT} + {OFFLINE_AFTER_S * 1000} THEN NULL "
    f"WHEN :now < {_UNKNOWN_AT} THEN {_UNKNOWN_AT} ELSE {_UNKNOWN_AT} + {OFFLINE_AFTER_S * 1000} END"
)
"""When that changes by silence alone, ms UTC; NULL never."""
