"""A run in a notebook: a table in its cell that is kept current while the run goes on.

It is static HTML, escaped, that the kernel replaces by IPython's display protocol. Every notebook knows that, there
is nothing to install, nothing of a node becomes script, and a saved notebook shows the last state. The widget
protocol would need `ipywidgets` and an extension of each front end for the same picture.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["Cell", "follow_in", "open_cell"]

_INTERVAL_S = 0.2
"""The cell changes no more often than once in this time."""

Cell = Callable[[], None]
"""Draws what is shown anew."""


def open_cell(shown: Any) -> Cell | None:
    """Display something that has `_repr_html_` in the notebook's cell; return what draws it anew.

    Returns:
        None where there is no notebook.
    """
    try:
        ipython = importlib.import_module("IPython")
    except ImportError:
        return None
    if ipython.get_ipython() is None:
        return None
    handle = ipython.display.display(shown, display_id=True)
    return None if handle is None else lambda: handle.update(shown)


async def follow_in(cell: Cell | None, events: AsyncIterator[Any]) -> None:
    """Take events to their end and draw the cell meanwhile, its last state also where they break off."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def draw() -> None:
        nonlocal timer
        timer = None
        if cell is not None:
            cell()

    try:
        async for _ in events:
            if timer is None:
                timer = loop.call_later(_INTERVAL_S, draw)
    finally:
        if timer is not None:
            timer.cancel()
        draw()
