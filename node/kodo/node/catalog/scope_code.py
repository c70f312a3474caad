"""The sources of a scope: which there are, when they were changed, and as they were when its flows were described."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kodo.flow._runtime.kept_code import pack_code
from kodo.p2p.net.files import whole_file

__all__ = ["MAX_BYTES", "MAX_FILES", "ScopeCode", "Seen", "packages_below"]

logger = logging.getLogger(__name__)

Seen = Mapping[str, tuple[int, int]]
"""Sources by their path: time of the last change (ns), size (bytes)."""

MAX_FILES = 2000
MAX_BYTES = 16 << 20
"""Sources of a scope that are kept, the nearest to its folder first."""

_MAX_FOLDERS = 2000
_ENDINGS = (".py", ".yaml", ".yml")
_LEFT_OUT = frozenset(["node_modules", "__pycache__", "site-packages"])


class ScopeCode:
    """Looks at the sources below some folders. Its methods block.

    Args:
        roots: the folders.
        folder: where sources are kept; None: nowhere.
        besides: further files of which it counts when they were changed, as the scope file. They are not kept.
        without: a folder that does not count, as the node's home.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        folder: Path | None,
        besides: Sequence[Path] = (),
        *,
        without: Path | None = None,
    ):
        self.watch(roots, besides)
        self._folder = folder
        self._without = os.fspath(without.resolve()) if without is not None else ""
        self._told = False

    def watch(self, roots: Sequence[Path], besides: Sequence[Path] = ()) -> None:
        """Look at these folders and files from now on."""
        self._roots = [root.resolve() for root in roots]
        self._besides = [Path(os.path.abspath(path)) for path in besides]

    @property
    def read_when_run(self) -> frozenset[str]:
        """What is looked at and not kept: a process that runs flows reads it when it begins, as a `.env`."""
        return frozenset(path for path in map(os.fspath, self._besides) if not path.endswith(_ENDINGS))

    def look(self) -> dict[str, tuple[int, int]]:
        """Return all sources as they are now, but for hidden ones and those of virtual environments."""
        seen: dict[str, tuple[int, int]] = {}
        for path in self._besides:
            self._note(seen, os.fspath(path))
        waiting = deque(map(os.fspath, self._roots))
        folders = taken = 0
        while waiting:
            folders += 1
            entries = _entries(waiting.popleft())
            if any(entry.name == "pyvenv.cfg" for entry in entries):
                continue
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _LEFT_OUT or entry.path == self._without:
                    continue
                if entry.name.endswith(_ENDINGS):
                    if len(seen) >= MAX_FILES or taken > MAX_BYTES:
                        return self._cut(seen)
                    taken += self._note(seen, entry.path)
                elif folders + len(waiting) < _MAX_FOLDERS and _is_folder(entry):
                    waiting.append(entry.path)
        return seen

    def keep(self, seen: Seen, roots: list[str] | tuple[str, ...] = ()) -> str:
        """Keep the sources as they are; return the file that has them, empty where nothing can be kept.

        Args:
            roots: the folders that they are imported from.
        """
        if self._folder is None:
            return ""
        contents: dict[str, bytes] = {}
        for path in seen:
            if not path.endswith(_ENDINGS):  # what holds secrets, say: a process reads it when it begins
                contents[path] = b""
                continue
            try:
                contents[path] = Path(path).read_bytes()
            except OSError:
                continue
        packed = pack_code(seen, contents, roots)
        file = self._folder / hashlib.sha256(packed).hexdigest()[:32]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole_file(file) as writing:
                writing.write(packed)
        except OSError as error:
            logger.warning("the code of flows cannot be kept: %s; what is edited from now on may run", error.strerror)
            return ""
        return os.fspath(file)

    def forget(self, but: Collection[str] = ()) -> None:
        """Remove what is kept, but for these files: whoever runs has read its own."""
        for file in self._folder.glob("*") if self._folder is not None else ():
            if os.fspath(file) not in but:
                file.unlink(missing_ok=True)

    def _note(self, seen: dict[str, tuple[int, int]], path: str) -> int:
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # there is no such file, nor can there be
            return 0
        seen[path] = (found.st_mtime_ns, found.st_size)
        return found.st_size

    def _cut(self, seen: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        if not self._told:
            self._told = True
            logger.warning(
                "there are more than %d sources, or %d MiB of them, in the scope's folder: changes of those that lie "
                "deeper are not noticed",
                MAX_FILES,
                MAX_BYTES >> 20,
            )
        return seen


def packages_below(roots: Sequence[Path]) -> list[Path]:
    """Return the folders with a scope's sources: of a root above its own, the first, the package that leads there."""
    own = roots[0] if roots else None
    return [
        root / own.relative_to(root).parts[0]
        if own is not None and root != own and own.is_relative_to(root)
        else root
        for root in roots
    ]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
