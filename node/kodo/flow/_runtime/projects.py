"""Projects as the frameworks' own tools lay them out: `langgraph.json`, and what `pyproject.toml` says of a flow."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import NotFoundError, UsageError

__all__ = ["GRAPHS", "Graph", "graphs_of", "is_graphs", "project_definition", "roots_of_graphs"]

GRAPHS = "langgraph.json"
"""The file's name."""

_MAX_BYTES = 1 << 20
_MAX_GRAPHS = 1000
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
    names = [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
    places = [file.parent, *((file.parent / name).resolve() for name in names if name.startswith("."))]
    sources = [place / "src" for place in places]
    return [place for place in dict.fromkeys([*places, *sources]) if place.is_dir()]


def project_definition(file: Path, name: str, description: str = "") -> FlowDefinition:
    """Return what the `pyproject.toml` above a file says of the flows in its project.

    The organization is `organization` in `[tool.kodo]`, else the first author's name.
    """
    said: Mapping[str, Any] = {}
    for folder in list(file.resolve().parents)[:_MAX_UP]:
        if (folder / "pyproject.toml").is_file():
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


def _graph(file: Path, name: str, value: Any, base: Path) -> Graph:
    path = value.get("path") if isinstance(value, Mapping) else value
    description = str(value.get("description") or "") if isinstance(value, Mapping) else ""
    module, colon, attribute = path.rpartition(":") if isinstance(path, str) else ("", "", "")
    if not colon or not re.fullmatch(r"[A-Za-z_]\w*", attribute):
        raise UsageError(f"the graph {name} in {file} is not written as ./file.py:attribute or module:attribute")
    if module.endswith((".js", ".ts", ".mjs", ".mts")):
        raise UsageError(f"the graph {name} in {file} is not in Python")
    if module.endswith(".py"):
        module = str((file.parent / module).resolve())
    return Graph(name, f"{module}:{attribute}", description)


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}")
    try:
        said = json.loads(_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from None
    return _map(said)


def _text(file: Path) -> str:
    with file.open("rb") as source:
        data = source.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    return data.decode()


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
