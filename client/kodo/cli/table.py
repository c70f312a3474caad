"""Plain tables: columns as wide as their cells, cut to the terminal when there is one."""

from __future__ import annotations

import shutil
import sys

from kodo.cli.text import line

__all__ = ["Table"]

MAX_CELL = 60


class Table:
    """Rows under a header; the last column takes what is left of the line."""

    def __init__(self, *header: str):
        self._rows: list[list[str]] = [list(header)]

    @property
    def rows(self) -> int:
        """How many rows there are, the header not counted."""
        return len(self._rows) - 1

    def add(self, *cells: object) -> None:
        """Add a row; cells are made safe."""
        self._rows.append(["" if cell is None else line(cell, 400) for cell in cells])

    def render(self, width: int | None = None) -> str:
        """Return the table as text.

        Args:
            width: columns of the terminal; none is cut when stdout is no terminal.
        """
        if width is None and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
        sizes = [max(len(row[i]) for row in self._rows) for i in range(len(self._rows[0]) - 1)]
        if width is not None:
            sizes = [min(size, MAX_CELL) for size in sizes]
        out = []
        for row in self._rows:
            # Paths and ids stay whole even where they break the columns: people copy them.
            head = "  ".join(cell.ljust(size) for cell, size in zip(row[:-1], sizes, strict=True))
            text = f"{head}  {row[-1]}" if head else row[-1]
            out.append(_cut(text, row[-1], width))
        return "\n".join(out)


def _cut(text: str, last: str, width: int | None) -> str:
    text = text.rstrip()
    if width is None or len(text) <= width:
        return text
    keep = max(width - 1, len(text) - len(last))
    return text if keep >= len(text) else text[:keep].rstrip() + "…"
