"""What travels to a Ray cluster that was joined: the sources that the catalogue imports, and declared files.

An import of a module takes along its file, an import of a package its folder, and both what *they* import from the
scope's folders, found by reading the sources: nothing is executed, and nothing that no import names is looked at.
What a program imports by computed names, and files that lie beside modules, `files` in the scope file declares.

Keys and secrets never travel, and the whole has a bound.
"""

from __future__ import annotations

import ast
import fnmatch
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import yaml

from kodo.flow._runtime.kept_code import kept_as
from kodo.p2p.errors import CapacityError, UsageError
from kodo.p2p.net.files import read_regular

__all__ = ["MAX_PACKAGE_BYTES", "MAX_PACKAGE_FILES", "Package", "gather", "place_name", "stage"]

MAX_PACKAGE_BYTES = 100 << 20
"""Bytes that travel at most; Ray keeps each version in its head's memory."""
MAX_PACKAGE_FILES = 5000
_MAX_SOURCE_BYTES = 8 << 20
"""Size of a source file above which its imports are not looked for."""

_LEFT_OUT = frozenset(["__pycache__", "node_modules", "site-packages"])
"""Folders in packages that never travel; those whose names begin with a dot neither."""

_SECRET = (
    ".env", ".env.*", "*.env", "*.key", "*.pem", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd",
    "kodo.toml", "credentials", "credentials.json", "secrets.yaml", "secrets.yml", "secrets.json",
    "secrets.toml", "secrets.ini", "logins.json", "token",
)  # fmt: skip
"""Names of files that never travel, also where they are declared."""


@dataclass(slots=True)
class Package:
    """Files by their root and the path below it, with their sizes.

    Attributes:
        files: `(root, relative path)` → bytes.
        kept_back: files of packages, or declared ones, that are secrets or lead elsewhere.
    """

    files: dict[tuple[Path, str], int] = field(default_factory=dict)
    kept_back: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What they take together."""
        return sum(self.files.values())

    def add(self, root: Path, path: Path) -> bool:
        """Take a file along, unless it may not travel; return whether it is new.

        Raises:
            CapacityError: there are too many, or they are too large.
        """
        name = path.relative_to(root).as_posix()
        if (root, name) in self.files:
            return False
        if not path.resolve().is_relative_to(root) or not path.is_file() or _is_secret(path.name):
            self.kept_back.append(name)
            return False
        self.files[root, name] = path.stat().st_size
        if len(self.files) > MAX_PACKAGE_FILES or self.bytes > MAX_PACKAGE_BYTES:
            raise CapacityError(
                f"the flows' sources are more than {MAX_PACKAGE_FILES:,} files or {MAX_PACKAGE_BYTES >> 20} MiB, too "
                f"much to travel to a Ray cluster; most is in {', '.join(self._largest())}: keep data elsewhere"
            )
        return True

    def _largest(self) -> list[str]:
        folders: dict[str, int] = {}
        for (_, name), size in self.files.items():
            folder = name.rpartition("/")[0] or name
            folders[folder] = folders.get(folder, 0) + size
        return sorted(folders, key=lambda folder: -folders[folder])[:3]


def gather(
    roots: Sequence[Path],
    entries: Iterable[str],
    declared: Iterable[str] = (),
    *,
    not_in: Path,
    kept: Mapping[str, bytes] = MappingProxyType({}),
) -> Package:
    """Find what travels. Blocks.

    Args:
        roots: folders that flows are imported from, resolved.
        entries: `module:attribute`, or a YAML file below a root.
        declared: patterns of more files, relative to the first root: `prompts/*.md`, `data/**/*.json`.
        not_in: the node's home, of which nothing travels.
        kept: what sources held when the flows were described, by their paths.

    Raises:
        CapacityError: it is more than may travel.
        UsageError: a declared pattern leads elsewhere, or matches nothing.
    """
    package = Package()
    finder = _Finder(roots, package, not_in.resolve(), kept)
    for entry in entries:
        finder.take_entry(entry)
    for pattern in declared:
        finder.take_declared(pattern)
    return package


def stage(
    package: Package, roots: Sequence[Path], folder: Path, kept: Mapping[str, bytes] = MappingProxyType({})
) -> list[Path]:
    """Copy what travels below `folder`, which is emptied first; return a folder for each root. Blocks.

    Each has a name of its own: by that name a worker finds it among what Ray unpacked. Sources that are `kept` travel
    as they were then.
    """
    shutil.rmtree(folder, ignore_errors=True)
    places = {root: folder / place_name(number) for number, root in enumerate(roots)}
    for place in places.values():
        place.mkdir(parents=True, mode=0o700)
    for root, name in package.files:
        target = places[root] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        data = kept.get(kept_as(root / name))
        if data is None:
            shutil.copyfile(root / name, target)
        else:
            target.write_bytes(data)
    return list(places.values())


def place_name(number: int) -> str:
    """Return the name of the folder in which the files of a root travel."""
    return f"kodo_scope_{number}"


class _Finder:
    def __init__(self, roots: Sequence[Path], package: Package, home: Path, kept: Mapping[str, bytes]):
        self._kept = kept
        self._roots = roots
        self._package = package
        self._home = home
        self._known: set[str] = set()

    def take_entry(self, entry: str) -> None:
        if not entry.endswith((".yaml", ".yml")):
            self._take_import(entry.partition(":")[0].partition(".")[0])
            return
        for root in self._roots:
            path = root / entry
            if path.is_file():
                self._package.add(root, path)
                self._take_imports_of_yaml(path)
                return

    def take_declared(self, pattern: str) -> None:
        if not self._roots or pattern.startswith(("/", "~")) or ".." in Path(pattern).parts:
            raise UsageError(f"`files` in the scope file are below its folder; {pattern!r} is not")
        root, found = self._roots[0], False
        for path in root.glob(pattern):
            found = True
            for file in self._files_of(path) if path.is_dir() else [path]:
                self._take_file(root, file)
        if not found:
            raise UsageError(f"`files` in the scope file: {pattern!r} matches no file in {root.name}")

    def _take_imports_of_yaml(self, path: Path) -> None:
        try:
            value = yaml.safe_load(self._content_of(path))
        except (OSError, ValueError, yaml.YAMLError):
            return  # the catalogue tells what is wrong with it
        if isinstance(value, dict) and isinstance(value.get("entry"), str):
            self.take_entry(value["entry"])

    def _take_import(self, name: str) -> None:
        """Take along the module or package with this top-level name, if a root has it."""
        if name in self._known or not name.isidentifier():
            return
        self._known.add(name)
        for root in self._roots:
            if (folder := root / name).is_dir():
                for path in self._files_of(folder):
                    self._take_file(root, path)
                return
            if (path := root / f"{name}.py").is_file():
                self._take_file(root, path)
                return

    def _take_file(self, root: Path, path: Path) -> None:
        if not path.is_dir() and self._package.add(root, path) and path.suffix == ".py":
            for name in self._imports_of(path):
                self._take_import(name)

    def _files_of(self, folder: Path) -> Iterator[Path]:
        for place, folders, files in os.walk(folder):
            here = Path(place)
            folders[:] = sorted(
                name
                for name in folders
                if name not in _LEFT_OUT
                and not name.startswith(".")
                and not (here / name / "pyvenv.cfg").exists()
                and (here / name).resolve() != self._home
            )
            for name in sorted(files):
                if not name.endswith((".pyc", ".pyo")):
                    yield here / name

    def _imports_of(self, path: Path) -> Iterator[str]:
        """Return the top-level names that a source imports, anywhere in it."""
        try:
            tree = ast.parse(self._content_of(path))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return  # whoever imports it is told
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.partition(".")[0]

    def _content_of(self, path: Path) -> bytes:
        data = self._kept.get(kept_as(path))
        return read_regular(path, _MAX_SOURCE_BYTES) if data is None else data


def _is_secret(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _SECRET)
