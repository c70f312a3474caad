"""What a call gives back in async code: something to await, and nothing else.

A coroutine is true, equal to nothing, and has a text; so a forgotten `await` answers questions wrongly and silently.
Here every use but `await` raises and says so, and a call that is dropped without one is told as a `log` event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kodo.flow._runtime.context import Context
from kodo.flow._runtime.current import current
from kodo.flow._runtime.not_awaited import NotAwaitedError

__all__ = ["FORGOTTEN", "Pending", "note_forgotten", "tell_forgotten"]

T = TypeVar("T")

FORGOTTEN = ("ERROR", "kodo.flow")
"""Level and logger of the event that tells a forgotten call."""

MYPY = False
"""True to mypy, which complains where it sees no `__bool__`; pyright does where it sees one that gives no bool."""


class _NoAttributeError(NotAwaitedError, AttributeError):
    """An attribute was asked for; `hasattr` and `getattr` with a default have to go on working."""


class Pending(Coroutine[Any, Any, T], Generic[T]):
    """Awaits one call; what else is done with it raises `NotAwaitedError`.

    It is a coroutine to asyncio: `create_task`, `gather` and `wait_for` take it. The call is made when it is awaited.
    """

    __slots__ = ("_begun", "_context", "_loop", "_make", "_what")

    def __init__(self, what: str, make: Callable[[], Coroutine[Any, Any, T]]):
        """Take the call's text, as `lock('Go on?')`, and what makes its coroutine; in an event loop."""
        self._context = current()
        self._what = what
        self._make = make
        self._begun: Coroutine[Any, Any, T] | None = None
        self._loop = asyncio.get_running_loop()

    def _coroutine(self) -> Coroutine[Any, Any, T]:
        if self._begun is None:
            self._begun = self._make()
        return self._begun

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine().__await__()

    def send(self, value: Any, /) -> Any:
        """Go on, as asyncio does."""
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise inside of it, as asyncio does."""
        return self._coroutine().throw(*error)

    def close(self) -> None:
        """End it on purpose."""
        self._coroutine().close()

    def __repr__(self) -> str:
        return f"<{self._what}, {'not awaited' if self._begun is None else 'awaited'}>"

    def __hash__(self) -> int:
        return id(self)

    if not MYPY:

        def __bool__(self) -> NotAwaitedError:
            raise NotAwaitedError(self._refusal())

    def _refusal(self) -> str:
        return f"{self._what} has no answer yet, because it was not awaited: await it, as in `await {self._what}`"

    def __del__(self) -> None:
        if self._begun is None:
            text = f"{self._what} was not awaited, so nothing was done: await it, as in `await {self._what}`"
            note_forgotten(text, self._context, self._loop)


if not TYPE_CHECKING:  # what is not there type checkers complain of themselves

    def _refuse(self, *_):
        raise NotAwaitedError(self._refusal())

    def _no_attribute(self, name):
        if name.startswith(("__", "cr_", "gi_")):  # what asyncio and inspect look for
            raise AttributeError(name)
        raise _NoAttributeError(self._refusal())

    def _equal(self, other):
        return True if other is self else _refuse(self)

    for _name in (
        *("iter", "len", "contains", "getitem", "setitem", "call", "str", "format", "bytes", "fspath"),
        *("int", "float", "complex", "index", "round", "neg", "pos", "abs", "ne", "lt", "le", "gt", "ge"),
        *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv"),
        *("mod", "rmod", "pow", "rpow", "matmul", "rmatmul", "or", "ror", "and", "rand", "xor", "rxor"),
    ):
        setattr(Pending, f"__{_name}__", _refuse)
    Pending.__eq__ = _equal
    Pending.__getattr__ = _no_attribute

_forgotten: deque[tuple[str, Context]] = deque(maxlen=100)


def note_forgotten(text: str, context: Context, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Note a call that was dropped without effect; told as soon as `loop` turns, else at the end of the run.

    Called by finalizers: these run in any thread at any moment, so no lock is taken here.

    Args:
        context: where the call was made, which may not be the one of this moment.
    """
    _forgotten.append((text, context))
    if loop is not None:
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(tell_forgotten)


def tell_forgotten() -> list[str]:
    """Make a `log` event of each call that was dropped without effect; return their texts."""
    told = []
    while _forgotten:
        text, context = _forgotten.popleft()
        context.emit("log", {"level": FORGOTTEN[0], "logger": FORGOTTEN[1], "text": text})
        told.append(text)
    return told
