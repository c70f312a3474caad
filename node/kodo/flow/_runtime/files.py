"""Write what a flow calls an output: bytes, text, a file, or pieces of either; hashed while it is written."""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from kodo.p2p.errors import CapacityError, UsageError
from kodo.p2p.net.files import whole_file
from kodo.protocol.manifest import Manifest, ManifestBuilder

__all__ = ["LEAST_FREE_BYTES", "is_name_of_file", "media_type_of", "write_file"]

_DISK_READ_BYTES = 1 << 20
_WRITE_BYTES = 256 << 10
"""Most bytes of one write: for a whole MiB ext4 looks for that much memory in one piece, which costs it more CPU."""
_WORTH_A_THREAD = 256 << 10
_CHECK_EVERY_BYTES = 64 << 20
_MAX_PATH = 500

LEAST_FREE_BYTES = 128 << 20
"""What a large output leaves free on the disk."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

# Not left to the machine's own tables: the same name has the same type on every worker.
_TYPES = {".md": "text/markdown", ".json": "application/json", ".svg": "image/svg+xml", ".yaml": "application/yaml"}


def media_type_of(name: str) -> str:
    """Guess a media type by the name's ending."""
    suffix = os.path.splitext(name)[1].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"


def write_file(path: Path, source: Any, *, parts: Path | None = None) -> Manifest:
    """Write `source` to `path`, whole or not at all, and hash it.

    Args:
        path: where to; missing folders are made (0700).
        source: bytes, `str` (stored as UTF-8), a `Path` or an open binary file to copy, or an iterable of
            bytes or text.
        parts: where it lies until it is whole; see `whole_file`.

    Raises:
        UsageError: `source` is nothing of that, or a folder, a device or a named pipe.
        CapacityError: the disk is full, or nearly (`LEAST_FREE_BYTES`).
        OSError: reading or writing failed otherwise.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    builder = ManifestBuilder()
    try:
        with whole_file(path, parts=parts) as file:
            _write(file, _within_room(_pieces(source, path.parent), path.parent), builder)
    except OSError as error:
        if error.errno in _FULL:
            raise CapacityError(f"{path.name!r} does not fit on this machine's disk: {error.strerror}") from error
        raise
    return builder.finish()


def _within_room(pieces: Iterator[bytes | memoryview], folder: Path) -> Iterator[bytes | memoryview]:
    """Yield pieces while the disk has room for them: sources may be larger than any disk, or never end."""
    unchecked = 0
    for piece in pieces:
        unchecked += len(piece)
        if unchecked >= _CHECK_EVERY_BYTES:
            unchecked = 0
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
                raise OSError(errno.ENOSPC, f"less than {LEAST_FREE_BYTES} bytes would be left")
        yield piece


def _write(file: Any, pieces: Iterator[bytes | memoryview], builder: ManifestBuilder) -> None:
    """Write pieces and hash them; of large ones two threads make one of the two hashes each meanwhile."""
    with contextlib.ExitStack() as stack:
        others: ThreadPoolExecutor | None = None
        for piece in pieces:
            if len(piece) < _WORTH_A_THREAD:
                builder.update(piece)
                file.write(piece)
                continue
            if others is None:
                others = stack.enter_context(ThreadPoolExecutor(2, "kodo-hash"))
            hashes = [others.submit(half, piece) for half in (builder.update_whole, builder.update_chunks)]
            try:
                for start in range(0, len(piece), _WRITE_BYTES):
                    file.write(piece[start : start + _WRITE_BYTES])
            finally:
                wait(hashes)  # before the next piece, for which its maker may use the same memory
            for each in hashes:
                each.result()


def _pieces(source: Any, folder: Path) -> Iterator[bytes | memoryview]:
    if isinstance(source, str):
        yield source.encode("utf-8", "backslashreplace")
    elif isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source).cast("B")
        for start in range(0, len(view), _DISK_READ_BYTES):
            yield view[start : start + _DISK_READ_BYTES]
    elif isinstance(source, os.PathLike):
        # Without waiting for whoever may never write into a pipe.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = _check_source(descriptor, os.fspath(source), pipes=False)
            disk = os.statvfs(folder)
            if size > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, f"{os.fspath(source)} has {size} bytes")
            with open(descriptor, "rb", closefd=False) as file:
                yield from _read(file)
        finally:
            os.close(descriptor)
    elif hasattr(source, "read"):
        with contextlib.suppress(AttributeError, OSError, ValueError, TypeError):  # none of the system's files
            _check_source(source.fileno(), repr(getattr(source, "name", type(source).__name__)), pipes=True)
        yield from _read(source)
    elif isinstance(source, Iterable):
        for piece in source:
            if not isinstance(piece, (str, bytes, bytearray, memoryview)):
                raise UsageError(f"an output is made of bytes or text, not of {type(piece).__name__}")
            yield from _pieces(piece, folder)
    else:
        raise UsageError(f"an output is bytes, text, a path, or pieces of these, not {type(source).__name__}")


def _check_source(descriptor: int, name: Any, *, pipes: bool) -> int:
    """Refuse what is no file, or never ends; return its bytes.

    Raises:
        UsageError: it is a folder, a device or, unless the flow opened it itself, a pipe.
    """
    about = os.fstat(descriptor)
    if stat.S_ISDIR(about.st_mode):
        raise UsageError(f"{name} is a folder: write its files one by one, or pack it with shutil.make_archive")
    is_pipe = stat.S_ISFIFO(about.st_mode) or stat.S_ISSOCK(about.st_mode)
    if stat.S_ISREG(about.st_mode) or (pipes and is_pipe):
        return about.st_size
    kind = "a pipe, which may never end" if is_pipe else "a device"
    raise UsageError(f"{name} is {kind}: read what you need from it, and write that")


def is_name_of_file(source: Any) -> bool:
    """Return whether a text that is to be written is the name of a file that is there."""
    try:
        return type(source) is str and 0 < len(source) <= _MAX_PATH and "\n" not in source and os.path.isfile(source)
    except (OSError, ValueError):
        return False


def _read(file: Any) -> Iterator[bytes]:
    while piece := file.read(_DISK_READ_BYTES):
        yield piece.encode() if isinstance(piece, str) else piece
