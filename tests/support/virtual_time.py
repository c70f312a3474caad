"""An event loop whose clock jumps to the next deadline instead of waiting: hours in milliseconds, and repeatable."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class _Clocked(Protocol):
    now: float


class JumpingSelector(selectors.SelectSelector):
    """Lets the clock of its loop jump.

    Args:
        loop: `now` is its clock, in seconds.
    """

    def __init__(self, loop: _Clocked) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("every task waits for something that cannot happen")
            self.loop.now += max(timeout, 0)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector event loop with a clock of its own; `now` is in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return self.now


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
