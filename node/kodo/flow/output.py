"""Files that a run makes: `output.write("report.md", text)`.

Awaited in async flows, a plain blocking call in sync ones: where an event loop runs in the calling thread,
`write` gives an awaitable.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kodo.flow._runtime.current import current
from kodo.flow._runtime.pending import Pending

__all__ = ["write"]


def write(name: str, source: Any, media_type: str | None = None) -> Any:
    """Store an output; the run's clients see it at once and can download it.

    Args:
        name: a relative path with `/` between its parts; each name once in a run.
        source: bytes, text, a `pathlib.Path` to copy, an open file, or an iterable of bytes or text.
        media_type: as `text/markdown`; guessed by the name when not given.

    Returns:
        `{name, size (bytes), sha256 (hex), media_type}`, in an async flow by awaiting. Cancelling the wait does not
        undo the write.

    Raises:
        ValueError: the name is no relative path that Linux takes.
        UsageError: the name was used before, or `source` is of a wrong type, a folder, a device or a named pipe.
        CapacityError: it does not fit on this machine's disk.
    """
    context = current()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return context.write_output(name, source, media_type)
    return Pending(
        f"output.write({name!r}, …)", lambda: asyncio.to_thread(context.write_output, name, source, media_type)
    )
