"""Make what a framework says fit into an event: its authors did not know of the bound."""

from __future__ import annotations

from typing import Any

from kodo.flow._runtime.plain import plain

__all__ = ["MAX_CHARACTERS", "MAX_ITEMS", "fit"]

MAX_CHARACTERS = 8_000
"""A longer text is cut, and a value whose texts are longer together says only what it is."""

MAX_ITEMS = 200
"""Further items of a list or map are left out."""

_BUDGET = 48_000


def fit(value: Any) -> Any:
    """Return `value` as JSON-like data that surely fits into an event; what had to go is named in its place."""
    left = [_BUDGET]
    return _fit(plain(value), left)


def _fit(value: Any, left: list[int]) -> Any:
    left[0] -= 10
    if isinstance(value, str):
        cut = value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}… ({len(value)} characters)"
        if len(cut) > left[0]:
            return f"… ({len(value)} characters)"
        left[0] -= len(cut)
        return cut
    if isinstance(value, (dict, list)) and left[0] <= 0:
        return f"… ({len(value)} items)"
    if isinstance(value, dict):
        shown = {key[:200]: _fit(part, left) for key, part in list(value.items())[:MAX_ITEMS]}
        return shown if len(value) <= MAX_ITEMS else {**shown, "…": f"{len(value)} items"}
    if isinstance(value, list):
        items = [_fit(part, left) for part in value[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, f"… ({len(value)} items)"]
    return value
