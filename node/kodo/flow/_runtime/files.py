"""Write what a flow calls an output: bytes, text, a file, or pieces of either; hashed while it is written."""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kodo.p2p.errors import CapacityError, UsageError
from kodo.p2p.net.files import whole_file
from kodo.protocol.manifest import Manifest, ManifestBuilder

__all__ = ["media_type_of", "write_file"]

_DISK_READ_BYTES = 1 << 20
_WORTH_A_THREAD = 256 << 10
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
        UsageError: `source` is nothing of that.
        CapacityError: the disk is full.
        OSError: reading or writing failed otherwise.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    builder = ManifestBuilder()
    try:
        with whole_file(path, parts=parts) as file:
            _write(file, _pieces(source), builder)
    except OSError as error:
        if error.errno in _FULL:
            raise CapacityError(f"{path.name!r} does not fit on this machine's disk: {error.strerror}") from error
        raise
    return builder.finish()


def _write(file: Any, pieces: Iterator[bytes | memoryview], builder: ManifestBuilder) -> None:
    """Write pieces and hash them; of large ones a second thread makes one of the two hashes meanwhile."""
    with contextlib.ExitStack() as stack:
        other: ThreadPoolExecutor | None = None
        for piece in pieces:
            if len(piece) < _WORTH_A_THREAD:
                builder.update(piece)
                file.write(piece)
                continue
            if other is None:
                other = stack.enter_context(ThreadPoolExecutor(1, "kodo-hash"))
            whole = other.submit(builder.update_whole, piece)
            builder.update_chunks(piece)
            file.write(piece)
            whole.result()  # before the next piece, for which its maker may use the same memory


def _pieces(source: Any) -> Iterator[bytes | memoryview]:
    if isinstance(source, str):
        yield source.encode("utf-8", "backslashreplace")
    elif isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source).cast("B")
        for start in range(0, len(view), _DISK_READ_BYTES):
            yield view[start : start + _DISK_READ_BYTES]
    elif isinstance(source, os.PathLike):
        with open(source, "rb") as file:
            yield from _read(file)
    elif hasattr(source, "read"):
        yield from _read(source)
    elif isinstance(source, Iterable):
        for piece in source:
            if not isinstance(piece, (str, bytes, bytearray, memoryview)):
                raise UsageError(f"an output is made of bytes or text, not of {type(piece).__name__}")
            yield from _pieces(piece)
    else:
        raise UsageError(f"an output is bytes, text, a path, or pieces of these, not {type(source).__name__}")


def _read(file: Any) -> Iterator[bytes]:
    while piece := file.read(_DISK_READ_BYTES):
        yield piece.encode() if isinstance(piece, str) else piece
