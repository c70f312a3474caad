"""The Python files of a tree: a folder, or a zip that is read in place and never unpacked to disk."""

from __future__ import annotations

import os
import stat
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from kodo.p2p.errors import CapacityError, UsageError
from kodo.protocol.uploads import is_upload_id

__all__ = ["MAX_FILES", "MAX_FILE_BYTES", "MAX_TOTAL_BYTES", "Source", "Tree", "open_tree"]

MAX_FILES = 50_000
MAX_FILE_BYTES = 4 << 20
"""A larger file is skipped and listed as skipped: it is data that happens to be called `.py`."""
MAX_TOTAL_BYTES = 1 << 30

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})


@dataclass(frozen=True, slots=True)
class Source:
    """One file: `path` relative to the root with `/` between its parts, `size` in bytes as announced.

    `module` is its dotted name; `package` the folder that it counts to, `""` for files in the root itself.
    """

    path: str
    size: int
    module: str
    package: str


class _Reader(Protocol):
    def __call__(self, path: str, /) -> bytes: ...


@dataclass(frozen=True)
class Tree:
    """What is to be read.

    Attributes:
        label: what people know it by.
        sources: sorted by package, then by path.
        skipped: path and reason of each Python file that is left out.
        read: gives the bytes of one source's path, at most `MAX_FILE_BYTES`; raises `OSError` or `ValueError`.
    """

    label: str
    sources: list[Source]
    read: _Reader
    skipped: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def open_tree(root: str | None) -> Iterator[Tree]:
    """Open a folder, a `.zip`, or, with None, the standard library of the running interpreter.

    Raises:
        UsageError: there is no such folder or zip, or it holds no Python.
        CapacityError: it is larger than the bounds above.
    """
    if root is None:
        path = Path(sysconfig.get_path("stdlib"))
        label = f"the standard library of Python {sysconfig.get_python_version()}"
    else:
        path, label = Path(root).expanduser(), root
        if is_upload_id(path.parent.name):
            label = path.name  # where it lies here says nothing to those who sent it
    if path.is_dir():
        yield _checked(_folder(path, label))
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                yield _checked(_archive(archive, label))
        except zipfile.BadZipFile as error:
            raise UsageError(f"{label} is a damaged zip: {error}") from error
    else:
        raise UsageError(f"{label} is neither a folder nor a zip; name one that this node can read")


def _checked(tree: Tree) -> Tree:
    if not tree.sources:
        raise UsageError(f"{tree.label} holds no Python file that can be read")
    if len(tree.sources) > MAX_FILES:
        raise CapacityError(f"{tree.label} holds more than {MAX_FILES:,} Python files; name a part of it")
    if sum(source.size for source in tree.sources) > MAX_TOTAL_BYTES:
        raise CapacityError(f"{tree.label} holds more than {MAX_TOTAL_BYTES:,} bytes of Python; name a part of it")
    tree.sources.sort(key=lambda source: (source.package, source.path))
    return tree


def _sources(sizes: dict[str, int], root_name: str = "") -> list[Source]:
    """Name the modules of all files, as their imports do, and the package that each counts to.

    A folder `src` that is no package is where packages lie, not part of their names; and where the root itself is a
    package, its name stands before all others. Packages are the folders right below the root, or, where all files
    lie in one of these, right below that.
    """
    inside_src = "src/__init__.py" not in sizes
    top = f"{root_name}." if root_name and "__init__.py" in sizes else ""
    inner = {path: path.removeprefix("src/") if inside_src else path for path in sizes}
    folders = {path: tuple(name.split("/")[:-1]) for path, name in inner.items()}
    shortest, longest = min(folders.values(), default=()), max(folders.values(), default=())
    shared = 0
    while shared < len(shortest) and shortest[shared] == longest[shared]:
        shared += 1
    sources = []
    for path, size in sizes.items():
        name = top + inner[path].removesuffix(".py").replace("/", ".")
        name = name.removesuffix(".__init__")
        sources.append(Source(path, size, name, ".".join(folders[path][: shared + 1])))
    return sources


def _too_large(size: int) -> str:
    return f"{size:,} bytes, more than {MAX_FILE_BYTES:,}"


def _folder(root: Path, label: str) -> Tree:
    sizes: dict[str, int] = {}
    skipped: list[tuple[str, str]] = []
    # Links are not followed: a tree may hold links to its own parents.
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(".")]
        for name in files:
            if not name.endswith(".py"):
                continue
            file = Path(folder, name)
            path = file.relative_to(root).as_posix()
            try:
                status = file.lstat()
            except OSError as error:
                skipped.append((path, error.strerror or "unreadable"))
                continue
            if not stat.S_ISREG(status.st_mode):
                skipped.append((path, "not a regular file"))
            elif status.st_size > MAX_FILE_BYTES:
                skipped.append((path, _too_large(status.st_size)))
            else:
                sizes[path] = status.st_size
        if len(sizes) > MAX_FILES:
            break

    def read(path: str) -> bytes:
        with (root / path).open("rb") as file:
            return _bounded(file.read(MAX_FILE_BYTES + 1))

    return Tree(label, _sources(sizes, root.resolve().name), read, skipped)


def _archive(archive: zipfile.ZipFile, label: str) -> Tree:
    entries: dict[str, zipfile.ZipInfo] = {}
    skipped: list[tuple[str, str]] = []
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        folders = parts[:-1]
        if entry.is_dir() or not entry.filename.endswith(".py"):
            continue
        if any(name in SKIPPED_FOLDERS or (name.startswith(".") and name != "..") for name in folders):
            continue
        if entry.filename.startswith("/") or ".." in parts:
            skipped.append((entry.filename, "its name leaves the archive"))
        elif entry.flag_bits & 1:
            skipped.append((entry.filename, "encrypted"))
        elif entry.file_size > MAX_FILE_BYTES:
            skipped.append((entry.filename, _too_large(entry.file_size)))
        else:
            entries["/".join(parts)] = entry
        if len(entries) > MAX_FILES:
            break
    prefix = _common_folder(entries)
    sources = _sources({name[len(prefix) :]: entry.file_size for name, entry in entries.items()}, Path(label).stem)

    def read(path: str) -> bytes:
        # What the archive says of a file's size is a claim; reading stops at the bound whatever it says.
        try:
            with archive.open(entries[prefix + path]) as file:
                return _bounded(file.read(MAX_FILE_BYTES + 1))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"damaged in the zip: {error}") from error

    return Tree(label, sources, read, skipped)


def _common_folder(names: dict[str, zipfile.ZipInfo]) -> str:
    """`project-1.0/` where all lies in that one folder and it is no package itself, as forges zip a project."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    if len(tops) != 1 or any("/" not in name for name in names):
        return ""
    prefix = f"{tops.pop()}/"
    return "" if f"{prefix}__init__.py" in names else prefix


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(_too_large(len(data)))
    return data
