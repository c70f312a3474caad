"""What a runner answers its node, read as the data of a stranger, and how long it may take. Whatever carries it."""

from __future__ import annotations

from typing import Any

import msgpack

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerEvent

__all__ = ["CALL_TIMEOUT", "CLOSE_TIMEOUT", "read_events", "read_questions"]

CALL_TIMEOUT = 20.0
"""Seconds for a call that a runner answers at once."""

CLOSE_TIMEOUT = 3.0
"""Seconds for each step of letting a runner go."""

_UNREADABLE = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def read_events(packed: Any) -> tuple[list[RunnerEvent], bool]:
    """Return what `EventBuffer.poll` gave: the events, and whether the run has questions for its node.

    Raises:
        MisconductError: it cannot be read.
    """
    unpack = msgpack.unpackb
    try:
        first, packed_events, *rest = unpack(packed)
        events = [
            RunnerEvent(rseq, event, unpack(data), data) for rseq, (event, data) in enumerate(packed_events, first)
        ]
        return events, bool(rest and rest[0])
    except _UNREADABLE as error:
        raise MisconductError(f"what the runner said cannot be read: {type(error).__name__}") from None


def read_questions(packed: Any) -> tuple[int, list[tuple[int, str, Any]]]:
    """Return what `AskQueue.poll` gave: the lowest open number, and each question: number, op, args.

    Raises:
        MisconductError: it cannot be read.
    """
    try:
        first, questions = msgpack.unpackb(packed)
        return int(first), [(int(aid), str(op), args) for aid, op, args in questions]
    except _UNREADABLE as error:
        raise MisconductError(f"what the runner asked cannot be read: {type(error).__name__}") from None
