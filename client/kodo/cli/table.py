"""Plain tables: columns as wide as their cells, narrowed to the terminal when there is one.

On a narrow terminal ids are shortened first, in their middle; those of runs are understood as they are
shown. Then columns that can be spared go, the last one first; titles are cut last.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Collection

from kodo.cli.text import line

__all__ = ["Table"]

MAX_CELL = 60
ID_WIDTH = 16
"""What a shortened id takes at least."""

NARROW = 12
"""What a column takes at least that is neither an id nor spared."""

_ID_END = 8
"""Characters at the end of an id that are kept: they are random, its beginning is the time."""


class Table:
    """Rows under a header. Where nothing is known of the columns, only the last one is cut.

    Args:
        header: what the columns are called.
        ids: the columns that are shortened first.
        title: the column that is cut last.
        spared: the columns that a narrow terminal does without, the most important one first; without anything in
            them they are left out.
        whole: the columns that are never cut, as their cells are for being copied.
    """

    def __init__(
        self,
        *header: str,
        ids: Collection[str] = (),
        title: str | None = None,
        spared: Collection[str] = (),
        whole: Collection[str] = (),
    ):
        self._header = tuple(line(name, 60) for name in header)
        self._ids = ids
        self._title = title
        self._spared = spared
        self._whole = whole
        self._rows: list[list[str]] = []

    @property
    def rows(self) -> int:
        """How many rows there are, the header not counted."""
        return len(self._rows)

    def add(self, *cells: object) -> None:
        """Add a row; cells are made safe."""
        self._rows.append(["" if cell is None else line(cell, 400) for cell in cells])

    def render(self, width: int | None = None) -> str:
        """Return the table as text.

        Args:
            width: columns of the terminal; nothing is cut when stdout is no terminal.
        """
        if width is None and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
        said = [name not in self._spared or any(row[i] for row in self._rows) for i, name in enumerate(self._header)]
        shown = {
            name: max([_width(name), *(_width(row[i]) for row in self._rows)])
            for i, name in enumerate(self._header)
            if said[i]
        }
        if width is not None:
            self._narrow(shown, width)
        names = list(shown)
        places = [self._header.index(name) for name in names]
        out = []
        for row in [list(self._header), *self._rows]:
            cells = [
                _padded(_cut(row[place], shown[name], middle=name in self._ids), shown[name])
                for name, place in zip(names, places, strict=True)
            ]
            out.append("  ".join(cells).rstrip())
        return "\n".join(out)

    def _narrow(self, shown: dict[str, int], width: int) -> None:
        """Make the columns fit, as far as they can be made to."""

        def excess() -> int:
            return sum(shown.values()) + 2 * (len(shown) - 1) - width

        def narrow(names: list[str], least: int) -> None:
            # The widest gives way first, so that all become equally narrow.
            while excess() > 0:
                widest = max(names, key=lambda name: shown[name], default=None)
                if widest is None or shown[widest] <= least:
                    return
                shown[widest] -= 1

        if excess() <= 0:
            return
        last = list(shown)[-1]
        if not self._ids and self._title is None and not self._whole:
            narrow([last], NARROW)  # all else is for being copied
            return
        for name in shown:
            if name not in self._ids and name not in self._whole and name != last:
                shown[name] = min(shown[name], MAX_CELL)
        narrow([name for name in shown if name in self._ids], ID_WIDTH)
        spared = [name for name in self._spared if name in shown]
        while spared and excess() > 0:
            narrow(spared[-1:], NARROW)
            if excess() > 0:
                del shown[spared.pop()]
        kept = {*self._ids, *self._whole, self._title}
        narrow([name for name in shown if name not in kept], NARROW)
        narrow([name for name in shown if name == self._title], NARROW)


def _width(text: str) -> int:
    """Return how many columns a text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200c\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int, *, middle: bool = False) -> str:
    """Return a text that takes at most `width` columns."""
    if _width(text) <= width:
        return text
    if middle:
        return f"{_cut(text, width - _ID_END)[:-1]}…{text[-_ID_END:]}"
    kept, taken = [], 0
    for each in text:
        taken += _columns(each)
        if taken > width - 1:
            break
        kept.append(each)
    return "".join(kept).rstrip() + "…"


def _padded(text: str, width: int) -> str:
    return text + " " * max(width - _width(text), 0)
