"""Find flows in their sources: by `module:attribute`, in a module, in all modules of a package, or in a YAML file."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kodo.flow._runtime.factories import Factory, config_names, factory_of, schema_made
from kodo.flow._runtime.form import Form
from kodo.flow._runtime.kept_code import kept_text
from kodo.flow._runtime.projects import project_definition
from kodo.flow._runtime.sources import file_of, import_source, module_of
from kodo.flow.adapters import is_adapted, is_crew_class, schema_by_adapter
from kodo.flow.adapters.crew_yaml import YamlCrew
from kodo.flow.decorator import FLOW_ATTRIBUTE, FLOWS_ATTRIBUTE, FlowDefinition
from kodo.p2p.errors import NotFoundError, UsageError
from kodo.protocol.texts import several

__all__ = [
    "LoadedFlow",
    "callable_of",
    "entries_of",
    "load_entry",
    "load_yaml",
    "modules_of",
]

KICKOFF_METHODS = ("kickoff", "invoke")
"""How agent frameworks call what starts a crew or a graph."""

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_YAML = (".yaml", ".yml")
_TEXTS = ("name", "author", "organization", "release", "description", "published", "outputs")


@dataclass(frozen=True, slots=True)
class LoadedFlow:
    """One flow, imported.

    Attributes:
        path: its qualified name, or the YAML file's path as the scope wrote it.
        entry: `module:attribute`.
        target: the callable, class or object.
        definition: what its author says of it.
        source: file and line, relative to its root.
        schema: the form that a YAML file gives instead of the callable's.
        makes: whether it makes what is run, although it does not say so, as a function that a `langgraph.json` names.
    """

    path: str
    entry: str
    target: Any
    definition: FlowDefinition
    source: str
    schema: dict[str, Any] | None = None
    makes: bool = False

    def form(self) -> Form | None:
        """Return the form of its parameters; None for an object that takes one map of inputs.

        Raises:
            UsageError: the parameters make no form.
        """
        function, takes_map = callable_of(self.target)
        _check_class(self.target)
        if takes_map or self.factory() is not None:
            return None
        unbound = inspect.isclass(self.target) and inspect.isfunction(
            inspect.getattr_static(self.target, function.__name__, None)
        )
        form, config = Form(function, int(unbound)), config_names(function)
        return form.only(frozenset(form.names) - {*config}) if config else form

    def factory(self) -> Factory | None:
        """Return it as a function that makes what is run with the inputs, and has the form.

        Raises:
            UsageError: it wants what only the server of its framework has.
        """
        return factory_of(self.target)

    def inputs_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its inputs; one that takes anything where nothing is known of them.

        Raises:
            UsageError: the parameters make no form.
        """
        form = self.form()
        if self.schema is not None:
            return self.schema
        factory = self.factory()
        if factory is None and self.makes and form is not None and not form.names:
            factory = Factory(self.target)
        if factory is not None:
            schema = schema_made(factory)
        else:
            schema = form.schema() if form else schema_by_adapter(self.target)
        return schema or {"type": "object", "properties": {}, "additionalProperties": True}


def callable_of(target: Any) -> tuple[Any, bool]:
    """Return what is called for a flow, and whether it takes one map with all inputs (a crew, a graph).

    A class is called by a method of its instance: `kickoff`, `invoke` or `__call__`.

    Raises:
        UsageError: it cannot be called.
    """
    if inspect.isroutine(target):
        return target, False
    owner = target if inspect.isclass(target) else type(target)
    if is_adapted(owner):
        return target, True
    for name in (*KICKOFF_METHODS, "__call__"):
        if not any(name in vars(base) for base in owner.__mro__):
            continue
        function = getattr(target, name) if inspect.isclass(target) or name in KICKOFF_METHODS else target
        if name == "__call__":
            return function, False
        names = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
        return function, bool(names) and names[0] in ("inputs", "input")
    raise UsageError(f"{_title(target)} is not a flow: it is not callable, and has neither kickoff nor invoke")


def load_entry(entry: str, definition: FlowDefinition | None = None) -> LoadedFlow:
    """Import `module:attribute`, or read the YAML file of a crew.

    Raises:
        UsageError: the entry is malformed, or names something that cannot be a flow.
        NotFoundError: the module or the attribute does not exist.
        Exception: whatever the module raises when it is imported.
    """
    if entry.endswith(_YAML):
        return load_yaml(entry, _root_of(entry))
    if not _ENTRY.fullmatch(entry):
        raise UsageError(f"{entry!r} is not an entry; write module:attribute, e.g. flows.market:competitor")
    module_name, _, attribute = entry.partition(":")
    target: Any = _import(module_name)
    for name in attribute.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            near = difflib.get_close_matches(name, [each for each in dir(target) if not each.startswith("_")], 1)
            hint = f"; did you mean {shlex.quote(near[0])}?" if near else ""
            raise NotFoundError(f"the module {module_name} has no {attribute}{hint}") from None
    callable_of(target)
    found = definition or inspect.getattr_static(target, FLOW_ATTRIBUTE, None)
    if not isinstance(found, FlowDefinition):
        found = _guess(target, attribute)
    return LoadedFlow(f"{module_name}.{attribute}", entry, target, found, _source(target, module_name))


def entries_of(spec: str, base: Path, roots: list[str]) -> list[str]:
    """Return the entries that a line of a scope names: itself, or each flow of a module, a file or an app.

    Args:
        spec: `module:attribute`, `module`, `./file.py` or `./file.py:attribute`.
        base: the scope's folder, to which file paths are relative.
        roots: folders on the import path.

    Raises:
        UsageError: a file lies outside of the roots.
        NotFoundError: there is no such module, or no flow in it.
        Exception: whatever a module raises when it is imported.
    """
    module_name, _, attribute = spec.partition(":")
    if (file := file_of(spec, base)) is not None:
        module_name = module_of(file, roots)
    if attribute:
        return _entries_of_attribute(module_name, attribute)
    entries = []
    apps: dict[int, list[str]] = {}
    for name, value in list(vars(_import(module_name)).items()):
        if _holds_flows(value):
            apps.setdefault(id(value), _entries_of_app(module_name, name, value))
        elif (
            isinstance(inspect.getattr_static(value, FLOW_ATTRIBUTE, None), FlowDefinition) or is_crew_class(value)
        ) and getattr(value, "__module__", module_name) == module_name:  # not what it imported from another module
            entries.append(f"{module_name}:{name}")
    entries = list(dict.fromkeys([*entries, *(entry for found in apps.values() for entry in found)]))
    if not entries:
        raise NotFoundError(f"there is no @flow in {spec}{_advice(module_name)}")
    return entries


def _entries_of_attribute(module_name: str, attribute: str) -> list[str]:
    """Return the entries of an app with several flows; of anything else, and of what is not there, itself."""
    entry = f"{module_name}:{attribute}"
    try:
        target: Any = _import(module_name)
        for name in attribute.split("."):
            target = getattr(target, name)
    except (Exception, SystemExit):  # user code: loading it will say so
        return [entry]
    return _entries_of_app(module_name, attribute, target) if _holds_flows(target) else [entry]


def _holds_flows(value: Any) -> bool:
    return inspect.getattr_static(type(value), FLOWS_ATTRIBUTE, None) is not None


def _entries_of_app(module_name: str, attribute: str, app: Any) -> list[str]:
    """Return the entries of an app: by the names of its functions in their module, where they still have them."""
    module = _import(module_name)
    flows = list(getattr(app, FLOWS_ATTRIBUTE)())
    if not flows:
        pages = "; a route with entry=True makes its own form, as HTML: write it as @app.enter(…, model=…)"
        hint = pages if getattr(app, "pages", 0) else ""
        raise NotFoundError(f"there is no @app.enter in {module_name}:{attribute}{hint}")
    return [
        f"{module_name}:{own if getattr(module, own, None) is flow else f'{attribute}.{name}'}"
        for name, flow, own in ((name, flow, str(flow.__name__)) for name, flow in flows)
    ]


def _check_class(target: Any) -> None:
    """Refuse a class that needs arguments to be made: a run has none for it.

    Raises:
        UsageError: saying which.
    """
    if not inspect.isclass(target):
        return
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some written in C have none
        return
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each.name for each in parameters if each.kind not in rest and each.default is each.empty]
    if needed:
        made = f"{_title(target)}() needs {', '.join(needed)}, and a flow's class is made without arguments"
        raise UsageError(f"{made}: give them defaults, or ask for them in the method that is called")


def _advice(module_name: str) -> str:
    """Return advice that names the function of a module which its author may have meant."""
    own = [
        name
        for name, value in vars(_import(module_name)).items()
        if inspect.isfunction(value) and value.__module__ == module_name and not name.startswith("_")
    ]
    meant = "main" if "main" in own else own[-1] if own else ""
    return f": mark a function with @flow, or name one behind a colon, as `:{meant}`" if meant else ""


def modules_of(package: str) -> list[str]:
    """Return the names of a package and of all modules below it, however deep.

    Raises:
        NotFoundError: there is no such package.
        Exception: whatever the package itself raises when it is imported.
    """
    paths = getattr(_import(package), "__path__", [])
    found = pkgutil.walk_packages(paths, package + ".", onerror=lambda _: None)
    return [package, *(info.name for info in found if info.name.rpartition(".")[2] != "__main__")]


def load_yaml(spec: str, base: Path) -> LoadedFlow:
    """Read a flow's YAML file; import its `entry`, or take its `crew`.

    Raises:
        UsageError: the file is malformed.
        NotFoundError: the file, or what it names, does not exist.
        Exception: whatever the entry's module raises when it is imported.
    """
    import yaml

    try:
        value = yaml.safe_load(kept_text(base / spec))
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {spec} in {base}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{spec} cannot be read as YAML: {error}") from error
    if not isinstance(value, dict) or isinstance(value.get("entry"), str) == ("crew" in value):
        raise UsageError(f"{spec} must name what to run: `entry: module:attribute` or a `crew`")
    unknown = set(value) - {"flow", "entry", "crew", "inputs", "resources"}
    if unknown:
        raise UsageError(
            f"{spec} has {', '.join(sorted(map(str, unknown)))}; known are flow, entry, crew, inputs, resources"
        )
    said = value.get("flow") or {}
    if not isinstance(said, dict) or set(said) - {*_TEXTS, "tags"}:
        raise UsageError(f"in {spec}, `flow` is a map of {', '.join(_TEXTS)} and tags")
    loaded = load_entry(value["entry"]) if "entry" in value else _load_crew(spec, base, value["crew"])
    tags = said.get("tags") or loaded.definition.tags
    texts: dict[str, Any] = {name: str(said[name]) for name in _TEXTS if said.get(name) is not None}
    definition = replace(
        loaded.definition,
        **texts,
        tags=tuple(map(str, several(tags))),
        resources={**loaded.definition.resources, **(value.get("resources") or {})},
    )
    schema = _yaml_schema(spec, value["inputs"]) if value.get("inputs") is not None else loaded.schema
    return replace(loaded, path=spec, definition=definition, source=spec, schema=schema)


def _load_crew(spec: str, base: Path, said: Any) -> LoadedFlow:
    crew = YamlCrew(said)
    file = (base / spec).resolve()
    roots = [Path(root).resolve() for root in sys.path if root]
    below = next((root for root in roots if file.is_relative_to(root)), None)
    if below is None:
        raise UsageError(f"{spec} must be below the scope's folder, where runners look for it")
    entry = str(file.relative_to(below))
    return LoadedFlow(spec, entry, crew, FlowDefinition(name=file.stem), spec, crew.schema())


def _root_of(file: str) -> Path:
    """Find the folder on the import path that holds a file."""
    for root in sys.path:
        if root and (Path(root) / file).is_file():
            return Path(root)
    raise NotFoundError(f"there is no file {file} on the scope's import path")


def _yaml_schema(spec: str, properties: Any) -> dict[str, Any]:
    import jsonschema

    if not isinstance(properties, Mapping) or not all(isinstance(part, Mapping) for part in properties.values()):
        raise UsageError(f"in {spec}, `inputs` is a map of JSON Schemas, as topic: {{type: string}}")
    schema = {
        "type": "object",
        "properties": {str(name): dict(part) for name, part in properties.items()},
        "required": [str(name) for name, part in properties.items() if "default" not in part],
        "additionalProperties": False,
    }
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"in {spec}, `inputs` is not a valid JSON Schema: {error.message}") from error
    return schema


def _import(name: str) -> ModuleType:
    try:
        return import_source(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise NotFoundError(f"there is no module {name} on the scope's import path") from None
        raise


def _guess(target: Any, attribute: str) -> FlowDefinition:
    name, of_project = attribute.rpartition(".")[2], is_crew_class(target)
    lines = (inspect.getdoc(target) or "").strip().splitlines() if inspect.isroutine(target) or of_project else []
    description = lines[0] if lines else ""
    file = getattr(sys.modules.get(target.__module__), "__file__", None) if of_project else None
    if file:
        return project_definition(Path(file), name, description)
    return FlowDefinition(name=name, description=description)


def _source(target: Any, module_name: str) -> str:
    file = getattr(sys.modules.get(module_name), "__file__", None) or ""
    line = 0
    try:
        target = inspect.unwrap(target)
        file = inspect.getsourcefile(target) or file
        line = inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        pass  # an object, or a function without source
    for root in sys.path:
        if root and Path(file).is_relative_to(root):
            file = str(Path(file).relative_to(root))
            break
    return f"{file}:{line}" if line else file


def _title(target: Any) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))
