"""What a running flow is connected to, whoever carries it: where its events, locks and outputs go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kodo.flow._runtime.plain import MAX_DEPTH, plain
from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import DeadlineError, UsageError
from kodo.protocol.fatal import exact_text
from kodo.protocol.flow_limits import check_lock, pack_data

__all__ = ["DONE", "Context", "Demand", "Emitted", "LockExpiredError"]


class LockExpiredError(DeadlineError):
    """Nobody answered a lock in time, and it has no default. Unhandled, it ends the run."""


class Emitted:
    """What an emitter gives back. Awaiting it is optional, and waits while the node is behind."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


DONE = Emitted()
"""An event that nothing has to wait for."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One lock, as the flow asks it.

    Attributes:
        title: what the human reads.
        schema: JSON Schema of the answer.
        accept: turns a candidate into the answer the flow gets and its JSON-like form; raises `ValueError` (a
            pydantic `ValidationError` is one) whose text, or whose `reasons`, say why not.
        expires_s: seconds until the lock times out.
        verdict_s: seconds that one candidate may wait for its verdict.
        default: the answer on timeout, when `has_default`.
        roles: who may answer; empty: whoever may answer locks of this run.
        users: likewise.
    """

    title: str
    schema: dict[str, Any]
    accept: Callable[[Any], tuple[Any, Any]]
    expires_s: float
    verdict_s: float
    default: Any
    has_default: bool
    roles: tuple[str, ...]
    users: tuple[str, ...]

    def event(self, lid: str) -> dict[str, Any]:
        """Return the data of the lock's event.

        Raises:
            UsageError: it asks for something that a lock cannot.
            CapacityError: it is larger than an event may be.
        """
        try:
            check_value(self.schema, MAX_DEPTH)
        except ValueError as error:
            raise UsageError(f"the form of a lock cannot be sent: {error}; check its defaults") from None
        title = exact_text(self.title) if isinstance(self.title, str) else self.title
        data: dict[str, Any] = {"lid": lid, "title": title, "schema": plain(self.schema)}
        if self.has_default:
            data["default"] = plain(self.default)
        if self.roles:
            data["roles"] = list(self.roles)
        if self.users:
            data["users"] = list(self.users)
        data |= {"expires_s": self.expires_s, "verdict_s": self.verdict_s}
        check_lock(data)
        pack_data("lock", data)
        return data


class Context(ABC):
    """Where events, locks and outputs go. Methods may be called from any thread."""

    fid: str | None = None
    """The run's id; None outside of a node."""

    @abstractmethod
    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        """Make one event; blocks when far more are waiting for the node than is reasonable.

        Raises:
            CapacityError: the event is larger than 256 KiB.
        """

    @abstractmethod
    def lock(self, demand: Demand) -> Future[Any]:
        """Open a lock; the future's result is the accepted answer.

        Raises:
            UsageError: it asks for something that a lock cannot.
            CapacityError: it is too large, or the run has opened too many.
        """

    def close_lock(self, future: Future[Any], answer: Any) -> None:
        """Close the lock that has this future: it needs no answer any more, since `answer` was given elsewhere."""
        if not future.done():
            future.set_result(answer)

    @abstractmethod
    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        """Store an output and announce it; blocks. Gives the data of its `output` event.

        Raises:
            ValueError: the name is no relative path that Linux takes.
            UsageError: the name was used, or a value is of a wrong type.
            CapacityError: there is no room for it, or the run has made too many.
        """

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Make the node do something for the run (`memory.*`, `delegate.*`); the future has its answer or refusal.

        Raises:
            UsageError: there is no node to ask, or no run yet.
            CapacityError: the question is too large.
        """
        raise UsageError(f"{op} needs a node, and there is none here")
