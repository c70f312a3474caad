"""Who answers the locks of a flow in a test."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import UsageError

__all__ = ["EXPIRE", "Answers", "AnswersGiven", "Lock", "UnansweredError", "tries"]


class _Expire:
    def __repr__(self) -> str:
        return "EXPIRE"


EXPIRE: Any = _Expire()
"""As an answer: nobody answers the lock in time."""


class UnansweredError(UsageError):
    """A test gave no answer to a lock that has no default."""


@dataclass(slots=True)
class Lock:
    """One lock that a flow opened.

    Attributes:
        title: what the human reads.
        schema: JSON Schema of the answer.
        default: the answer when nobody gives one; None where there is none, see `has_default`.
        roles, users: who may answer.
        tried: the answers that were given, as data, in their order.
        denied: for each that was not accepted the reasons.
        answer: the accepted one, as data; None before, and when it expired.
    """

    title: str
    schema: dict[str, Any]
    default: Any = None
    has_default: bool = False
    roles: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    tried: list[Any] = field(default_factory=list)
    denied: list[list[str]] = field(default_factory=list)
    answer: Any = None


AnswersGiven = Mapping[str, Any] | Sequence[Any] | Callable[[Lock], Any]


class _Tries(list[Any]):
    """Answers that are given one after the other."""


def tries(*answers: Any) -> Any:
    """Return what stands for several answers to locks of one title: one after the other, also when one is denied."""
    return _Tries(answers)


class Answers:
    """The answers of a test, one by one. Thread-safe."""

    def __init__(self, given: AnswersGiven):
        """Take a map by title, a list in the order of the locks, or a function of the lock."""
        self._guard = threading.Lock()
        self._given = given
        self._by_title: dict[str, Any] = {}
        self._in_order: deque[Any] = deque()
        if isinstance(given, Mapping):
            self._by_title = {title: deque(it) if isinstance(it, _Tries) else it for title, it in given.items()}
        elif not callable(given):
            self._in_order.extend(given)

    def next(self, lock: Lock) -> Any:
        """Return the next answer to a lock as data, `EXPIRE` for none.

        Raises:
            UnansweredError: there is none, and the lock has no default.
        """
        if callable(self._given):
            return _data(self._given(lock))
        with self._guard:
            found = self._by_title.get(lock.title, self._in_order)
            if isinstance(found, deque):
                if found:
                    return _data(found.popleft())
            elif not lock.tried:
                return _data(found)
        if lock.has_default and not lock.tried:
            return EXPIRE
        tried = f"; {lock.tried[-1]!r} was denied: {'; '.join(lock.denied[-1])}" if lock.denied else ""
        raise UnansweredError(
            f"the test gives no{' further' if lock.tried else ''} answer to the lock {lock.title!r}{tried}; "
            f"write run(…, answers={{{lock.title!r}: …}})"
        )


def _data(value: Any) -> Any:
    return value if value is EXPIRE else plain(value)
