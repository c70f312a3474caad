"""What a flow's module says while it is imported: it belongs to the node's log, not to whichever run comes next."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["MAX_LINES", "ImportLog", "group_of", "read_said", "split_group"]

MAX_LINES = 100
"""More lines are counted."""

MAX_LINE_CHARACTERS = 500


class ImportLog:
    """Keeps what is printed and logged, bounded. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lines: list[str] = []
        self._more = 0

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Take what would be an event in a run; all but text is left out."""
        text = data.get("text")
        if event == "progress" or not isinstance(text, str):
            return
        with self._guard:
            if len(self._lines) < MAX_LINES:
                self._lines.append(text[:MAX_LINE_CHARACTERS])
            else:
                self._more += 1

    def read(self) -> list[str]:
        """Return the lines since the last call, and how many were left out."""
        with self._guard:
            lines, self._lines = self._lines, []
            more, self._more = self._more, 0
        return [*lines, *([f"… and {more} lines more"] if more else [])]


def read_said(told: object) -> list[str]:
    """Return the lines of an `ImportLog` as another process tells them: what is none is left out."""
    lines = told if isinstance(told, list) else []
    return [line[:MAX_LINE_CHARACTERS] for line in lines[: MAX_LINES + 1] if isinstance(line, str)]


def group_of(entry: str, code: str = "") -> str:
    """Return which process can be made ready for an entry: by its module, and its code; empty where there is none.

    Args:
        entry: `module:attribute`, or that with `@` and its kept code.
        code: the file with the kept code, where `entry` has none.
    """
    entry, _, own = entry.partition("@")
    module, colon, _ = entry.partition(":")
    code = own or code
    return f"{module}@{code}" * bool(colon) if code else module * bool(colon)


def split_group(group: str) -> tuple[str, str]:
    """Return a group's module and the file with its kept code."""
    module, _, code = group.partition("@")
    return module, code
