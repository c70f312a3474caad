"""Values held against a JSON Schema (2020-12): the inputs of a launch, the answer to a lock. Pure."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

__all__ = ["MAX_PLACES", "missing", "places"]

MAX_PLACES = 20
"""How many faults are named at most."""

_MAX_MESSAGE = 300

_NOTHING_REMOTE: Registry[Any] = Registry()
"""A `$ref` that leaves its schema leads nowhere: no call leaves the machine."""


def places(schema: dict[str, Any], value: Any) -> list[dict[str, str]]:
    """Give what is wrong with `value`, at most `MAX_PLACES` faults: `[{at, message}]`; `at` is a JSON Pointer."""
    found: list[dict[str, str]] = []
    try:
        for error in Draft202012Validator(schema, registry=_NOTHING_REMOTE).iter_errors(value):
            found.append({"at": _pointer(error), "message": error.message[:_MAX_MESSAGE]})
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


def _pointer(error: ValidationError) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
