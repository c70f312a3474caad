"""Every error of kodo.

    KodoError
    ├── UsageError            local misuse: an argument, a file or a setting is wrong
    ├── NotFoundError         what was named is not to be found from here
    ├── PeerError             remote misbehaviour: the other side broke the protocol
    │   ├── IdentityError     it is not who it claims to be
    │   └── IntegrityError    what it sent is not what it announced
    ├── NetworkError          the way to the other side is closed
    │   ├── UnreachableError  no session could be made
    │   ├── LocallyClosedError   we closed
    │   ├── RemotelyClosedError  they finished
    │   └── BrokenSessionError   it broke: reset, silence, a lost process
    ├── DeadlineError         a wait reached its deadline
    ├── CapacityError         a bound was reached: size, count, disk
    └── CallError             the callee refused: `code`, `reason`, `message`, `data`

Each says what, which, and what to do next. Facts stand in attributes, wording in `__str__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BrokenSessionError",
    "CallError",
    "CapacityError",
    "DeadlineError",
    "IdentityError",
    "IntegrityError",
    "KodoError",
    "LocallyClosedError",
    "NetworkError",
    "NotFoundError",
    "PeerError",
    "RemotelyClosedError",
    "UnreachableError",
    "UsageError",
    "afresh",
]


class KodoError(Exception):
    """The root of every error that kodo raises on purpose."""


def afresh(error: Exception) -> Exception:
    """Return an error like one that is kept for whoever comes later, to be raised in its place.

    What is raised keeps the frames that it passes, and what they hold: raised itself, the one that is kept would hold
    on to all of its readers, and to whatever they had read, until Python looks for garbage.
    """
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    made.__cause__, made.__suppress_context__ = error.__cause__, error.__suppress_context__
    return made


class UsageError(KodoError):
    """Local misuse: an argument, a file or a configuration value is wrong."""


class NotFoundError(KodoError):
    """What was named (a flow, a node, a link) is not to be found from here."""


class PeerError(KodoError):
    """The other side broke the protocol; its stream or session was ended."""


class IdentityError(PeerError):
    """The other side is not who it should be."""


class IntegrityError(PeerError):
    """Bytes that arrived do not have the hash or size that was announced."""


class NetworkError(KodoError):
    """The way to the other side is closed."""


class UnreachableError(NetworkError):
    """No session could be made with any of the addresses tried."""


class LocallyClosedError(NetworkError):
    """This side has closed the session or stream that was used."""


class RemotelyClosedError(NetworkError):
    """The other side closed in an orderly way before the answer was complete."""


class BrokenSessionError(NetworkError):
    """The stream or session broke: it was reset, fell silent, or its process died."""


class DeadlineError(KodoError):
    """A wait reached its deadline."""


class CapacityError(KodoError):
    """A bound was reached: a size, a count, memory or disk."""


class CallError(KodoError):
    """The callee's refusal of a call; also what a callee raises to refuse.

    Attributes:
        code: an HTTP status number, 400–599.
        reason: a stable word that programs may compare, e.g. `no-such-run`.
        message: one sentence for people: what, which, what to do next.
        data: further facts, JSON-like.
    """

    def __init__(self, code: int, reason: str, message: str = "", data: Mapping[str, Any] | None = None):
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.data: dict[str, Any] = dict(data or {})

    def __str__(self) -> str:
        return f"{self.message or self.reason} ({self.code} {self.reason})"
