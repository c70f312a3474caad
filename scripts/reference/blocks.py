"""The generated blocks of a page: `<!-- generated: NAME -->` up to `<!-- end of generated -->`.

A page of the reference is written by hand, but for these blocks: they are made from the code, and a test keeps them
fresh. So a page can be read as it is, on a disk as well as on the site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["cell", "fill", "names", "table"]

_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def fill(page: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """Return the page with each of its blocks made anew.

    Raises:
        KeyError: a block has a name that no maker has.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}\n{makers[found[2]]().strip()}\n\n{found[3]}", page)


def names(page: str) -> list[str]:
    """Return the names of the page's blocks, in their order."""
    return [found[2] for found in _BLOCK.finditer(page)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; cells are Markdown, on one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(each) for each in line) + " |" for line in lines)


def cell(value: object) -> str:
    """Return a text as one line that cannot end its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
