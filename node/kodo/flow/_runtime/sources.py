"""Where the sources of flows are imported from, and what their modules are called.

A *root* is a folder on the import path: a scope's own, those that it names, and the folder above the package that a
named file belongs to. Python's own modules go before those of the roots, so that a stray `random.py` breaks nothing.
Packages of one name in several roots are kept apart: a flow sees that of its own root.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.machinery
import os
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from kodo.flow._runtime.projects import set_environment
from kodo.flow.kodosumi.standin import install as install_kodosumi
from kodo.p2p.errors import NotFoundError, UsageError
from kodo.p2p.net.files import read_regular

__all__ = [
    "add_roots",
    "enter_scope",
    "file_of",
    "forget_shared",
    "hint_of",
    "import_source",
    "module_of",
    "root_of",
    "strays",
]

_MAX_SOURCE_BYTES = 1 << 20
_MAX_LEVELS = 20
_SLOPPY = frozenset(["test", "idlelib", "turtledemo", "antigravity", "this"])
"""Modules of Python's own that no other needs: names that scripts may have."""

_STANDARD = frozenset(name for name in sys.stdlib_module_names - _SLOPPY if not name.startswith("_"))
_PLACES = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
_PLACES += [os.path.join(place, "lib-dynload") for place in _PLACES]
_PLACES = list(dict.fromkeys(_PLACES))
"""Where modules of Python's own lie; in a virtual environment the second is none of them."""

_ZIP = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"

_roots: list[str] = []
_shared: set[str] = set()
"""Top-level names that several of the roots have."""


class _StandardFirst:
    """Finds Python's own modules in Python's own folders alone, and sloppy names, as `test`, in the roots first."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Return where a module with a name of Python's is; None for any other, and where it is not."""
        if path is None and name in _STANDARD:
            return importlib.machinery.PathFinder.find_spec(name, _PLACES)
        if path is not None or name not in _SLOPPY:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, _roots)
        return found if found is not None and found.loader is not None else None  # a mere folder is the last choice


def add_roots(roots: list[str]) -> None:
    """Put folders of sources first on the import path, in their order; one that is a package itself comes last.

    Where one has a file with the name of a module of Python's, Python's own folders come before them: processes that
    a flow starts by `multiprocessing` get this path.
    """
    found = [str(Path(root).resolve()) for root in roots]
    _roots[:] = [*found, *(root for root in _roots if root not in found)]
    if any(map(_has_stray, found)):
        sys.path[:] = [*(place for place in sys.path if _is_pythons(place)), *sys.path]
        sys.path[:] = dict.fromkeys(sys.path)
    for root in reversed(found):
        if root in sys.path:
            sys.path.remove(root)
        if not _is_package(Path(root)):
            _put_first(root)
    sys.path.extend(root for root in found if root not in sys.path)
    _note_shared()
    if _StandardFirst not in sys.meta_path:
        places = [place for place, finder in enumerate(sys.meta_path) if finder is importlib.machinery.PathFinder]
        sys.meta_path.insert(places[0] if places else len(sys.meta_path), _StandardFirst)
    importlib.invalidate_caches()
    install_kodosumi()


def _put_first(root: str) -> None:
    """Put a folder first on the import path, but for Python's own where those stand first."""
    own = next((place for place, folder in enumerate(sys.path) if not _is_pythons(folder)), len(sys.path))
    sys.path.insert(own, root)


def _is_pythons(place: str) -> bool:
    return place in _PLACES or os.path.basename(place) == _ZIP


def _has_stray(root: str) -> bool:
    with contextlib.suppress(OSError):
        names = set(os.listdir(root))
        return any(f"{name}.py" in names or (name in names and _is_package(Path(root, name))) for name in _STANDARD)
    return False


def enter_scope(roots: list[str]) -> None:
    """Import from these folders from now on, and in the first of them, the scope's, as every process does."""
    add_roots(roots)
    if roots:
        with contextlib.suppress(OSError):  # what cannot be entered cannot be imported from either
            os.chdir(roots[0])


def import_source(name: str) -> ModuleType:
    """Import a flow's module. Where several roots have what it imports, its own root's is taken.

    Before that, variables that its project's `langgraph.json` has for it are set.

    Raises:
        UsageError: these variables cannot be read.
        Exception: whatever the module raises.
    """
    own = next((root for root in _holding(name.partition(".")[0]) if not _is_package(Path(root))), None)
    set_environment(name, [*([own] if own is not None else []), *_roots])
    if own is not None and len(_roots) > 1 and own in sys.path:
        sys.path.remove(own)
        _put_first(own)
    return importlib.import_module(name)


def forget_shared() -> None:
    """Forget modules whose names several roots have, so that another flow imports those of its own root."""
    if _shared:
        for name in [name for name in sys.modules if name.partition(".")[0] in _shared]:
            del sys.modules[name]


def root_of(file: Path) -> Path:
    """Return the folder that a file is imported from: above its package, as far up as its relative imports lead."""
    folder = file.parent
    levels = min(_levels_of(file), _MAX_LEVELS)
    while (levels > 0 or _is_package(folder)) and folder != folder.parent and folder.name.isidentifier():
        folder, levels = folder.parent, levels - 1
    return folder


def file_of(spec: str, base: Path) -> Path | None:
    """Return the file by which a line of a scope is imported: the one that it names, or, of a module's name, the
    module's where its relative imports lead out of the scope's folder; None where its module's name is enough.
    """
    name = spec.partition(":")[0]
    if name.endswith(".py"):
        return (base / name).resolve()
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    file = base.joinpath(*parts).with_suffix(".py").resolve()
    return file if os.path.isfile(file) and _levels_of(file) >= len(parts) else None


def module_of(file: Path, roots: list[str] | list[Path]) -> str:
    """Return the name by which a file is imported from one of some roots.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be imported; says why, and what would be instead.
    """
    file = file.resolve()
    if not os.path.isfile(file):
        raise NotFoundError(f"there is no file {file}")
    places = [Path(root).resolve() for root in roots]
    own = root_of(file)
    for root in [place for place in places if place == own] + [each for each in places if each != own]:
        parts = file.relative_to(root).with_suffix("").parts if file.is_relative_to(root) else ()
        if parts and all(part.isidentifier() for part in parts):
            break
    else:
        raise UsageError(
            f"{file} cannot be imported: it must be below the scope's folder, in folders with plain names"
        )
    if parts[0] in _STANDARD:
        first = root / parts[0]
        name = first.name if os.path.isdir(first) else f"{first.name}.py"
        raise UsageError(f"{name} in {root} has the name of a module of Python's: rename it")
    holding = _holding(parts[0], places)
    if holding and Path(holding[0]) != root:
        other = Path(holding[0]) / Path(*parts).with_suffix(".py")
        if os.path.isfile(other):
            name = ".".join(parts)
            raise UsageError(
                f"{file} and {other} are both imported as {name}: rename one of them or of their folders"
            )
    return ".".join(parts)


def strays(roots: list[str] | list[Path]) -> list[Path]:
    """Return files and packages in some roots that have the name of a module of Python's: they are not imported."""
    found = [Path(root) / name for root in roots for name in sorted(_STANDARD)]
    files = [path.with_suffix(".py") for path in found if os.path.isfile(path.with_suffix(".py"))]
    return [*files, *(path for path in found if _is_package(path))]


_NAMED = re.compile(r"module '(\w+)' has no attribute|cannot import name '\w+' from (?:[a-z ]* module )?'(\w+)")


def hint_of(error: BaseException) -> str:
    """Return what may help with an error of an import: which file was not imported, for its name; else empty."""
    if not isinstance(error, (ImportError, AttributeError)):
        return ""
    match = _NAMED.search(str(error))
    name = next(filter(None, match.groups()), "") if match else ""
    if not name and isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
    if name in _STANDARD:
        hidden = next((path for path in strays(_roots) if path.stem == name), None)
        said = "which was not imported, since a module of Python's has its name: rename it"
        return f"; there is a {hidden}, {said}" if hidden else ""
    places = _holding(name)
    if len(places) < 2:
        return ""
    return f"; {' and '.join(places[:3])} both have {name}, and only that of the flow's own folder was imported"


def _holding(name: str, roots: list[str] | list[Path] | None = None) -> list[str]:
    """Return the roots that have a module or package of a name; folders without `__init__.py` if nobody has more."""
    places = [Path(root) for root in (_roots if roots is None else roots)]
    if not name.isidentifier():
        return []
    found = [str(root) for root in places if _is_package(root / name) or os.path.isfile(root / f"{name}.py")]
    return found or [str(root) for root in places if os.path.isdir(root / name)]


def _is_package(folder: Path) -> bool:
    return os.path.isfile(folder / "__init__.py")


def _levels_of(file: Path) -> int:
    """Return how many folders up the relative imports of a file lead, from none to as many as it has dots."""
    try:
        tree = ast.parse(read_regular(file, _MAX_SOURCE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return 0  # importing it will say so
    return max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)


def _note_shared() -> None:
    _shared.clear()
    known: set[str] = set()
    for root in map(Path, _roots if len(_roots) > 1 else ()):
        names: set[str] = set()
        with contextlib.suppress(OSError):
            names = {each.stem for each in root.iterdir() if each.suffix == ".py" or _is_package(each)}
        _shared.update(names & known - _STANDARD)
        known |= names
