"""JSON Schemas of forms, as a reader of them needs them: fields, alternatives, choices, secrets, files. Pure.

Schemas come from peers: a reference is followed within its schema only, everything has a bound, and patterns are
never used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kodo.protocol.uploads import FILE_FORMATS

__all__ = [
    "Schema",
    "branches",
    "choices",
    "group_of",
    "help_texts",
    "is_object",
    "is_secret",
    "labels",
    "placeholder",
    "properties",
    "resolve",
    "takes_file",
]

Schema = Mapping[str, Any]

MAX_DEPTH = 16


def resolve(schema: Any, root: Schema) -> Schema:
    """Follow `$ref` within `root` (`#/$defs/Name`) and a lone `allOf`; what cannot be followed is an empty schema."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            target: Any = root
            for part in filter(None, reference.removeprefix("#").split("/")):
                key = part.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, Mapping) else None
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **beside} if isinstance(target, Mapping) else beside
        elif isinstance(parts := schema.get("allOf"), list) and len(parts) == 1 and isinstance(parts[0], Mapping):
            schema = {**parts[0], **{key: value for key, value in schema.items() if key != "allOf"}}
        else:
            return schema
    return {}


def properties(schema: Schema) -> dict[str, Any]:
    """Return the named fields of an object's schema, in their order; those of a group stand together."""
    found = schema.get("properties")
    named = {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}
    ordered = sorted(named.items(), key=lambda each: _order(each[1]))
    first: dict[str, int] = {}
    for place, (_, inner) in enumerate(ordered):
        first.setdefault(group_of(inner), place)
    placed = enumerate(ordered)
    grouped = sorted(placed, key=lambda each: first[group] if (group := group_of(each[1][1])) else each[0])
    return dict(field for _, field in grouped)


def group_of(schema: Any) -> str:
    """Return the heading under which a field stands with others: `group`, also as `ui:group`; empty: none."""
    found = schema.get("group", schema.get("ui:group")) if isinstance(schema, Mapping) else None
    return found.strip() if isinstance(found, str) else ""


def _order(schema: Any) -> float:
    """Return the place of a field among the others: `propertyOrder`; those without stay behind, as they stand."""
    place = schema.get("propertyOrder") if isinstance(schema, Mapping) else None
    if not isinstance(place, int) or isinstance(place, bool) or abs(place) >= 1 << 53:
        return math.inf
    return float(place)


def is_object(schema: Schema) -> bool:
    """Whether the schema demands an object with fields."""
    return schema.get("type") == "object" or "properties" in schema


def choices(schema: Schema) -> list[Any] | None:
    """Return the values of an enum or const, or of alternatives that are one each; None: there is no such bound."""
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    if isinstance(found, (list, tuple)) and found:
        return list(found)
    return [each["const"] for each in _constants(schema)] or None


def _constants(schema: Schema) -> list[Mapping[str, Any]]:
    """Return the alternatives of a schema if each is one value: `oneOf: [{const: 1, title: One}, …]`."""
    for key in ("oneOf", "anyOf"):
        found = schema.get(key)
        if isinstance(found, (list, tuple)) and found and all(_is_constant(each) for each in found):
            return list(found)
    return []


def _is_constant(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "const" in schema


def labels(schema: Schema) -> list[str] | None:
    """Return what the values of `choices` are called: `enumNames`, or titles; None where there are none."""
    names, values = schema.get("enumNames"), choices(schema)
    if "enum" not in schema and (constants := _constants(schema)):
        names = [each.get("title", each["const"]) for each in constants]
    if not isinstance(names, (list, tuple)) or values is None or len(names) != len(values):
        return None
    return [str(name) for name in names]


def placeholder(schema: Schema) -> str:
    """Return an example of what to enter: `placeholder`, also as `ui:placeholder`; empty: there is none."""
    found = schema.get("placeholder", schema.get("ui:placeholder"))
    return found if isinstance(found, str) else ""


def help_texts(schema: Schema) -> list[str]:
    """Return what is said of a field: its `description`, and `help`, also as `ui:help`."""
    found = (schema.get("description"), schema.get("help", schema.get("ui:help")))
    return [text for text in found if isinstance(text, str) and text]


def branches(schema: Schema, root: Schema) -> list[Schema]:
    """Return the alternatives of `anyOf`, `oneOf` or a list of types; the schema itself when there are none."""
    for key in ("anyOf", "oneOf"):
        found = schema.get(key)
        if isinstance(found, (list, tuple)) and found:
            return [resolve(each, root) for each in found[:64]]
    kinds = schema.get("type")
    if isinstance(kinds, (list, tuple)):
        return [{**schema, "type": kind} for kind in kinds[:16]]
    return [schema]


def is_secret(schema: Any, root: Schema) -> bool:
    """Whether a value of this schema is not to be seen: a `SecretStr`, also an optional one, or a list of them."""
    options = branches(resolve(schema, root), root)
    return any(
        bool(option.get("writeOnly"))
        or option.get("format") == "password"
        or (option.get("type") == "array" and _marked_secret(resolve(option.get("items"), root), root))
        for option in [resolve(schema, root), *options]
    )


def _marked_secret(schema: Schema, root: Schema) -> bool:
    return any(bool(each.get("writeOnly")) or each.get("format") == "password" for each in branches(schema, root))


def takes_file(schema: Any, root: Schema) -> bool:
    """Whether a value of this schema may be a file that is uploaded."""
    options = branches(resolve(schema, root), root)
    return any(
        option.get("type") == "string" and isinstance(form := option.get("format"), str) and form in FILE_FORMATS
        for option in options
    )
