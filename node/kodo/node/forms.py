"""Values held against a JSON Schema (2020-12): the inputs of a launch, the answer to a lock. Pure.

The schema is the flow's, the value anybody's, and the node's one event loop waits meanwhile: what jsonschema does in
exponential time (patterns, by backtracking) or in quadratic time (`uniqueItems`) is done here in linear time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from kodo.protocol.secrets import asks_secrets

__all__ = ["MAX_PLACES", "missing", "places"]

MAX_PLACES = 20
"""How many faults are named at most."""

_MAX_MESSAGE = 300

_NOTHING_REMOTE: Registry[Any] = Registry()
"""A `$ref` that leaves its schema leads nowhere: no call leaves the machine."""


def places(schema: dict[str, Any], value: Any) -> list[dict[str, str]]:
    """Give what is wrong with `value`, at most `MAX_PLACES` faults: `[{at, message}]`; `at` is a JSON Pointer."""
    found: list[dict[str, str]] = []
    discreet = asks_secrets(schema)
    try:
        for error in _Validator(schema, registry=_NOTHING_REMOTE).iter_errors(value):
            found.append({"at": _pointer(error), "message": _message(error, discreet)})
            if len(found) == MAX_PLACES:
                break
    except Unresolvable:
        return [{"at": "", "message": "the schema refers to another one that is not here"}]
    except RecursionError:
        return [{"at": "", "message": "nested too deeply"}]
    return found


def missing(schema: dict[str, Any], value: dict[str, Any]) -> list[str]:
    """Give the names that the schema requires at its top and `value` lacks."""
    return [name for name in schema.get("required", []) if name not in value]


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator | None:
    try:
        # The engine that pydantic itself takes for a field's pattern: finite automata, no backtracking.
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError:
        return None


def _found(pattern: str, text: str) -> bool:
    """Say whether `text` has `pattern` in it. One that needs backtracking (looking around, back references) is left
    to the flow's own types."""
    compiled = _compiled(pattern)
    return compiled is None or compiled.isinstance_python(text)


def _check_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value[:_MAX_MESSAGE]!r} does not match {pattern!r}")


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
            yield ValidationError(f"{name[:_MAX_MESSAGE]!r} is not a name that is known here")


def _check_unique(validator: Any, unique: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(value, list) and len({_key(each) for each in value}) < len(value):
        yield ValidationError("an element is there twice")


def _key(value: Any) -> Any:
    """Give something hashable that is equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return (dict, frozenset((name, _key(each)) for name, each in value.items()))
    if isinstance(value, (list, tuple)):
        return (list, tuple(_key(each) for each in value))
    return (bool, value) if isinstance(value, bool) else value


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _check_pattern,
        "patternProperties": _check_pattern_properties,
        "additionalProperties": _check_others,
        "uniqueItems": _check_unique,
    },
)


def _message(error: ValidationError, discreet: bool) -> str:
    """Say what is wrong; `discreet`: without repeating the value, which may be a secret, or have one in it."""
    if discreet and error.validator != "required":
        return f"it does not fit: {error.validator}"
    return error.message[:_MAX_MESSAGE]


def _pointer(error: ValidationError) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
