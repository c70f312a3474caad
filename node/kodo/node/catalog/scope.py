"""The scope file: the node's name and the flows that it offers. YAML, checked whole before anything is done."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import shlex
import socket
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kodo.flow._runtime.projects import (
    GRAPHS,
    MISSING_ENVIRONMENT,
    can_be_path,
    environment_file,
    graphs_of,
    is_graphs,
    is_missing,
    roots_of_graphs,
)
from kodo.flow._runtime.sources import file_of, root_of, strays
from kodo.p2p.errors import KodoError, UsageError
from kodo.p2p.net.files import read_regular

__all__ = [
    "FlowLimits",
    "Override",
    "Resources",
    "Scope",
    "check_node_name",
    "default_name",
    "load_scope",
    "tell_strays",
]

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20
_MAX_STRAYS = 5
"""Files that are named because they are not imported."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")


def check_node_name(name: str) -> str:
    """Return `name` back when a node may bear it.

    Raises:
        ValueError: it is not like a domain: labels of letters, digits, `_` and `-`, with dots between them.
    """
    if len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):
        raise ValueError(
            f"the node name {name!r} must look like a domain name: letters, digits, - and _ between dots"
        )
    return name


def _check_line(line: str) -> str:
    if not can_be_path(line):
        raise ValueError(f"{line[:100]!r} names no file, and no module")
    return line


_Line = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_line)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Strict):
    """What a flow asks of Ray.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs.
        memory_mb: memory in MiB.
        resources: custom resources of the cluster.
        runtime_env: Ray's runtime environment.
    """

    num_cpus: float | None = Field(default=None, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    memory_mb: int | None = Field(default=None, ge=1)
    resources: dict[str, float] | None = None
    runtime_env: dict[str, Any] | None = None


class FlowLimits(_Strict):
    """Bounds of one flow; `concurrent_runs`: unfinished runs of it at once."""

    concurrent_runs: int | None = Field(default=None, ge=1)


class Override(_Strict):
    """What the operator changes of one flow. `tags` and each of the `resources` replace the author's."""

    tags: list[Annotated[str, Field(min_length=1)]] | None = None
    resources: Resources = Resources()
    limits: FlowLimits = FlowLimits()


class Scope(_Strict):
    """A scope file.

    Attributes:
        name: of the node; None: the machine's host name.
        flows: what is offered: `module:attribute`, `module`, `package.*`, or a YAML file relative to this one.
        overrides: by a flow's path.
        files: patterns of files below the scope's folder that travel to a Ray cluster, besides what flows import.
        roots: folders to import from besides the scope's own, relative to it, e.g. `src`.
    """

    name: Annotated[str, AfterValidator(check_node_name)] | None = None
    flows: list[_Line] = Field(default_factory=list, max_length=10_000)
    overrides: dict[str, Override] = Field(default_factory=dict)
    files: list[_Line] = Field(default_factory=list, max_length=1000)
    roots: list[_Line] = Field(default_factory=list, max_length=100)

    def import_roots(self, base: Path) -> list[Path]:
        """Return the folders that flows are imported from: `base`, the scope's own, comes first. Reads files.

        Raises:
            UsageError: one of `roots` is no folder.
        """
        named = [(base / name).resolve() for name in self.roots]
        missing = next((place for place in named if not os.path.isdir(place)), None)
        if missing is not None:
            raise UsageError(f"`roots` in the scope file: there is no folder {missing}")
        implied: list[Path] = []
        for spec in self.flows:
            if is_graphs(spec):
                with contextlib.suppress(KodoError):  # describing it will say so
                    implied += roots_of_graphs(spec, base)
                    files = [graph.file for graph in graphs_of(spec, base) if graph.file]
                    implied += [root for file in files if (root := root_of(Path(file))) != Path(file).parent]
            elif (source := file_of(spec, base)) is not None and (root := root_of(source)) != source.parent:
                implied.append(root)
        return list(dict.fromkeys([base.resolve(), *named, *implied]))

    def files_beside(self, base: Path) -> list[Path]:
        """Return the files that say more of its flows than their code: `langgraph.json` and its `env`. Reads files.

        An `env` that is not there is logged: the node's own variables may do.
        """
        found: list[Path] = []
        missing: dict[Path, Path] = {}
        for spec in filter(is_graphs, self.flows):
            with contextlib.suppress(KodoError):  # describing it will say so
                file, variables = base / spec.partition(":")[0], environment_file(spec, base)
                found += [file, *([variables] if variables is not None else [])]
                if variables is not None and is_missing(variables):
                    missing[variables] = file
        for variables, file in missing.items():
            logger.warning(MISSING_ENVIRONMENT, variables, file)
        return list(dict.fromkeys(found))


_KEYS = {
    (): list(Scope.model_fields),
    ("overrides", 1): list(Override.model_fields),
    ("overrides", 1, "resources"): list(Resources.model_fields),
    ("overrides", 1, "limits"): list(FlowLimits.model_fields),
}


def load_scope(path: Path) -> Scope:
    """Read and check a scope file. A Python file, or a `langgraph.json`, is the scope of the flows in it.

    Raises:
        UsageError: saying which file, which place, and what would be right.
    """
    if path.suffix == ".py" or path.name == GRAPHS:
        return _scope_of_file(path)
    try:
        raw = read_regular(path, _MAX_BYTES)
    except ValueError as error:
        raise UsageError(f"the scope {path} cannot be read: {error}") from error
    except OSError as error:
        raise UsageError(f"the scope {path} cannot be read: {error.strerror}") from error
    try:
        content = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"the scope {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"the scope {path} is not a map with `name` and `flows`")
    try:
        return Scope.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"the scope {path}: {_explain(error)}") from None


def tell_strays(roots: list[Path]) -> None:
    """Log which files in some folders are not imported, because a module of Python's has their name."""
    for path in strays(roots)[:_MAX_STRAYS]:
        logger.warning("%s is not imported, since a module of Python's has its name: rename it", path)


def _scope_of_file(path: Path) -> Scope:
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path}")
    if path.suffix == ".py" and not path.stem.isidentifier():
        raise UsageError(f"{path} cannot be imported: its name is not a Python name")
    return Scope(flows=[path.name])


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = tuple(first["loc"])
    where = ".".join(str(part) for part in place)
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    parent = place[:-1]
    keys = _KEYS.get(("overrides", 1, *parent[2:]) if len(parent) > 1 else parent, [])
    near = difflib.get_close_matches(str(place[-1]), keys, 1)
    hint = f"did you mean {shlex.quote(near[0])}?" if near else f"known are {', '.join(keys)}"
    return f"{where} is not known; {hint}"


def default_name() -> str:
    """Return the machine's host name, made fit to be a node's."""
    labels = [re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-")[:63] for label in socket.gethostname().split(".")]
    return ".".join(label.strip("-").lower() for label in labels if label.strip("-")) or "node"
