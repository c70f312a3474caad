"""A short way to a folder whose path is too long for sockets: a symbolic link among the system's temporary files.

Others may write beside it, so it lies in a folder of its own (0700), and it is looked at whenever it is used again:
once a cleaner has removed the two, anybody may have put others of the same names in their place.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from kodo.p2p.errors import UsageError

__all__ = ["MAX_PATH_BYTES", "leads_to", "make_short_path", "remove_short_path"]

MAX_PATH_BYTES = 40
"""Longest temporary directory whose sockets have a valid path: 107 bytes (103 on macOS) less what Ray appends."""


def make_short_path(real: Path) -> str:
    """Return a path to the folder `real` that is short enough: a new link when its own is not.

    Raises:
        UsageError: there is no temporary directory with a short path.
    """
    if len(os.fsencode(real)) <= MAX_PATH_BYTES:
        return str(real)
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if base and os.path.isdir(base) and len(os.fsencode(base)) + len("/kodo-12345678/r") <= MAX_PATH_BYTES:
            link = os.path.join(tempfile.mkdtemp(prefix="kodo-", dir=base), "r")
            os.symlink(real, link)
            return link
    raise UsageError(f"the path {real} is too long for Ray's sockets, and there is no short temporary directory")


def leads_to(path: str, real: Path, *, user: int | None = None) -> bool:
    """Return whether `path`, which `make_short_path` gave, leads to `real` still; make again what is missing.

    Args:
        path: `real` itself, or a link.
        real: the folder.
        user: the user id whose folder and link they must be; None: this process's.
    """
    if _is(path, real):
        return True
    mine = os.geteuid() if user is None else user
    folder = os.path.dirname(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode=0o700)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != mine or found.st_mode & 0o077:
            return False
        # Nobody else can change what is in the folder from here on.
        with contextlib.suppress(FileExistsError):
            os.symlink(real, path)
        link = os.lstat(path)
        return stat.S_ISLNK(link.st_mode) and link.st_uid == mine and os.path.samefile(path, real)
    except OSError:
        return False


def remove_short_path(path: str, real: Path) -> None:
    """Remove the link and its folder, if they are ours and there."""
    if not _is(path, real) and os.path.lexists(path) and leads_to(path, real):
        with contextlib.suppress(OSError):
            os.unlink(path)
            os.rmdir(os.path.dirname(path))


def _is(path: str, real: Path) -> bool:
    return not os.path.islink(path) and os.path.realpath(path) == os.path.realpath(real)
