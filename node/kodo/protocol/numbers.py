"""Numbers that others wrote, such as a whole number of 400 digits, which no `float` can hold."""

from __future__ import annotations

import math
from numbers import Real

__all__ = ["finite", "seconds_within"]


def finite(value: object) -> float | None:
    """Return a number as a finite float; None: it is a bool, no number, NaN, infinite or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def seconds_within(value: object, default: float, *, least: float = 0.0, most: float) -> float:
    """Return seconds that somebody else said, within bounds; `default` where they are none, or negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return default
    return float(min(max(value, least), most))
