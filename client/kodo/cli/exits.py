"""What an error means to the shell and to scripts: exit code, status number, stable word, one line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kodo.p2p import errors

__all__ = ["Exit", "Failure", "details_of", "failure_of", "told_details"]

MAX_DETAILS = 100
"""Fields and reasons of one refusal that are shown."""


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
    """`code` is an HTTP status number and `reason` a stable word, as on the wire; `message` is one line.

    `details`: what a refusal says of single fields of a form (`places`, `missing`), and a flow's `reasons`.
    """

    exit: int
    code: int
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the one JSON shape of errors."""
        error = {"code": self.code, "reason": self.reason, "message": self.message, "exit": self.exit}
        return {"error": {**error, **self.details}}

    def lines(self) -> list[str]:
        """Return what a person reads: the message, then a line for each field or reason that it does not name."""
        return [self.message, *(f"  {each}" for each in told_details(self.details) if each not in self.message)]


def told_details(details: Mapping[str, Any]) -> list[str]:
    """Return a line for each place and reason: `place.city: …`."""
    places = [(place["at"][1:].replace("/", "."), place["message"]) for place in details.get("places", ())]
    return [": ".join(part for part in place if part) for place in places] + list(details.get("reasons", ()))


def details_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a refusal's data say of fields, bounded and fit to be shown: they come from a peer."""
    found: dict[str, Any] = {}
    places = data.get("places")
    if isinstance(places, (list, tuple)):
        found["places"] = [
            {"at": _one_line(str(place.get("at", "")), 300), "message": _one_line(str(place.get("message", "")), 300)}
            for place in places[:MAX_DETAILS]
            if isinstance(place, Mapping)
        ]
    for name in ("missing", "reasons"):
        if isinstance(several := data.get(name), (list, tuple)):
            found[name] = [_one_line(str(each), 500) for each in several[:MAX_DETAILS]]
    return {name: each for name, each in found.items() if each}


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
        return Failure(code, error.code, _one_line(error.reason), said, details_of(error.data))
    for kind, code, status, reason in _KINDS:
        if isinstance(error, kind):
            return Failure(code, status, reason, message)
    return Failure(Exit.INTERNAL, 500, "internal", f"{type(error).__name__}: {message} (--verbose shows where)")


def _one_line(text: str, limit: int = 1000) -> str:
    # Messages may quote what a peer said: nothing but printable characters reaches the terminal.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
