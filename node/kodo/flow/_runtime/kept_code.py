"""The code of a scope as it was when its flows were described, for processes that import it later.

A form and the code behind it are of the same moment: what has been edited since is imported as it was. The node keeps
the sources in one file, `{path: [mtime_ns, size, bytes]}` as msgpack; a process that was told of it (`use_kept_code`)
imports a source that has another time or size by now from there. The code keeps its place: `__file__` is the same,
and data that it reads beside itself is what is there now. Under an empty path stand the folders that the code is
imported from, which a scope may change as well.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack

from kodo.flow._runtime.sources import add_roots
from kodo.p2p.net.files import read_regular

__all__ = ["CODE", "kept_as", "kept_sources", "kept_text", "pack_code", "use_kept_code"]

CODE = "KODO_CODE"
"""The variable that tells the workers of a run's Ray tasks which file it is."""

_RACY_NS = 2_000_000_000
"""Compiled code knows its source by the second."""

_MAX_TEXT_BYTES = 16 << 20

_NAMES = "surrogateescape"
"""How Python has what is no UTF-8 in names of files: such a file may lie beside flows."""

_kept: Mapping[str, list[Any]] = {}
_since = 0  # when it was kept, ns


_ROOTS = ""
"""The path under which the folders stand."""


def pack_code(
    files: Mapping[str, tuple[int, int]], contents: Mapping[str, bytes], roots: list[str] | tuple[str, ...] = ()
) -> bytes:
    """Return what is kept: of each file its time (ns), size and content; and the folders to import from."""
    kept: dict[str, Any] = {path: [*files[path], data] for path, data in sorted(contents.items())}
    packed: bytes = msgpack.packb({**kept, _ROOTS: list(roots)}, unicode_errors=_NAMES)
    return packed


def use_kept_code(file: str) -> None:
    """Import sources as this file has them, and from where it says, from now on.

    One that is gone, or cannot be read, changes nothing.
    """
    global _kept, _since
    try:
        kept, since = _unpack(file), os.stat(file).st_mtime_ns
    except (OSError, ValueError, msgpack.UnpackException):
        return
    add_roots(kept.pop(_ROOTS, []))
    first = not _kept
    _kept, _since = kept, since
    if first:
        sys.path_hooks.insert(0, _hook)
    sys.path_importer_cache.clear()


def _unpack(file: str) -> dict[str, Any]:
    kept: dict[str, Any] = msgpack.unpackb(Path(file).read_bytes(), unicode_errors=_NAMES)
    return kept


def kept_sources(file: str) -> dict[str, bytes]:
    """Return the sources that a file has, by their paths; none of one that is gone, or cannot be read."""
    try:
        kept = _unpack(file) if file else {}
    except (OSError, ValueError, msgpack.UnpackException):
        return {}
    # One with a size and no content is not kept.
    return {path: each[2] for path, each in kept.items() if path != _ROOTS and (each[2] or not each[1])}


def kept_as(path: Path) -> str:
    """Return the path under which a file is kept: by the name in its folder, also where that is a link."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def kept_text(path: Path) -> str:
    """Return the text of a file as it was kept, else as it is.

    Raises:
        OSError, ValueError: it cannot be read, or is no text of up to 16 MiB.
    """
    data = _changed(kept_as(path))
    return (read_regular(path, _MAX_TEXT_BYTES) if data is None else data[2]).decode()


def _changed(path: str) -> list[Any] | None:
    """Return what is kept of a file that is another one by now."""
    kept = _kept.get(path)
    if kept is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return kept
    return None if [found.st_mtime_ns, found.st_size] == kept[:2] else kept


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a source as it was kept. Compiled code is told from newer one by its time, as Python does."""

    def get_data(self, path: str) -> bytes:
        """Return the source, or compiled code."""
        kept = _changed(path)
        if kept is None:
            return super().get_data(path)
        data: bytes = kept[2]
        return data

    def path_stats(self, path: str) -> dict[str, Any]:
        """Return time and size of the source, by which compiled code is known to be of it.

        Raises:
            OSError: that would not tell it from another one: it is as it was kept, or had just been edited then.
        """
        if _changed(path) is not None or (path in _kept and _kept[path][0] > _since - _RACY_NS):
            raise OSError(f"{path} is compiled anew")
        return dict(super().path_stats(path))


_finder = importlib.machinery.FileFinder.path_hook(
    (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    (_Loader, importlib.machinery.SOURCE_SUFFIXES),
    (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
)


def _hook(place: str) -> Any:
    """Find modules in a folder from which something is kept."""
    folder = os.path.join(os.path.realpath(place), "")
    if not any(path.startswith(folder) for path in _kept):
        raise ImportError(f"nothing is kept of {place}")
    return _finder(place)
