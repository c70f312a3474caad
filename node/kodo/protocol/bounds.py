"""How much one call may ask for: what callers keep to, apart from the models by which nodes check it."""

from __future__ import annotations

__all__ = ["MAX_PAGE", "MAX_SHARE_SECONDS"]

MAX_PAGE = 500
"""Rows of one page."""

MAX_SHARE_SECONDS = 10 * 366 * 86400.0
"""How long a share may last: a few years, but no number that a clock cannot add."""
