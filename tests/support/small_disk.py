"""A real file system that is small, to be filled: a tmpfs of its own, where this user may mount one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fill", "small_disk"]


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount `size` bytes at `folder`, made for it; gives whether that was possible (it takes root)."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "kodo-test", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path, leave: int = 0) -> None:
    """Take all room that is left on the disk of `ballast`, to the last byte, or but for `leave` bytes."""
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\1" * size) == size:
                    pass
        if leave:
            file.truncate(max(file.tell() - leave, 0))
