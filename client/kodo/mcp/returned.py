"""What flows say that they return, as schemas by which any host can check results. Pure.

A host refuses a structured result that does not fit its tool's output schema, and may take long over a schema that is
made for that. Schemas and results both come from elsewhere, and no node holds a flow to its return hint. So a schema
is brought to keywords that all hosts read alike and check in linear time, references replaced by what they mean.
What is left out of it only lets more results pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from kodo.client.schemas import Schema, resolve
from kodo.mcp.texts import one_line
from kodo.protocol.numbers import finite

__all__ = ["MAX_PARTS", "fits", "returned_schema"]

MAX_PARTS = 200
"""Parts of a schema; what is further inside may be anything."""

MAX_CHARS = 16_000
"""A schema that is larger, as JSON, is not shown: it would fill a model's context."""

MAX_CHECKS = 250_000
"""Parts of a schema times parts of a result: more than that no host is made to check."""

_MAX_DEPTH = 12
_MAX_BRANCHES = 16
_MAX_VALUES = 100
_WORDS = 300
_TYPES = frozenset(["null", "boolean", "integer", "number", "string", "array", "object"])
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")


def returned_schema(said: Any) -> dict[str, Any] | None:
    """Return the schema of a result, or None where nothing is known of it.

    Args:
        said: the schema that a node tells.
    """
    if not isinstance(said, Mapping):
        return None
    made = _Maker(said).part(said, 0)
    return made if made and len(json.dumps(made)) <= MAX_CHARS else None


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a result fits a schema that `returned_schema` made.

    Args:
        value: as it goes to the host: what `bounded` returns.
    """
    if _parts_of(value) * _parts_of(schema) > MAX_CHECKS:
        return False
    try:
        return bool(jsonschema_rs.Draft202012Validator(dict(schema)).is_valid(value))
    except ValueError:  # a number beyond what the validator holds
        return False


@dataclass(slots=True)
class _Maker:
    root: Schema
    left: int = MAX_PARTS

    def part(self, schema: Any, depth: int) -> dict[str, Any]:
        """Return a part; an empty one, which anything fits, where nothing can be said."""
        self.left -= 1
        if depth > _MAX_DEPTH or self.left < 0:
            return {}
        found = self._resolved(schema)
        made: dict[str, Any] = {}
        for word in ("title", "description"):
            if isinstance(found.get(word), str):
                made[word] = one_line(found[word], _WORDS)
        kinds = found.get("type")
        if isinstance(kinds, str) and kinds in _TYPES:
            made["type"] = kinds
        elif isinstance(kinds, (list, tuple)) and kinds and all(isinstance(k, str) and k in _TYPES for k in kinds):
            made["type"] = sorted(set(kinds))
        values = [found["const"]] if "const" in found else found.get("enum")
        if isinstance(values, (list, tuple)) and 0 < len(values) <= _MAX_VALUES and all(map(_is_choice, values)):
            made["enum"] = _once(values)
        made |= {word: found[word] for word in _BOUNDS if _is_number(found.get(word))}
        made |= {word: found[word] for word in _COUNTS if _is_count(found.get(word))}
        self._object(found, made, depth)
        self._array(found, made, depth)
        for word in ("anyOf", "oneOf"):
            options = found.get(word)
            if "anyOf" not in made and isinstance(options, (list, tuple)) and 0 < len(options) <= _MAX_BRANCHES:
                made["anyOf"] = [self.part(option, depth + 1) for option in options]
        return made

    def _resolved(self, schema: Any) -> Schema:
        """Follow what a schema refers to. What it demands besides is left out: merged, the two might mean another."""
        found = schema if isinstance(schema, Mapping) else {}
        for _ in range(_MAX_DEPTH):
            texts = {word: found[word] for word in ("title", "description") if word in found}
            several = found.get("allOf")
            if isinstance(found.get("$ref"), str):
                found = {**resolve({"$ref": found["$ref"]}, self.root), **texts}
            elif isinstance(several, (list, tuple)) and len(several) == 1 and isinstance(several[0], Mapping):
                found = {**several[0], **texts}
            else:
                return found
        return {}

    def _object(self, found: Schema, made: dict[str, Any], depth: int) -> None:
        fields = found.get("properties")
        fields = fields if isinstance(fields, Mapping) else {}
        shown = {name: field for name, field in fields.items() if _is_name(name)}
        if shown:
            made["properties"] = {name: self.part(field, depth + 1) for name, field in shown.items()}
        required = found.get("required")
        if isinstance(required, (list, tuple)) and (needed := _once(filter(_is_name, required[: 10 * MAX_PARTS]))):
            made["required"] = needed
        rest = found.get("additionalProperties")
        if rest is False and len(shown) == len(fields) and "patternProperties" not in found:
            made["additionalProperties"] = False
        elif isinstance(rest, Mapping) and len(shown) == len(fields) and "patternProperties" not in found:
            made["additionalProperties"] = self.part(rest, depth + 1)

    def _array(self, found: Schema, made: dict[str, Any], depth: int) -> None:
        first = found.get("prefixItems")
        first = first if isinstance(first, (list, tuple)) else ()
        if first:
            made["prefixItems"] = [self.part(each, depth + 1) for each in first[:MAX_PARTS]]
        if isinstance(found.get("items"), Mapping) and len(first) <= MAX_PARTS:
            made["items"] = self.part(found["items"], depth + 1)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and one_line(name) == name


def _is_choice(value: Any) -> bool:
    if isinstance(value, str):
        return one_line(value, _WORDS) == value
    return value is None or isinstance(value, (bool, int))


def _is_number(value: Any) -> bool:
    return finite(value) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _once(values: Any) -> list[Any]:
    """Return values without repetitions, in their order; 1 and true are two."""
    return list({(type(value), value): value for value in values}.values())


def _parts_of(value: Any) -> int:
    count, todo = 0, [value]
    while todo:
        each = todo.pop()
        count += 1
        if isinstance(each, Mapping):
            todo += each.values()
        elif isinstance(each, (list, tuple)):
            todo += each
    return count
