"""Files that get their names whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO

__all__ = ["clear_parts", "make_once", "open_plain", "opened", "plain_descriptor", "read_regular", "whole_file"]

_NAME_BYTES = 8
"""Random bytes in a temporary name: no name that somebody chose can be expected to meet it."""

_PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""How such names look."""

PART_AGE_S = 60.0
"""How old a file under way is at least, in seconds, when it may be one that a crash has left."""

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems without hard links answer, e.g. FAT and some that are shared with a virtual machine."""


def _replace(temporary: Path, path: Path) -> None:
    temporary.replace(path)


@contextlib.contextmanager
def whole_file(
    path: Path,
    *,
    parts: Path | None = None,
    mode: int = 0o600,
    durable: bool = False,
    give_name: Callable[[Path, Path], None] = _replace,
) -> Iterator[BinaryIO]:
    """Provide a new, empty file, which is named `path` once the block has ended without an error.

    What was there is replaced in one step; after an error it is as it was, and the new file is gone. Any number of
    processes and threads may do this in one folder at the same time: until then the file has a short random name,
    whatever `path` is called.

    Args:
        parts: the folder where the file lies until it is named: on the same disk, made when it is missing. Default:
            beside `path`. Where others choose the names in a folder, use one outside of it.
        mode: rights of the file, less the umask.
        durable: whether file and name are on the disk when this returns.
        give_name: names the temporary file, its first argument, as its second, `path`.

    Raises:
        OSError: it cannot be written, or not be named so.
    """
    if parts is not None:
        parts.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = (parts or path.parent) / f".{secrets.token_hex(_NAME_BYTES)}.part"
    try:
        with open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, mode)) as file:
            with contextlib.suppress(OSError):  # there are file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is being written: `clear_parts` lets it be
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        give_name(temporary, path)
        if durable:
            with _folder(path.parent) as folder:
                os.fsync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def clear_parts(folder: Path, *, now: float | None = None) -> None:
    """Remove what writers of whole files have left in a folder when they crashed: it may be half a secret.

    What another process writes just now stays, and whatever cannot be removed.

    Args:
        now: the time, seconds since 1970; None: the clock's.
    """
    before = (time.time() if now is None else now) - PART_AGE_S
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _PART.fullmatch(name) and _is_left(folder / name, before):
                with contextlib.suppress(OSError):
                    os.unlink(folder / name)


def _is_left(path: Path, before: float) -> bool:
    """Return whether nobody has written to a file for long, or is about to."""
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_mtime > before:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading that somebody else may have put there: no link is followed, and nothing waited for.

    Raises:
        OSError: there is no such file, it cannot be read, or it is not a regular file.
    """
    return os.fdopen(plain_descriptor(path, os.O_RDONLY), "rb")


def plain_descriptor(path: Path, flags: int, *, dir_fd: int | None = None) -> int:
    """Open a file in whose place somebody else may have put something; return its descriptor. See `open_plain`.

    Args:
        flags: as of `os.open`; a new file has the rights 0600.
        dir_fd: the folder in which `path` is looked up.

    Raises:
        OSError: it cannot be opened so, or is not a regular file.
    """
    # A pipe would be waited for, until somebody opens its other end.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file that its owner put there, also by a link. A pipe or a device is not waited for.

    Raises:
        OSError: there is no such file, it cannot be read, or it is not a regular file.
        ValueError: it is larger than `most_bytes`, or no file can have this name.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes >> 20} MiB")
    return data


def make_once(path: Path, data: bytes, *, link: Callable[[Path, Path], None] = os.link) -> bool:
    """Write a file that does not exist yet, as a key; return whether it was not, and so holds `data` now.

    It is whole or not there, and on the disk when this returns: not even a crash leaves half a key. (It may leave the
    temporary file, which nothing reads, and which `clear_parts` removes at the next start.)

    Args:
        link: gives a file a second name, which must be free.

    Raises:
        OSError: it cannot be written; then there is no file.
    """
    try:
        with whole_file(path, durable=True, give_name=partial(_name_once, link)) as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _name_once(link: Callable[[Path, Path], None], temporary: Path, path: Path) -> None:
    try:
        link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A rename replaces what is there: whoever makes a file in this folder waits for its turn.
        with _folder(path.parent) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            temporary.rename(path)
    else:
        temporary.unlink()


def _folder(path: Path) -> AbstractContextManager[int]:
    return opened(path, os.O_RDONLY | os.O_DIRECTORY)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open what is there for as long as the block lasts; give its descriptor, which no other process inherits.

    Raises:
        OSError: it is not there, or cannot be opened so.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
