"""What an error means to the shell and to scripts: exit code, status number, stable word, one line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from kodo.p2p import errors

__all__ = ["Exit", "Failure", "failure_of"]


class Exit:
    """The exit codes."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    TIMED_OUT = 6
    INTEGRITY = 7
    BUSY = 8
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Failure:
    """`code` is an HTTP status number and `reason` a stable word, as on the wire; `message` is one line."""

    exit: int
    code: int
    reason: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """Return the one JSON shape of errors."""
        return {"error": {"code": self.code, "reason": self.reason, "message": self.message, "exit": self.exit}}


_KINDS: tuple[tuple[type[BaseException], int, int, str], ...] = (
    (errors.UsageError, Exit.USAGE, 400, "usage"),
    (errors.NotFoundError, Exit.NOT_FOUND, 404, "not-found"),
    (errors.IdentityError, Exit.INTEGRITY, 502, "identity"),
    (errors.IntegrityError, Exit.INTEGRITY, 502, "integrity"),
    (errors.PeerError, Exit.INTEGRITY, 502, "protocol"),
    (errors.NetworkError, Exit.UNREACHABLE, 503, "unreachable"),
    (errors.DeadlineError, Exit.TIMED_OUT, 504, "timed-out"),
    (TimeoutError, Exit.TIMED_OUT, 504, "timed-out"),
    (errors.CapacityError, Exit.BUSY, 507, "full"),
    (KeyboardInterrupt, Exit.INTERRUPTED, 499, "interrupted"),
    (asyncio.CancelledError, Exit.INTERRUPTED, 499, "interrupted"),
)

_REFUSALS: dict[int, int] = {
    400: Exit.USAGE,
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    408: Exit.TIMED_OUT,
    409: Exit.USAGE,
    410: Exit.NOT_FOUND,
    413: Exit.BUSY,
    422: Exit.USAGE,
    429: Exit.BUSY,
    503: Exit.BUSY,
    504: Exit.TIMED_OUT,
    507: Exit.BUSY,
}


def failure_of(error: BaseException) -> Failure:
    """Judge an error. What kodo did not raise on purpose is internal."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    message = _one_line(str(error)) or type(error).__name__
    if isinstance(error, errors.CallError):
        code = _REFUSALS.get(error.code, Exit.INTERNAL)
        if error.reason == "busy":
            code = Exit.BUSY
        reasons = error.data.get("reasons")
        said = _one_line(error.message or error.reason)
        if isinstance(reasons, (list, tuple)) and reasons and not error.message:
            said = _one_line("; ".join(map(str, reasons)))
        return Failure(code, error.code, _one_line(error.reason), said)
    for kind, code, status, reason in _KINDS:
        if isinstance(error, kind):
            return Failure(code, status, reason, message)
    return Failure(Exit.INTERNAL, 500, "internal", f"{type(error).__name__}: {message} (--verbose shows where)")


def _one_line(text: str, limit: int = 1000) -> str:
    # Messages may quote what a peer said: nothing but printable characters reaches the terminal.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
