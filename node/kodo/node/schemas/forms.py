"""Values held against a JSON Schema (2020-12): the inputs of a launch, the answer to a lock. Pure.

The schema is the flow's, the value anybody's, and others wait meanwhile: every value that is held against a schema,
and every message that repeats a value, is counted (`kodo.protocol.steps`). What jsonschema does in exponential time
within one step (patterns, by backtracking) or in quadratic time (`uniqueItems`) is done here in linear time; the
keywords `unevaluatedItems` and `unevaluatedProperties`, where it does both, are left to the flow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import Any

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from kodo.protocol.secrets import asks_secrets
from kodo.protocol.steps import Steps

__all__ = ["MAX_PLACES", "is_schema", "missing", "places"]

MAX_PLACES = 20
"""How many faults are named at most."""

_MAX_MESSAGE = 300

_NOTHING_REMOTE: Registry[Any] = Registry()
"""A `$ref` that leaves its schema leads nowhere: no call leaves the machine."""


class _Round:
    """One value held against one schema."""

    def __init__(self, schema: Any, steps: Steps):
        self.schema = schema
        self.steps = steps

    @functools.cached_property
    def search(self) -> tuple[int, bool]:
        """How many parts the schema has, and whether one is an `$id`: then all is searched for each `$ref`."""
        parts, ids, todo = 0, False, [self.schema]
        while todo:
            part = todo.pop()
            parts += 1
            if isinstance(part, Mapping):
                ids = ids or "$id" in part
                todo += part.values()
            elif isinstance(part, (list, tuple)):
                todo += part
        return parts, ids


_round: ContextVar[_Round] = ContextVar("round")
_META_SCHEMA = jsonschema_rs.Draft202012Validator(Draft202012Validator.META_SCHEMA)


def is_schema(value: Any) -> bool:
    """Return whether a value is a JSON Schema, in time linear in its size (which jsonschema takes 200 times)."""
    try:
        return _META_SCHEMA.is_valid(value)
    except ValueError:  # something that JSON has not: bytes, or nested beyond all bounds
        return False


def places(schema: dict[str, Any], value: Any, steps: Steps | None = None) -> list[dict[str, str]]:
    """Return what is wrong with `value`, at most `MAX_PLACES` faults: `[{at, message}]`; `at` is a JSON Pointer.

    Raises:
        TooComplexError: it takes more than `steps`.
    """
    found: list[dict[str, str]] = []
    discreet = asks_secrets(schema)
    before = _round.set(_Round(schema, steps or Steps()))
    try:
        for error in _Validator(schema, registry=_NOTHING_REMOTE).iter_errors(value):
            found.append({"at": _pointer(error), "message": _message(error, discreet)})
            if len(found) == MAX_PLACES:
                break
    except (Unresolvable, ValueError):  # a ValueError: a reference asks a list for an element that is no number
        return [{"at": "", "message": "the schema refers to another one that is not here"}]
    except RecursionError:
        return [{"at": "", "message": "nested too deeply"}]
    finally:
        _round.reset(before)
    return found


def missing(schema: dict[str, Any], value: dict[str, Any]) -> list[str]:
    """Return the names that the schema requires at its top and `value` lacks."""
    return [name for name in schema.get("required", []) if name not in value]


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator | None:
    try:
        # The engine that pydantic itself takes for a field's pattern: finite automata, no backtracking.
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError:
        return None


def _found(pattern: str, text: str) -> bool:
    """Return whether `text` has `pattern` in it. One that needs backtracking (look-around, back references) is left
    to the flow's own types."""
    # An automaton takes each character once for each of the places in the pattern where it may be by then.
    _round.get().steps.read(len(text) * (1 + len(pattern)))
    compiled = _compiled(pattern)
    return compiled is None or compiled.isinstance_python(text)


def _check_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value[:_MAX_MESSAGE]!r} does not match {pattern!r}")


_FORMATS: dict[str, SchemaValidator] = {
    name: SchemaValidator(schema)
    for name, schema in {
        "date": core_schema.date_schema(),
        "date-time": core_schema.datetime_schema(),
        "time": core_schema.time_schema(),
        "duration": core_schema.timedelta_schema(),
        "uuid": core_schema.uuid_schema(),
    }.items()
}
"""Judged as pydantic does: what a flow's own types take is never refused before."""

_FORMAT_EXAMPLES = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:30:00Z",
    "time": "12:30:00",
    "duration": "PT1H30M",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
MAX_FORMATTED = 200
"""Characters of a value with a format; no valid one has more."""


def _check_format(validator: Any, name: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    known = _FORMATS.get(name) if isinstance(name, str) else None
    if known is None or not isinstance(value, str):
        return
    if len(value) > MAX_FORMATTED or not known.isinstance_python(value):
        yield ValidationError(f"{value[:MAX_FORMATTED]!r} is no {name} such as {_FORMAT_EXAMPLES[name]}")


def _check_pattern_properties(
    validator: Any, patterns: dict[str, Any], value: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for name, each in value.items():
                if _found(pattern, name):
                    yield from validator.descend(each, inner, path=name, schema_path=pattern)


def _check_others(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """`additionalProperties`: what neither `properties` nor `patternProperties` speaks of."""
    if not isinstance(value, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, each in value.items():
        if name in named or any(_found(pattern, name) for pattern in patterns):
            continue
        if isinstance(inner, dict):
            yield from validator.descend(each, inner, path=name)
        elif not inner:
            yield ValidationError(f"{name[:_MAX_MESSAGE]!r} is not an allowed name")


def _check_unique(validator: Any, unique: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not unique or not isinstance(value, list):
        return
    steps = _round.get().steps
    steps.spend(len(value))
    steps.write(value)
    if len({_key(each) for each in value}) < len(value):
        yield ValidationError("an element occurs twice")


def _key(value: Any) -> Any:
    """Return something hashable that is equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return (dict, frozenset((name, _key(each)) for name, each in value.items()))
    if isinstance(value, (list, tuple)):
        return (list, tuple(_key(each) for each in value))
    return (bool, value) if isinstance(value, bool) else value


def _leave(validator: Any, inner: Any, value: Any, schema: Any) -> None:
    """What is left to the flow's own types."""


def _counted(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """Return a keyword that counts what it looks at, and each message that it makes."""

    @functools.wraps(keyword)
    def check(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        steps = _round.get().steps
        steps.look(_length(inner) + _length(value))
        for error in keyword(validator, inner, value, schema) or ():
            # What comes from further inside has its schema already, and was counted there.
            if not isinstance(error.schema, (Mapping, bool)):
                steps.write(value)
                steps.write(inner)
            yield error

    return check


def _weighed(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """Return a keyword that looks at all of what stands in the schema."""

    def check(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _round.get().steps.write(inner)
        yield from keyword(validator, inner, value, schema) or ()

    return check


def _refer(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """Return a reference that counts what it takes to be found."""

    def check(validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        this = _round.get()
        this.steps.read(len(reference))
        parts, ids = this.search
        if ids or not (reference == "#" or reference.startswith("#/")):
            this.steps.spend(parts)
        yield from keyword(validator, reference, value, schema) or ()

    return check


def _evolve(validator: Any, **changes: Any) -> Any:
    """Return the validator of another schema: every descent passes here. A `$schema` inside changes nothing."""
    schema = changes.get("schema", validator.schema)
    _round.get().steps.look(_length(schema))
    return _Validator(schema, registry=validator._registry, _resolver=changes.get("_resolver", validator._resolver))


def _refused(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that counts the message which the schema `false` makes of a value."""

    def check(validator: Any, instance: Any, schema: Any = None, **others: Any) -> Any:
        if (validator.schema if schema is None else schema) is False:
            _round.get().steps.write(instance)
        return method(validator, instance, schema, **others)

    return check


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) and not isinstance(value, (str, bytes)) else 1


_KEYWORDS = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _check_pattern,
    "format": _check_format,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_others,
    "uniqueItems": _check_unique,
    "unevaluatedItems": _leave,
    "unevaluatedProperties": _leave,
}
_KEYWORDS |= {word: _weighed(_KEYWORDS[word]) for word in ("const", "enum", "dependentRequired")}
_KEYWORDS |= {word: _refer(_KEYWORDS[word]) for word in ("$ref", "$dynamicRef")}

_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {word: _counted(keyword) for word, keyword in _KEYWORDS.items()}
)
_Validator.evolve = _evolve
_Validator.descend = _refused(_Validator.descend)
_Validator.iter_errors = _refused(_Validator.iter_errors)


def _message(error: ValidationError, discreet: bool) -> str:
    """Return what is wrong; `discreet`: without repeating the value, which may be a secret, or have one in it."""
    if discreet and error.validator != "required":
        return f"it does not fit: {error.validator}"
    if error.validator == "anyOf":
        # Of an optional value the one thing that it may be, if it is to be anything.
        told = [each for each in error.context or () if (each.validator, each.validator_value) != ("type", "null")]
        if len(told) == 1 and not told[0].path:
            return told[0].message[:_MAX_MESSAGE]
    return error.message[:_MAX_MESSAGE]


def _pointer(error: ValidationError) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
