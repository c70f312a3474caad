"""How far a transfer is, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client.transfer import Progress

__all__ = ["bars"]


@contextlib.contextmanager
def bars(context: Context) -> Iterator[Callable[[Progress], None] | None]:
    """Show a transfer on a terminal; yield what is to be called with its progress, None without a terminal."""
    if not context.interactive:
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn

    from kodo.cli.text import human_bytes, human_seconds, line

    class Rate(ProgressColumn):
        """How fast and how long still; nothing where neither is known, as of what is finished."""

        def render(self, task: Task) -> str:
            if task.finished or not task.speed:
                return ""
            left = f", {human_seconds(task.time_remaining)}" if task.time_remaining else ""
            return f"{human_bytes(task.speed)}/s{left}"

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        Rate(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(progress: Any) -> None:
            if progress.name not in tasks:
                label = escape(line(progress.name, 40))
                # What was there from before does not count towards the rate.
                tasks[progress.name] = bars.add_task(label, total=progress.size, completed=progress.done)
            bars.update(tasks[progress.name], completed=progress.done)

        yield on_progress
