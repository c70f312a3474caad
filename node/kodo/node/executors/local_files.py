"""Files that a runner on this machine has made, opened where they lie, by whatever name its flow gives."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kodo.p2p.net.files import plain_descriptor

__all__ = ["open_below"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(folder: Path, name: str) -> int | None:
    """Open the file `name` below `folder`, whose own way is trusted; no link on the way to it is followed.

    Returns:
        A descriptor to read from, which the caller closes. None: there is no plain file that this process may read.
    """
    *folders, leaf = name.split("/")
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        place = os.open(folder, _FOLDER)
        stack.callback(os.close, place)
        for inner in folders:
            place = os.open(inner, _FOLDER, dir_fd=place)
            stack.callback(os.close, place)
        return plain_descriptor(Path(leaf), os.O_RDONLY, dir_fd=place)
    return None
