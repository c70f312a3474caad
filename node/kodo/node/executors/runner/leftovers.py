"""Files that a flow or its libraries wrote into the run's own folder: kept as outputs, or told before they go."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from kodo.flow.decorator import FOLDER
from kodo.p2p.errors import KodoError

__all__ = ["MAX_FILES", "handle_leftovers", "left_in"]

MAX_FILES = 10_000
"""Looked at; further ones are not told."""

_TOLD = 20
_OF_KODO = frozenset(["memory", "delegated"])  # copies of what is kept elsewhere
_OF_NOBODY = frozenset(["__pycache__", "node_modules"])


def left_in(folder: Path, known: Collection[tuple[int, int]] = ()) -> list[tuple[str, int]]:
    """Return names and bytes of the files below a folder, by name; hidden ones, links and caches are left out.

    Args:
        known: device and inode of files that are not left behind: outputs were made of them.
    """
    found: list[tuple[str, int]] = []
    for place, folders, names in os.walk(folder):
        top = Path(place) == folder
        folders[:] = sorted(
            name for name in folders if not (name[0] == "." or name in _OF_NOBODY or (top and name in _OF_KODO))
        )
        for name in sorted(names):
            path = os.path.join(place, name)
            with contextlib.suppress(OSError, UnicodeError):
                about = os.lstat(path)
                if name[0] == "." or not stat.S_ISREG(about.st_mode) or (about.st_dev, about.st_ino) in known:
                    continue
                relative = os.path.relpath(path, folder)
                relative.encode()
                found.append((relative, about.st_size))
                if len(found) >= MAX_FILES:
                    return found
    return found


def handle_leftovers(
    folder: Path,
    wanted: str,
    known: Collection[tuple[int, int]],
    write: Callable[[str, Path], object],
    warn: Callable[[str], object],
) -> None:
    """Write what lies in the folder as outputs where the flow wants that, else warn once of it; raises nothing.

    Args:
        wanted: `outputs` of the flow.
        write: writes an output: name and source.
        warn: makes an event.
    """
    left = left_in(folder, known)
    if not left:
        return
    if wanted != FOLDER:
        advice = 'to keep files, write output.write(name, Path(name)), or @flow(outputs="folder") for all of them'
        warn(f"{_files(left)} in the folder of the run and will be deleted with it: {_names(left)}; {advice}")
        return
    failed = list(_failures(folder, left, write))
    if failed:
        warn(f"{len(failed)} of the files in the folder of the run could not be kept, as {failed[0]}")


def _failures(folder: Path, left: list[tuple[str, int]], write: Callable[[str, Path], object]) -> Iterator[str]:
    for name, _ in left:
        try:
            write(name, folder / name)
        except (KodoError, OSError, ValueError) as error:
            yield f"{name!r}: {error}"


def _files(left: list[tuple[str, int]]) -> str:
    size = sum(size for _, size in left)
    count = f"{MAX_FILES} or more files" if len(left) == MAX_FILES else f"{len(left)} files"
    return f"one file of {size} bytes was left" if len(left) == 1 else f"{count} of {size} bytes in all were left"


def _names(left: list[tuple[str, int]]) -> str:
    names = ", ".join(name[:200] for name, _ in left[:_TOLD])
    return f"{names} and {len(left) - _TOLD} more" if len(left) > _TOLD else names
