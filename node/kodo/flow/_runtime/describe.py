"""`python -m kodo.flow._runtime.describe`: say what flows a scope offers, in a process of its own.

stdin: `{"roots": [folder], "flows": [spec], "base"?: folder, "broken"?: {unit: error}, "code"?: file}`; `base` is
where file paths start (the first root by default); a unit, which is a spec or a module of a package, is not imported
when it is said to be broken; `code` has the sources as they are kept.
stdout: `{"flows": [FlowInfo.to_map()]}`. What the flows' modules print goes to stderr, between lines that say when a
unit is begun (`BEGIN unit`) and done (`END unit`). One that cannot be imported has an `error` and does not keep the
others from being described, nor does what it changes in its environment reach them.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kodo.flow._runtime.form import example_of
from kodo.flow._runtime.input_check import InputCheck
from kodo.flow._runtime.kept_code import use_kept_code
from kodo.flow._runtime.load import (
    LoadedFlow,
    callable_of,
    entries_of,
    load_entry,
    load_yaml,
    modules_of,
)
from kodo.flow._runtime.plain import plain
from kodo.flow._runtime.projects import graphs_of, is_graphs, project_definition
from kodo.flow._runtime.returns import returned_schema
from kodo.flow._runtime.sources import enter_scope, forget_shared, hint_of, module_of
from kodo.flow.adapters import is_adapted
from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import KodoError, NotFoundError, UsageError
from kodo.protocol.flow_info import MAX_RETURNS_CHARACTERS, FlowInfo

__all__ = ["BEGIN", "END", "describe", "flow_info", "main", "needs_ray"]

BEGIN = "\0kodo-begins "
END = "\0kodo-ended "
"""What begin the lines on stderr that say which unit is imported, between line ends of their own."""

UNKNOWN = "unknown"
FIRST_RELEASE = "0"
"""What is said of a flow whose author does not say it: registries list no flow without."""


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request; imports user code into this process."""
    roots = [str(root) for root in request.get("roots") or []]
    base = Path(request.get("base") or (roots[0] if roots else ".")).absolute()
    enter_scope(roots)
    if request.get("code"):
        use_kept_code(str(request["code"]))
    broken = dict(request.get("broken") or {})
    flows: list[dict[str, Any]] = []
    for spec in map(str, request.get("flows") or []):
        if spec.endswith(".*"):
            flows += _offered_below(spec, base, roots, broken)
        else:
            flows += _alone(spec, partial(_offered, spec, base, roots), broken)
    seen: dict[str, dict[str, Any]] = {}
    for info in flows:
        seen.setdefault(info["path"], info)
    return {"flows": list(seen.values())}


def flow_info(loaded: LoadedFlow) -> FlowInfo:
    """Return what is said of a flow.

    Raises:
        UsageError: its date is not a date, no form can be made of its parameters, or its check cannot be called.
    """
    said = loaded.definition
    schema = loaded.inputs_schema()
    InputCheck(loaded, schema)
    info = FlowInfo(
        path=loaded.path,
        name=said.name,
        entry=loaded.entry,
        source=loaded.source,
        description=said.description,
        author=said.author,
        organization=said.organization,
        release=said.release,
        published=_milliseconds(said.published) if said.published else 0,
        tags=said.tags,
        schema=plain(schema),
        example=plain(example_of(schema)),
        returns=_returns(loaded.target),
        resources=plain(dict(said.resources)),
        needs_ray=needs_ray(loaded.target),
        has_check=said.check is not None,
    )
    return replace(
        info,
        description=info.description or info.name,
        author=info.author or UNKNOWN,
        organization=info.organization or UNKNOWN,
        release=info.release or FIRST_RELEASE,
    )


def _returns(target: Any) -> dict[str, Any]:
    if is_adapted(target if inspect.isclass(target) else type(target)):
        return {}
    return returned_schema(callable_of(target)[0], MAX_RETURNS_CHARACTERS)


def needs_ray(target: Any) -> bool:
    """Return whether the module of a flow imports Ray itself, at its top or when it runs."""
    module = inspect.getmodule(inspect.unwrap(target)) if callable(target) else None
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return False  # code without source, or not of Python
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return any(name.partition(".")[0] == "ray" for name in names)


def _milliseconds(published: object) -> int:
    """Return the time that an author wrote, as a date, as text or as an object, in ms UTC."""
    try:
        time = datetime.fromisoformat(str(published))
        return max(0, int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise UsageError(f"published={str(published)!r} is not an ISO date such as 2026-01-31") from None


def _offered(spec: str, base: Path, roots: list[str]) -> list[dict[str, Any]]:
    """Describe what one line of a scope names."""
    if spec.endswith((".yaml", ".yml")):
        return [_described(spec, lambda: load_yaml(spec, base))]
    if is_graphs(spec):
        return _offered_graphs(spec, base, roots)
    try:
        return [_described(entry, partial(load_entry, entry)) for entry in entries_of(spec, base, roots)]
    except (Exception, SystemExit) as error:  # user code: a broken module must not hide the others
        return [_broken(spec, error)]


def _offered_graphs(spec: str, base: Path, roots: list[str]) -> list[dict[str, Any]]:
    """Describe the graphs of a `langgraph.json`."""
    try:
        graphs = graphs_of(spec, base)
    except KodoError as error:
        return [_broken(spec, error)]
    infos: list[dict[str, Any]] = []
    for graph in graphs:
        module, _, attribute = graph.spec.rpartition(":")
        try:
            entry = f"{module_of(Path(graph.file), roots) if graph.file else module}:{attribute}"
        except KodoError as error:
            infos.append(_broken(f"{spec.partition(':')[0]}:{graph.name}", error))
            continue
        said = project_definition((base / spec).resolve(), graph.name, graph.description)
        infos.append(_described(entry, partial(_maker, entry, said)))
    return infos


def _maker(entry: str, said: FlowDefinition) -> LoadedFlow:
    """Load what a `langgraph.json` names: a graph or, also where it does not say so, a function that makes one."""
    return replace(load_entry(entry, said), makes=True)


def _offered_below(spec: str, base: Path, roots: list[str], broken: Mapping[str, str]) -> list[dict[str, Any]]:
    """Describe what a package and all modules below it offer."""
    modules: list[str] = []

    def look() -> list[dict[str, Any]]:
        try:
            modules.extend(modules_of(spec.removesuffix(".*")))
        except (Exception, SystemExit) as error:  # user code
            return [_broken(spec, error)]
        return []

    flows = _alone(spec, look, broken)
    for module in modules:
        with contextlib.suppress(NotFoundError):  # most modules of a package hold no flow
            flows += _alone(module, partial(_offered_by, module, base, roots), broken)
    return flows or [_broken(spec, NotFoundError(f"there is no @flow in {spec}"))]


def _alone(unit: str, offered: Callable[[], list[dict[str, Any]]], broken: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the flows of a unit, which need Ray when importing them has imported it; what it changed is put back."""
    if unit in broken:
        return [_broken(unit, KodoError(str(broken[unit])))]
    had_ray, environment, path, folder = "ray" in sys.modules, dict(os.environ), list(sys.path), os.getcwd()
    _mark(BEGIN, unit)
    try:
        infos = offered()
    finally:
        _mark(END, unit)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        forget_shared()
        with contextlib.suppress(OSError):
            os.chdir(folder)
    if "ray" in sys.modules and not had_ray:
        infos = [{**info, "needs_ray": True} for info in infos]
    return infos


def _mark(mark: str, unit: str) -> None:
    with contextlib.suppress(Exception):  # a module may have replaced or closed them
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"\n{mark}{unit}\n".encode())


def _offered_by(module: str, base: Path, roots: list[str]) -> list[dict[str, Any]]:
    try:
        entries = entries_of(module, base, roots)
    except NotFoundError:
        raise
    except (Exception, SystemExit) as error:  # user code
        return [_broken(module, error)]
    return [_described(entry, partial(load_entry, entry)) for entry in entries]


def _described(spec: str, load: Callable[[], LoadedFlow]) -> dict[str, Any]:
    try:
        # Plain, since what one author wrote must not keep the whole answer from being JSON.
        info: dict[str, Any] = plain(flow_info(load()).to_map())
        return info
    except (Exception, SystemExit) as error:  # user code
        return _broken(spec, error)


def _broken(spec: str, error: BaseException) -> dict[str, Any]:
    path = spec if spec.endswith((".yaml", ".yml")) else spec.replace(":", ".")
    text = str(error) if isinstance(error, KodoError) else f"{type(error).__name__}: {error}{_where(error)}"
    text += hint_of(error)
    name = path.rpartition(".")[2] or path
    schema = {"type": "object", "properties": {}}
    return FlowInfo(path=path, name=name, entry=spec, schema=schema, error=text).to_map()


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # it says where by itself, and its traceback is of who imported it
    trace = error.__traceback__
    where = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen"):
            where = f" ({os.path.basename(file)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where


def main() -> None:
    """Read the request from stdin, write the answer to stdout."""
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever user code prints, by whatever way, must not mix with the answer
    sys.stdout = sys.stderr
    sys.breakpointhook = lambda *_, **__: None  # there is nobody to speak to the debugger
    text = json.dumps(describe(json.load(sys.stdin)), ensure_ascii=True)
    with os.fdopen(answer, "w") as file:
        file.write(text)
    sys.stdout.flush()
    # Threads that user modules left running must not keep this process alive.
    os._exit(0)


if __name__ == "__main__":
    main()
