"""Projects as the frameworks' own tools lay them out: `langgraph.json`, and what `pyproject.toml` says of a flow."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.flow.decorator import FlowDefinition
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import KodoError, NotFoundError, UsageError
from kodo.p2p.net.files import read_regular

__all__ = [
    "GRAPHS",
    "MISSING_ENVIRONMENT",
    "Graph",
    "can_be_path",
    "environment_file",
    "graphs_of",
    "has_environment",
    "is_graphs",
    "is_missing",
    "project_definition",
    "roots_of_graphs",
    "set_environment",
]

logger = logging.getLogger(__name__)

GRAPHS = "langgraph.json"
"""The file's name."""

MISSING_ENVIRONMENT = "there is no %s, which %s names as its env: the node's variables remain"
"""What is logged of an `env` that is not there, once: whoever describes and runs its graphs finds it missing, too."""

_MAX_BYTES = 1 << 20
_MAX_GRAPHS = 1000
_MAX_VARIABLES = 1000
_OURS = "KODO_"
"""How variables begin that are the node's to set."""
_MAX_UP = 4
"""Folders above a file in which its project is looked for."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph of a `langgraph.json`: its name there, `file.py:attribute` or `module:attribute`, its description."""

    name: str
    spec: str
    description: str

    @property
    def file(self) -> str:
        """The absolute path of its file; empty where it is named by its module."""
        module = self.spec.rpartition(":")[0]
        return module if module.endswith(".py") else ""


def can_be_path(text: str) -> bool:
    """Return whether a file may have this path: one with a NUL, or with half of a character, has none."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_graphs(spec: str) -> bool:
    """Return whether a line of a scope names a `langgraph.json`, or `langgraph.json:graph`."""
    return Path(spec.partition(":")[0]).name == GRAPHS


def graphs_of(spec: str, base: Path) -> list[Graph]:
    """Return the graphs of a `langgraph.json`, or that which is named.

    Args:
        spec: the file, relative to `base`; `:name` behind it means one.

    Raises:
        NotFoundError: there is no such file, or graph in it.
        UsageError: it cannot be read; says what is wrong.
    """
    name, _, wanted = spec.partition(":")
    file = base / name
    said = _read(file).get("graphs")
    if not isinstance(said, Mapping) or not said or len(said) > _MAX_GRAPHS:
        raise UsageError(f'{file} has no `graphs`, as {{"agent": "./agent.py:graph"}}')
    found = [_graph(file, str(each), value, base) for each, value in said.items()]
    if not wanted:
        return found
    if not any(each.name == wanted for each in found):
        raise NotFoundError(f"{file} has no graph {wanted}; it has {', '.join(each.name for each in found[:20])}")
    return [each for each in found if each.name == wanted]


def roots_of_graphs(spec: str, base: Path) -> list[Path]:
    """Return the folders that a `langgraph.json` imports from: its own, and those among its `dependencies`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be read.
    """
    file = (base / spec.partition(":")[0]).resolve()
    said = _read(file).get("dependencies")
    names = [name for name in said if isinstance(name, str) and can_be_path(name)] if isinstance(said, list) else []
    places = [file.parent, *((file.parent / name).resolve() for name in names if name.startswith("."))]
    sources = [place / "src" for place in places]
    return [place for place in dict.fromkeys([*places, *sources]) if os.path.isdir(place)]


def environment_file(spec: str, base: Path) -> Path | None:
    """Return the file of variables that a `langgraph.json` names as its `env`; None where it names none.

    Raises:
        NotFoundError: there is no such `langgraph.json`.
        UsageError: it cannot be read.
    """
    file = (base / spec.partition(":")[0]).resolve()
    said = _read(file).get("env")
    return file.parent / said if isinstance(said, str) and said else None


def is_missing(file: Path) -> bool:
    """Return whether there is no such file; False of one that cannot be looked at: reading it says why."""
    try:
        os.stat(file)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def has_environment(folder: Path) -> bool:
    """Return whether a folder has a `langgraph.json` with an `env`."""
    try:
        return bool(_read(folder / GRAPHS).get("env"))
    except KodoError:
        return False


def set_environment(module: str, roots: list[str]) -> None:
    """Set the variables that a `langgraph.json` in one of some roots has, as `env`, for a module with a graph of its.

    Where several roots have such a module, that of the first is imported: variables of another's are not for it. What
    the process has stays: its node's own variables, and the switches that keep frameworks silent. Values are told to
    nobody, also not in errors.

    Raises:
        UsageError: an `env` cannot be read; says why.
    """
    parts = module.split(".")
    sources = [(root, Path(root, *parts).with_suffix(".py")) for root in roots]
    sources += [(root, Path(root, *parts, "__init__.py")) for root in roots]
    own, place = next((each for each in sources if os.path.isfile(each[1])), ("", Path()))
    for root in dict.fromkeys(roots):
        file = Path(root, GRAPHS)
        try:
            found = os.stat(file)
            graphs = _known_graphs(root, found.st_mtime_ns, found.st_size)
            named = any(graph.spec.partition(":")[0] == module for graph in graphs)
            if named and own:
                named = Path(own).resolve() in roots_of_graphs(GRAPHS, Path(root))
        except (OSError, KodoError):  # where it is offered, describing it will say so
            continue
        if named or (own and any(graph.file == str(place.resolve()) for graph in graphs)):
            for name, value in _environment(file).items():
                if not name.startswith(_OURS):
                    os.environ.setdefault(name, value)


def project_definition(file: Path, name: str, description: str = "") -> FlowDefinition:
    """Return what the `pyproject.toml` above a file says of the flows in its project.

    The organization is `organization` in `[tool.kodo]`, else the first author's name.
    """
    said: Mapping[str, Any] = {}
    for folder in list(file.resolve().parents)[:_MAX_UP]:
        if os.path.isfile(folder / "pyproject.toml"):
            try:
                said = tomllib.loads(_text(folder / "pyproject.toml"))
            except (OSError, ValueError, RecursionError):
                said = {}
            break
    project, own = _map(said.get("project")), _map(_map(said.get("tool")).get("kodo"))
    authors = project.get("authors")
    author = _map(authors[0]) if isinstance(authors, list) and authors else {}
    person = str(author.get("name") or author.get("email") or "")
    return FlowDefinition(
        name=name,
        description=description or str(project.get("description") or ""),
        author=str(author.get("email") or person),
        organization=str(own.get("organization") or person),
        release=str(project.get("version") or ""),
    )


@functools.lru_cache(maxsize=64)
def _known_graphs(root: str, changed_ns: int, size: int) -> list[Graph]:
    return graphs_of(GRAPHS, Path(root))


def _environment(file: Path) -> dict[str, str]:
    """Return the variables that a `langgraph.json` has: a map, or the name of a file."""
    said = _read(file).get("env")
    if not said:
        return {}
    if isinstance(said, str):
        if not can_be_path(said):
            raise UsageError(f"`env` in {file}: no file has the name {said[:100]!r}")
        return _variables(file, file.parent / said)
    if not isinstance(said, Mapping) or len(said) > _MAX_VARIABLES:
        raise UsageError(f"`env` in {file} is neither a file, as .env, nor a map of variables")
    unnamed = next((name for name in said if not _is_variable(name, "")), None)
    if unnamed is not None:
        raise UsageError(f"`env` in {file}: {unnamed[:100]!r} is no name of a variable")
    wrong = next((name for name, value in said.items() if not _is_variable(name, value)), None)
    if wrong is not None:
        raise UsageError(f"`env` in {file}: the value of {wrong[:100]!r} must be text, a number, or true or false")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def _variables(file: Path, source: Path) -> dict[str, str]:
    """Return the variables in a `.env` file; there may be none, where the node's own have them."""
    try:
        text = _text(source)
    except FileNotFoundError:
        logger.debug(MISSING_ENVIRONMENT, source, file)
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text of up to 1 MiB"
        raise UsageError(f"{source}, which {file} names as its env, cannot be read: {reason}") from None
    try:
        from dotenv import dotenv_values
    except ImportError:
        needed = how_to_install("langgraph")
        raise UsageError(f"python-dotenv, which reads {source}, is not installed; {needed}") from None
    found = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in found.items() if value is not None and _is_variable(name, value)}


def _is_variable(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, (str, int, float)):
        return False
    return bool(name) and "=" not in name and "\0" not in f"{name}{value}"


def _graph(file: Path, name: str, value: Any, base: Path) -> Graph:
    path = value.get("path") if isinstance(value, Mapping) else value
    description = str(value.get("description") or "") if isinstance(value, Mapping) else ""
    module, colon, attribute = path.rpartition(":") if isinstance(path, str) else ("", "", "")
    if not colon or not re.fullmatch(r"[A-Za-z_]\w*", attribute) or not can_be_path(str(path)):
        raise UsageError(f"the graph {name} in {file} is not written as ./file.py:attribute or module:attribute")
    if module.endswith((".js", ".ts", ".mjs", ".mts")):
        raise UsageError(f"the graph {name} in {file} is not in Python")
    if module.endswith(".py"):
        module = str((file.parent / module).resolve())
    return Graph(name, f"{module}:{attribute}", description)


def _read(file: Path) -> Mapping[str, Any]:
    if not os.path.isfile(file):
        raise NotFoundError(f"there is no file {file}")
    try:
        said = json.loads(_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from None
    return _map(said)


def _text(file: Path) -> str:
    return read_regular(file, _MAX_BYTES).decode()


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
