"""Files that get their names whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["whole_file"]

_NAME_BYTES = 8
"""Random bytes in a temporary name: no name that somebody chose can be expected to meet it."""


@contextlib.contextmanager
def whole_file(
    path: Path, *, parts: Path | None = None, mode: int = 0o600, durable: bool = False
) -> Iterator[BinaryIO]:
    """Give a new, empty file to write and read, which is named `path` once the block has ended without an error.

    What was there is replaced in one step; after an error it is as it was, and the new file is gone. Any number of
    processes and threads may do this in one folder at the same time: until then the file has a short random name,
    whatever `path` is called.

    Args:
        parts: the folder where the file lies until it is named: on the same disk, made when it is missing. Default:
            beside `path`. Where others choose the names in a folder, use one outside of it.
        mode: rights of the file, less the umask.
        durable: whether file and name are on the disk when this returns.

    Raises:
        OSError: it cannot be written, or not be named so.
    """
    if parts is not None:
        parts.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = (parts or path.parent) / f".{secrets.token_hex(_NAME_BYTES)}.part"
    try:
        with open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, mode)) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
