"""Which events a flow's code may make by itself, and their normal form."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from kodo.p2p.errors import UsageError
from kodo.protocol.events import EVENTS
from kodo.protocol.numbers import finite

__all__ = ["check_event", "normal"]

RESERVED_EVENTS = frozenset(["final", "fatal", "output", "lock", "unlock", "unlock-deny"])
"""Events with a meaning that `emit` cannot give them: they come of a flow's end, `output.write` and `lock`."""


def check_event(event: str) -> None:
    """Refuse an event that a flow's code may not make by itself.

    Raises:
        UsageError: it is unknown, the node's, or made in another way.
    """
    known = EVENTS.get(event)
    if known is None or not known.flow or event in RESERVED_EVENTS:
        usual = ", ".join(sorted(name for name, kind in EVENTS.items() if kind.flow and name not in RESERVED_EVENTS))
        raise UsageError(f"a flow cannot emit {event!r}; it can emit {usual}")


def normal(event: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return an event's data in its normal form: a progress's percent worked out, and between 0 and 100."""
    if event != "progress":
        return data
    percent, done, total = (_number(data.get(name)) for name in ("percent", "done", "total"))
    if percent is None and done is not None and total:
        percent = round(100 * (done / total), 2)
    if percent is not None:
        percent = min(100, max(0, percent))
    numbers = {"percent": percent, "done": done, "total": total}
    rest = {name: value for name, value in data.items() if name not in numbers}
    return {**{name: value for name, value in numbers.items() if value is not None}, **rest}


def _number(value: Any) -> float | None:
    """Return a finite number; anything else counts as not known."""
    number = finite(value)
    return int(value) if number is not None and isinstance(value, Integral) else number
