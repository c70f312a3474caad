"""Why the node ends a run: each error by which a run cannot go on, as the data of its `fatal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import RunnerDiedError
from kodo.p2p.errors import CapacityError, DeadlineError, IntegrityError, KodoError
from kodo.protocol.fatal import make_fatal

__all__ = ["FATAL_TYPES", "fatal_of", "node_fatal"]

FATAL_TYPES: Mapping[str, str] = {
    "RunnerDied": "the flow's process ended, or does not answer",
    "Misconduct": "the flow's process said what it may not say",
    "OutputError": "an output could not be fetched as its event announced it",
    "NodeFull": "the disk, or the quota, took nothing for too long",
    "NotStarted": "no process could be had for it, or its missing inputs were not given in time",
    "InternalError": "the node, or kodo in the flow's process, failed",
    "Killed": "somebody killed the run",
    "NodeStopped": "the node was stopped",
}
"""The `type` of every `fatal` that a node makes, and what it means; others are names of the flow's own errors."""

_ERRORS: Sequence[tuple[type[Exception], str]] = [
    (RunnerDiedError, "RunnerDied"),
    (DeadlineError, "RunnerDied"),  # every wait for it that can time out is one for an answer of its process
    (MisconductError, "Misconduct"),
    (IntegrityError, "OutputError"),
    (CapacityError, "NodeFull"),
]


def fatal_of(error: Exception, *, has_runner: bool, stderr: Sequence[str] = ()) -> dict[str, Any]:
    """Return the data of the `fatal` for a run that cannot go on.

    Args:
        error: why not; a `KodoError`'s text is told, of others the class only.
        has_runner: whether a process was there for the run.
        stderr: its last lines there, for the case that it died.
    """
    if not isinstance(error, KodoError):
        return node_fatal("InternalError", f"the node failed: {type(error).__name__}")
    kind = next((kind for known, kind in _ERRORS if isinstance(error, known)), None)
    if isinstance(error, RunnerDiedError):
        # Its signal, and, as its traceback, its last words.
        lines = "\n".join(stderr)
        parts = [error.stack, f"Last lines of stderr:\n{lines}" if lines else ""]
        told = "\n".join(part for part in parts if part)
        return node_fatal("RunnerDied", str(error), traceback=told, signal=error.signal or "")
    if not has_runner and not isinstance(error, MisconductError | IntegrityError | CapacityError):
        return node_fatal("NotStarted", str(error))
    return node_fatal(kind or "InternalError", str(error))


def node_fatal(kind: str, message: str, *, traceback: str = "", signal: str = "") -> dict[str, Any]:
    """Return the data of a `fatal` that the node makes; `kind` is one of `FATAL_TYPES`."""
    return make_fatal(kind, message[:4096], where="node", traceback=traceback, signal=signal)
