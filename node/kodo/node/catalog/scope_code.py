"""The sources of a scope: which there are, when they were changed, and as they were when its flows were described."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kodo.flow._runtime.kept_code import pack_code
from kodo.node.catalog.source_reader import read_as, read_sources
from kodo.p2p.errors import KodoError
from kodo.p2p.net.files import whole_file

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = ["MAX_BYTES", "MAX_FILES", "ScopeCode", "Seen", "packages_below"]

logger = logging.getLogger(__name__)

Seen = Mapping[str, tuple[int, int]]
"""Sources by their path: time of the last change (ns), size (bytes)."""

MAX_FILES = 2000
MAX_BYTES = 16 << 20
"""Sources of a scope that are kept, the nearest to its folder first."""

_MAX_KEPT_BYTES = 2 * MAX_BYTES
"""The last file that is looked at may lead beyond."""

_MAX_FOLDERS = 2000
_ENDINGS = (".py", ".yaml", ".yml")
_LEFT_OUT = frozenset(["node_modules", "__pycache__", "site-packages"])


class ScopeCode:
    """Looks at the sources below some folders. Its methods block, but for `keep`.

    Args:
        roots: the folders.
        folder: where sources are kept; None: nowhere.
        besides: further files of which it counts when they were changed, as the scope file. They are not kept.
        without: a folder that does not count, as the node's home.
        account: that imports them, where it is not this process's. It reads them, and may read what is kept.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        folder: Path | None,
        besides: Sequence[Path] = (),
        *,
        without: Path | None = None,
        account: Account | None = None,
    ):
        self.watch(roots, besides)
        self._account = account
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

    async def keep(self, seen: Seen, roots: list[str] | tuple[str, ...] = ()) -> str:
        """Keep the sources as they are; return the file that has them, empty where nothing can be kept.

        Args:
            roots: the folders that they are imported from.
        """
        if self._folder is None:
            return ""
        paths = [path for path in seen if path.endswith(_ENDINGS)]
        try:
            if self._account is None:
                contents = await asyncio.to_thread(read_sources, paths, _MAX_KEPT_BYTES)
            else:
                contents = await read_as(self._account, paths, _MAX_KEPT_BYTES)
            return await asyncio.to_thread(self._write, self._folder, seen, contents, roots)
        except (OSError, KodoError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            logger.warning("the code of flows cannot be kept: %s; what is edited from now on may run", why)
            return ""

    def _write(
        self, folder: Path, seen: Seen, contents: Mapping[str, bytes], roots: list[str] | tuple[str, ...]
    ) -> str:
        # What holds secrets, say, is empty here: a process reads it when it begins.
        unkept = {path: b"" for path in seen if not path.endswith(_ENDINGS)}
        packed = pack_code(seen, {**contents, **unkept}, roots)
        file = folder / hashlib.sha256(packed).hexdigest()[:32]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(file) as writing:
            writing.write(packed)
            if self._account is not None:
                os.fchown(writing.fileno(), -1, self._account.gid)
                os.fchmod(writing.fileno(), 0o640)
        if self._account is not None:  # it finds the file by its name, and lists none
            os.chown(folder, -1, self._account.gid)
            folder.chmod(0o710)
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
        if not stat.S_ISREG(found.st_mode):  # nothing imports a pipe, and reading it would wait
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
