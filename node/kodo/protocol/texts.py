"""One text or several: what an argument takes that could be either."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["several"]


def several(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the texts of an argument. One text is one, although Python iterates it by its characters."""
    return (given,) if isinstance(given, str) else tuple(given)
