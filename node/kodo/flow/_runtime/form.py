"""A callable's parameters as a form: JSON Schema out of hints and defaults, and inputs back into typed arguments."""

from __future__ import annotations

import copy
import inspect
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, NotRequired, Required, Union

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning
from typing_extensions import TypedDict

from kodo.p2p.errors import UsageError

__all__ = ["Form", "InputsError", "example_of", "hints_of", "of_this_python", "places_of", "reasons_of"]


class InputsError(UsageError):
    """Inputs that do not fit the form; says each field and why.

    Attributes:
        places: `[{at, message}]`; `at` is a JSON Pointer into the inputs.
    """

    def __init__(self, message: str, places: Sequence[Mapping[str, str]] = ()):
        super().__init__(message)
        self.places = [dict(place) for place in places]


class Form:
    """The form of one callable.

    Raises:
        UsageError: a parameter cannot be filled in by name, or its type cannot be resolved.
    """

    def __init__(self, function: Callable[..., Any], skip: int = 0):
        """Read the signature of `function`, without its first `skip` parameters (`self`)."""
        self._function = function
        self._names: list[str] = []
        self._fields: dict[str, Any] = {}
        try:
            parameters = list(inspect.signature(function).parameters.values())[skip:]
            hints = hints_of(function)
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"the parameters of {_name(function)} cannot be read: {error}") from error
        texts = _parameter_texts(inspect.getdoc(function) or "")
        self._always: set[str] = set()
        self._defaults: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise UsageError(f"the parameter {parameter} of {_name(function)} cannot be filled in by name")
            name, default = parameter.name, ... if parameter.default is parameter.empty else parameter.default
            if isinstance(default, FieldInfo):  # as models have it; the function alone could not use it
                self._always.add(name)
            elif default is not ...:
                self._defaults[name] = default
            hint, *more = _parts(of_this_python(hints.get(name, Any)))
            told = next((part.documentation for part in more if hasattr(part, "documentation")), texts.get(name))
            title = name.replace("_", " ").strip().capitalize() or name
            # What the author says of a field comes later and wins, but for the name.
            parts = (hint, Field(title=title, description=told), *more, Field(alias=name))
            # Fields bear other names than the parameters, which might clash with a model's own attributes.
            self._fields[f"field_{len(self._names)}"] = (Annotated[parts], default)
            self._names.append(name)

    @property
    def names(self) -> list[str]:
        """The parameters, in their order."""
        return list(self._names)

    def only(self, names: frozenset[str]) -> Form:
        """Return the form of some of the parameters."""
        part = copy.copy(self)
        part.__dict__.pop("_model", None)
        kept = [(field, name) for field, name in zip(self._fields, self._names, strict=True) if name in names]
        part._fields = {field: self._fields[field] for field, _ in kept}
        part._names = [name for _, name in kept]
        return part

    @cached_property
    def _model(self) -> type[BaseModel]:
        try:
            model: type[BaseModel] = create_model(
                "Inputs", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **self._fields
            )
        except (PydanticUserError, TypeError, NameError) as error:
            raise UsageError(f"the parameters of {_name(self._function)} make no form: {error}") from error
        return model

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the inputs.

        Raises:
            UsageError: a type has none.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # a default that JSON cannot hold
                schema = self._model.model_json_schema(by_alias=True)
        except PydanticUserError as error:
            raise UsageError(f"the parameters of {_name(self._function)} make no form: {error.message}") from error
        schema.setdefault("properties", {})
        schema.pop("title", None)
        return schema

    def filled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Turn inputs into typed arguments, and add the callable's own defaults.

        Raises:
            InputsError: they do not fit.
        """
        defaults = {name: value for name, value in self._defaults.items() if name in self._names}
        return {**defaults, **self.arguments(inputs)}

    def arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Turn inputs into typed arguments; those not given are left to the callable's own defaults.

        Raises:
            InputsError: they do not fit.
        """
        try:
            filled = self._model.model_validate(dict(inputs))
        except ValidationError as error:
            raise InputsError("; ".join(reasons_of(error)), places_of(error, inputs)) from None
        return {
            name: getattr(filled, field)
            for field, name in zip(self._fields, self._names, strict=True)
            if field in filled.model_fields_set or name in self._always
        }


def places_of(error: ValidationError, value: Any) -> list[dict[str, str]]:
    """Return what a validation found wrong with `value`, as `[{at, message}]`: `at` is a JSON Pointer into it."""
    return [
        {"at": _pointer(item["loc"], value), "message": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _pointer(steps: Sequence[int | str], value: Any) -> str:
    """Return a place as a JSON Pointer: steps that name a branch of a union lead nowhere in the value."""
    at = ""
    for number, step in enumerate(steps):
        if isinstance(value, Mapping):
            if step not in value and number + 1 < len(steps):
                continue
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        at += "/" + str(step).replace("~", "~0").replace("/", "~1")
    return at


def reasons_of(error: Exception) -> list[str]:
    """Return what a validation found wrong, one text per field; never repeats the value."""
    if isinstance(error, ValidationError):
        return [
            ": ".join(part for part in (".".join(str(step) for step in item["loc"]), item["msg"]) if part)
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    reasons = getattr(error, "reasons", None)
    return list(reasons) if reasons else [str(error) or type(error).__name__]


def example_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Make inputs that show the form: defaults and examples where there are some, else a value of the right type."""
    value = _example(schema, schema.get("$defs") or {}, 0)
    return value if isinstance(value, dict) else {}


_BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "email": "ana@example.com",
    "file": "upload-" + "0" * 26,
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "duration": "PT1H",
}


def _example(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if depth > 8:
        return None
    if "$ref" in schema:
        return _example(definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), definitions, depth + 1)
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _example(schema[several][0], definitions, depth + 1)
    match schema.get("type"):
        case "object":
            needed = schema.get("required") or ()
            properties = schema.get("properties") or {}
            return {
                name: _example(part, definitions, depth + 1)
                for name, part in properties.items()
                if name in needed or "default" in part or depth == 0
            }
        case "array":
            items, least = schema.get("items") or {}, int(schema.get("minItems") or 0)
            return [_example(items, definitions, depth + 1) for _ in range(min(least, 8))]
        case "integer" | "number" as kind:
            bound = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            value = bound + 1 if "exclusiveMinimum" in schema else bound
            return int(value) if kind == "integer" else value
        case "boolean":
            return False
        case "string":
            text = _BY_FORMAT.get(str(schema.get("format")), "text")
            return text.ljust(int(schema.get("minLength") or 0), ".")[: schema.get("maxLength")]
    return None


def _hinted(function: Callable[..., Any]) -> Any:
    """Where the hints stand: a class's are on its `__init__`, an object's on its `__call__`."""
    if inspect.isclass(function):
        return function.__init__
    return function if inspect.isroutine(function) else inspect.unwrap(type(function).__call__)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the hints of a callable's parameters by name, and of what it gives as `return`.

    Raises:
        NameError, TypeError: a hint means nothing.
    """
    return typing.get_type_hints(_hinted(function), include_extras=True)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return a type, and what is said of it by `Annotated`."""
    return (hint.__origin__, *hint.__metadata__) if typing.get_origin(hint) is Annotated else (hint,)


def of_this_python(hint: Any) -> Any:
    """Return a type with each `typing.TypedDict` in it as pydantic takes it: before Python 3.12 those lack facts."""
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        fields: Any = {
            name: (Required if name in hint.__required_keys__ else NotRequired)[of_this_python(part)]
            for name, part in typing.get_type_hints(hint, include_extras=True).items()
        }
        make: Any = TypedDict
        made = make(hint.__name__, fields)
        made.__doc__, made.__module__ = hint.__doc__, hint.__module__
        return made
    arguments = typing.get_args(hint)
    changed = tuple(of_this_python(part) for part in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return hint
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return Union[changed]  # noqa: UP007 (made of parts)
    return Annotated[(changed[0], *hint.__metadata__)] if origin is Annotated else origin[changed]


_SPHINX = re.compile(r":param (?:[^:]*\s)?\*{0,2}(\w+): *(.*)")
_NUMPY = re.compile(r"(\w+)(?: *: .*)?")


def _parameter_texts(docstring: str) -> dict[str, str]:
    """Read what a docstring says of parameters: in Google's style, Sphinx's or NumPy's."""
    return _google_texts(docstring) or _sphinx_texts(docstring) or _numpy_texts(docstring)


def _sphinx_texts(docstring: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    name = ""
    for line in docstring.splitlines():
        if match := _SPHINX.fullmatch(line.strip()):
            name = match[1]
            texts[name] = match[2].strip()
        elif name and line.startswith(" ") and line.strip():
            texts[name] = f"{texts[name]} {line.strip()}".strip()
        else:
            name = ""
    return texts


def _numpy_texts(docstring: str) -> dict[str, str]:
    lines = docstring.splitlines()
    start = next((place for place in range(len(lines) - 1) if _is_section(lines, place, "Parameters")), None)
    texts: dict[str, str] = {}
    name = ""
    for place in range(len(lines) if start is None else start + 2, len(lines)):
        if _is_section(lines, place):
            break
        if not lines[place].startswith(" ") and (match := _NUMPY.fullmatch(lines[place].strip())):
            name = match[1]
            texts[name] = ""
        elif name and lines[place].strip():
            texts[name] = f"{texts[name]} {lines[place].strip()}".strip()
    return texts


def _is_section(lines: list[str], place: int, title: str = "") -> bool:
    underlined = place + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[place + 1].strip()) is not None
    return underlined and (not title or lines[place].strip() == title)


def _google_texts(docstring: str) -> dict[str, str]:
    """Read the `Args:` part of a Google-style docstring."""
    texts: dict[str, str] = {}
    name, inside = "", False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Arguments|Parameters):", line.strip()):
            inside = True
        elif inside and line.strip() and not line.startswith(" "):
            break
        elif inside and (match := re.fullmatch(r" {2,4}(\w+)(?: \([^)]*\))?: *(.*)", line)):
            name = match[1]
            texts[name] = match[2].strip()
        elif inside and name and line.strip():
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts
