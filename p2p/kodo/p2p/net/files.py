"""Files that get their names whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

__all__ = ["make_once", "whole_file"]

_NAME_BYTES = 8
"""Random bytes in a temporary name: no name that somebody chose can be expected to meet it."""

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


def make_once(path: Path, data: bytes, *, link: Callable[[Path, Path], None] = os.link) -> bool:
    """Write a file that does not exist yet, as a key; return whether it was not, and so holds `data` now.

    It is whole or not there, and on the disk when this returns: not even a crash leaves half a key. (It may leave the
    temporary file, which nothing reads.)

    Args:
        link: gives a file a second name, which must be free.

    Raises:
        OSError: it cannot be written; there is none then.
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


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
