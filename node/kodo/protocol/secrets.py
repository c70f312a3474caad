"""Secrets inside inputs and answers: which places of a form ask for one, taken out and put back. Pure.

A place is secret when its JSON Schema says `writeOnly: true` or `format: password`, as pydantic's `SecretStr` does.
What is taken out is `[[path, value], …]`, a path being the keys and indexes that lead there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kodo.protocol.steps import Steps

__all__ = ["MASK", "MAX_SECRET_BYTES", "Secrets", "asks_secrets", "hide", "masked", "reveal", "secret_names"]

MASK = "••••••••"
"""What is shown in the place of a secret, whatever its length."""

MAX_SECRET_BYTES = 64 << 10
"""Bound of all secrets of one launch or answer, packed: what travels without being stored anywhere on its way."""

MAX_DEPTH = 64
"""What is nested more deeply is taken for a secret as a whole; calls and events take no such value anyway."""

Secrets = list[list[Any]]
"""`[[path, value], …]`."""


def asks_secrets(schema: Any, depth: int = 0) -> bool:
    """Return whether a JSON Schema has a secret place."""
    if depth > 4 * MAX_DEPTH:
        return True
    if isinstance(schema, Mapping):
        return _is_secret(schema) or any(asks_secrets(part, depth + 1) for part in schema.values())
    return isinstance(schema, (list, tuple)) and any(asks_secrets(part, depth + 1) for part in schema)


def hide(schema: Mapping[str, Any], value: Any, steps: Steps | None = None) -> tuple[Any, Secrets]:
    """Return `value` with `MASK` in its secret places, and what stood there.

    Args:
        steps: how many this may take; None: as many as it needs.

    Raises:
        TooComplexError: it takes more.
    """
    found: Secrets = []
    if not asks_secrets(schema):
        return value, found
    return _hide([schema], schema, value, [], found, steps), found


def reveal(value: Any, secrets: Iterable[Sequence[Any]]) -> Any:
    """Put secrets back; the places that they lead to are there, or they are passed over."""
    copied = False
    for path, secret in secrets:
        if not path:
            value = secret
            continue
        if not copied:
            # Once, and not along each path: that would be all of a list for each of its elements.
            value, copied = _copy(value), True
        _put(value, path, secret)
    return value


def masked(value: Any, depth: int = 0) -> bool:
    """Return whether there is a `MASK` inside."""
    if depth > MAX_DEPTH + 1:
        return False
    if isinstance(value, Mapping):
        return any(masked(part, depth + 1) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(masked(part, depth + 1) for part in value)
    return isinstance(value, str) and value == MASK


def secret_names(schema: Mapping[str, Any], value: Mapping[str, Any], steps: Steps | None = None) -> list[str]:
    """Name the fields at the top of `value` that have something secret in them. Raises as `hide`."""
    return list(dict.fromkeys(path[0] for path, _ in hide(schema, value, steps)[1] if path))


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return schema.get("writeOnly") is True or schema.get("format") == "password"


def _hide(
    schemas: list[Any], root: Mapping[str, Any], value: Any, path: list[Any], found: Secrets, steps: Steps | None
) -> Any:
    if steps is not None:
        steps.look(len(schemas))
    schemas = list(_spread(schemas, root, steps))
    if not schemas:
        return value  # nobody asks for anything in there
    if value is not None and (len(path) > MAX_DEPTH or any(_is_secret(schema) for schema in schemas)):
        if steps is not None:
            # The keys that lead there are kept with each secret, however many share them.
            steps.read(sum(len(key) for key in path if isinstance(key, str)))
        found.append([path, value])
        return MASK
    if isinstance(value, Mapping):
        return {
            key: _hide(list(_at_key(schemas, key)), root, part, [*path, key], found, steps)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            _hide(list(_at_index(schemas, index)), root, part, [*path, index], found, steps)
            for index, part in enumerate(value)
        ]
    return value


def _spread(schemas: Iterable[Any], root: Mapping[str, Any], steps: Steps | None) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas and all that they refer to or are made of, each once."""
    todo, seen = list(schemas), set[int]()
    while todo:
        schema = todo.pop()
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        if steps is not None:
            steps.spend()
        yield schema
        for word in ("anyOf", "oneOf", "allOf"):
            parts = schema.get(word)
            if isinstance(parts, (list, tuple)):
                todo += parts
                if steps is not None:
                    steps.look(len(parts))
        todo += [schema.get(word) for word in ("if", "then", "else")]
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            target: Any = root
            for part in filter(None, reference[1:].split("/")):
                key = part.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, Mapping) else None
            todo.append(target)


def _at_key(schemas: Iterable[Mapping[str, Any]], key: Any) -> Iterator[Any]:
    for schema in schemas:
        named = schema.get("properties")
        if isinstance(named, Mapping) and key in named:
            yield named[key]
            continue
        yield schema.get("additionalProperties")
        patterns = schema.get("patternProperties")
        # Whichever pattern fits: better one place too many than one too few.
        yield from patterns.values() if isinstance(patterns, Mapping) else ()


def _at_index(schemas: Iterable[Mapping[str, Any]], index: int) -> Iterator[Any]:
    for schema in schemas:
        first = schema.get("prefixItems")
        if isinstance(first, (list, tuple)) and index < len(first):
            yield first[index]
        else:
            yield schema.get("items")


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(part) for part in value]
    return value


def _put(value: Any, path: Sequence[Any], secret: Any) -> None:
    *way, last = path
    for step in way:
        value = value[step] if _has(value, step) else None
    if _has(value, last):
        value[last] = secret


def _has(value: Any, step: Any) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and 0 <= step < len(value)
    return isinstance(value, dict) and step in value
