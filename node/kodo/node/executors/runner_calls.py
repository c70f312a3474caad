"""What a runner answers its node, read as the data of a stranger, and how long it may take. Whatever carries it."""

from __future__ import annotations

import logging
from typing import Any

import msgpack

from kodo.flow._runtime import buffer, node_requests
from kodo.node.executors.checks import MisconductError, unpack_event
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.runner.imports import read_said, split_group
from kodo.p2p.errors import KodoError
from kodo.protocol.events import MAX_EVENT_BYTES

__all__ = [
    "CALL_TIMEOUT",
    "CLOSE_TIMEOUT",
    "NotReadyError",
    "check_ready",
    "log_imports",
    "read_events",
    "read_questions",
]

logger = logging.getLogger(__name__)

CALL_TIMEOUT = 20.0
"""Seconds for a call that a runner answers at once."""

CLOSE_TIMEOUT = 3.0
"""Seconds for each step of letting a runner go."""

MAX_BATCH_BYTES = buffer.BATCH_BYTES + 2 * MAX_EVENT_BYTES
"""Of events that come at once, which is checked before they are made values on the node's loop: what an
`EventBuffer` gives is smaller, its last event included."""

MAX_QUESTIONS_BYTES = node_requests.BATCH_BYTES + 2 * node_requests.MAX_ASK_BYTES
"""The same of questions."""


class NotReadyError(KodoError):
    """The module for which a process was made ready could not be imported ahead of time, or takes too long."""


_UNREADABLE = (ValueError, TypeError, RecursionError, msgpack.UnpackException)


def check_ready(told: object, group: str) -> None:
    """Take what `RunnerService.ready` answered for a process of a group; what was printed goes to the node's log.

    Raises:
        NotReadyError: the group's module was not imported.
    """
    answer = told if isinstance(told, dict) else {}
    module, _ = split_group(group)
    log_imports(module, answer.get("said"))
    if group and not answer.get("imported"):
        raise NotReadyError(
            f"{module} is not imported ahead of time, since that failed or took too long: each of its runs does it"
        )


def log_imports(module: str, said: object) -> None:
    """Write to the node's log what a module printed or logged while it was imported."""
    for line in read_said(said):
        logger.info("%s, while it is imported: %s", module[:200], line)


def read_events(packed: Any) -> tuple[list[RunnerEvent], bool]:
    """Return what `EventBuffer.poll` gave: the events, and whether the run has questions for its node.

    Raises:
        MisconductError: it cannot be read.
    """
    try:
        first, packed_events, *rest = _unpack(packed, MAX_BATCH_BYTES)
        events = [
            RunnerEvent(rseq, event, unpack_event(data), data)
            for rseq, (event, data) in enumerate(packed_events, first)
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
        first, questions = _unpack(packed, MAX_QUESTIONS_BYTES)
        return int(first), [(int(aid), str(op), args) for aid, op, args in questions]
    except _UNREADABLE as error:
        raise MisconductError(f"what the runner asked cannot be read: {type(error).__name__}") from None


def _unpack(packed: Any, most: int) -> Any:
    if len(packed) > most:
        raise ValueError("it is larger than what may be sent at once")
    return msgpack.unpackb(packed)
