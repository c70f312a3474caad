"""What a person typed, held against rows of flows that were found. Pure."""

from __future__ import annotations

import difflib
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kodo.client.resolve import safe_text

__all__ = ["named", "nearest"]


def named(rows: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """Return the rows whose path is `text`, else those of that name, else those that differ in case only."""
    # One letter can be written in two ways (NFC and NFD); keyboards and file systems differ in them.
    tests: tuple[Callable[[Mapping[str, Any]], bool], ...] = (
        lambda row: row.get("path") == text,
        lambda row: str(row.get("path", "")).removeprefix("./") == text.removeprefix("./"),
        lambda row: row.get("name") == text,
        lambda row: _folded(row.get("path")) == _folded(text),
        lambda row: _folded(row.get("name")) == _folded(text),
        lambda row: _folded(row.get("name")).casefold() == _folded(text).casefold(),
    )
    for test in tests:
        if fitting := [row for row in rows if test(row)]:
            return fitting
    return []


def _folded(name: Any) -> str:
    return unicodedata.normalize("NFC", str(name or ""))


def nearest(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `; did you mean …?` with the nearest path or name among rows, or nothing."""
    names = [safe_text(row.get(key, "")) for row in rows for key in ("name", "path")]
    near = difflib.get_close_matches(text, names, 1, 0.5)
    return f"; did you mean {shlex.quote(near[0])}?" if near else ""
