"""Forms of flows and locks as MCP has them: input schemas of tools, and flat forms that a person is asked by. Pure.

An elicitation form is one object of texts, numbers, truths and choices, and may never ask for a secret. What does
not fit is answered elsewhere: `flat_form` gives None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kodo.client.schemas import Schema, branches, choices, is_object, is_secret, properties, resolve, takes_file
from kodo.mcp.texts import one_line
from kodo.protocol.secrets import asks_secrets

__all__ = ["MAX_SCHEMA_CHARS", "Form", "flat_form", "input_schema", "missing_inputs", "secret_inputs"]

MAX_SCHEMA_CHARS = 32_000
"""A form that is larger, as JSON, is not shown as a tool's schema: it would fill a model's context."""

MAX_FIELDS = 40
MAX_CHOICES = 100
MAX_DEPTH = 24
_WORDS = 300
_VALUE = "value"
_FORMATS = frozenset(["date", "date-time", "email", "uri"])
_BOUNDS = {"string": ("minLength", "maxLength"), "number": ("minimum", "maximum"), "integer": ("minimum", "maximum")}
_TEXTS = frozenset(["title", "description", "$comment"])


@dataclass(frozen=True, slots=True)
class Form:
    """A flat form.

    Attributes:
        schema: the object's schema, as elicitation takes it.
        alone: the answer is the one field's value itself, not an object.
        values: by field, what its choices mean where they are no texts.
        optional: fields for which an empty text means that they are left out.
    """

    schema: dict[str, Any]
    alone: bool
    values: Mapping[str, Mapping[str, Any]]
    optional: frozenset[str]

    def answer(self, content: Mapping[str, Any] | None) -> Any:
        """Return the answer that a filled form stands for; fields that the form does not have are dropped."""
        found: dict[str, Any] = {}
        for name in self.schema["properties"]:
            value = (content or {}).get(name)
            if name not in (content or {}) or (name in self.optional and value in ("", None)):
                continue
            if isinstance(value, float) and value.is_integer() and self._is_whole(name):
                value = int(value)
            found[name] = self.values[name].get(str(value), value) if name in self.values else value
        return found.get(_VALUE) if self.alone else found

    def _is_whole(self, name: str) -> bool:
        return bool(self.schema["properties"][name].get("type") == "integer")


def flat_form(schema: Any, default: Any = None, only: frozenset[str] | None = None) -> Form | None:
    """Return the flat form of a JSON Schema, or None where it asks for a secret, a file, or something nested.

    Args:
        default: the whole's default, if it has one.
        only: the fields to ask for; None: all.
    """
    root: Schema = schema if isinstance(schema, Mapping) else {}
    if asks_secrets(root):
        return None
    found = resolve(root, root)
    if is_object(found) and len(branches(found, root)) == 1:
        fields = {name: field for name, field in properties(found).items() if only is None or name in only}
        if not fields or len(fields) > MAX_FIELDS:
            return None
        required = found.get("required")
        needed = set(map(str, required)) if isinstance(required, (list, tuple)) else set()
        known = default if isinstance(default, Mapping) else {}
        return _form(fields, root, needed, known, alone=False)
    return _form({_VALUE: root}, root, {_VALUE}, {} if default is None else {_VALUE: default}, alone=True)


def _form(
    fields: Mapping[str, Any], root: Schema, needed: set[str], known: Mapping[str, Any], *, alone: bool
) -> Form | None:
    shown: dict[str, Any] = {}
    values: dict[str, dict[str, Any]] = {}
    required, optional = [], set()
    for name, field in fields.items():
        if len(name) > 200 or one_line(name) != name:
            return None
        made = _flat_field(field, root)
        if made is None:
            return None
        shown[name], meanings, nullable = made
        if meanings:
            values[name] = meanings
        given = known.get(name, resolve(field, root).get("default"))
        _put_default(shown[name], given, meanings)
        if name in needed and not nullable:
            required.append(name)
        elif shown[name].get("type") == "string" and (name not in needed or nullable) and given in (None, ""):
            optional.add(name)
    made_schema: dict[str, Any] = {"type": "object", "properties": shown}
    if required:
        made_schema["required"] = required
    return Form(made_schema, alone, values, frozenset(optional))


def _put_default(shown: dict[str, Any], given: Any, meanings: Mapping[str, Any]) -> None:
    if given is None:
        return
    if meanings:
        given = next(
            (text for text, value in meanings.items() if value == given and type(value) is type(given)), None
        )
    kinds: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if isinstance(given, kinds[shown["type"]]) and (shown["type"] == "boolean" or not isinstance(given, bool)):
        shown["default"] = given if not isinstance(given, str) else given[:_WORDS]


def _flat_field(field: Any, root: Schema) -> tuple[dict[str, Any], dict[str, Any], bool] | None:
    """Return a field's flat schema, what its choices mean, and whether it may be null; None: it is not flat."""
    schema = resolve(field, root)
    options = branches(schema, root)
    real = [option for option in options if option.get("type") != "null" and option.get("const", 0) is not None]
    nullable = len(real) < len(options)
    if len(real) != 1:
        return None
    option = resolve(real[0], root)
    if is_secret(option, root) or takes_file(option, root):
        return None
    shown: dict[str, Any] = {}
    for word in ("title", "description"):
        text = schema.get(word, option.get(word))
        if isinstance(text, str) and text.strip():
            shown[word] = one_line(text, _WORDS)
    allowed = choices(option)
    if allowed is not None:
        return _choice(shown, allowed, nullable)
    kind = option.get("type")
    if kind not in ("string", "number", "integer", "boolean"):
        return None
    shown["type"] = kind
    for bound in _BOUNDS.get(kind, ()):
        limit = option.get(bound)
        if isinstance(limit, (int, float)) and not isinstance(limit, bool):
            shown[bound] = limit
    if kind == "string" and option.get("format") in _FORMATS:
        shown["format"] = option["format"]
    return shown, {}, nullable


def _choice(
    shown: dict[str, Any], allowed: list[Any], nullable: bool
) -> tuple[dict[str, Any], dict[str, Any], bool] | None:
    if len(allowed) > MAX_CHOICES or any(isinstance(value, (Mapping, list, tuple)) for value in allowed):
        return None
    texts = [value if isinstance(value, str) else json.dumps(value) for value in allowed]
    if len(set(texts)) != len(texts) or any(len(text) > _WORDS or one_line(text, _WORDS) != text for text in texts):
        return None
    meanings = {} if all(isinstance(value, str) for value in allowed) else dict(zip(texts, allowed, strict=True))
    return {**shown, "type": "string", "enum": texts}, meanings, nullable


def missing_inputs(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the required inputs that are not given and are no secrets, in the order of the form."""
    root = resolve(schema, schema)
    required = root.get("required")
    needed = set(map(str, required)) if isinstance(required, (list, tuple)) else set()
    secret = secret_inputs(schema)
    return [name for name in properties(root) if name in needed and name not in given and name not in secret]


def secret_inputs(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the inputs that have a secret in them: no model may be asked for those."""
    root = resolve(schema, schema)
    found = set()
    for name, field in properties(root).items():
        reached = resolve(field, schema)
        parts = [reached, *branches(reached, schema)]
        if any(_has_secret(part, schema, 0) for part in parts):
            found.add(name)
    return frozenset(found)


def _has_secret(schema: Any, root: Schema, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return True
    if isinstance(schema, (list, tuple)):
        return any(_has_secret(part, root, depth + 1) for part in schema)
    if not isinstance(schema, Mapping):
        return False
    if isinstance(schema.get("$ref"), str):
        schema = resolve(schema, root)
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        return True
    return any(_has_secret(part, root, depth + 1) for part in schema.values())


def input_schema(schema: Mapping[str, Any], files: str) -> dict[str, Any] | None:
    """Return the schema of a tool for a flow's form: texts safe and short, secrets left out, files as paths.

    Nothing is required in it: what is missing is asked for, or told.

    Args:
        files: what to say of a place for a file.

    Returns:
        None where the form is too large to be shown.
    """
    secret = secret_inputs(schema)
    root = resolve(schema, schema)
    kept = {name: field for name, field in properties(root).items() if name not in secret and one_line(name) == name}
    cleaned = _clean(kept, files, 0)
    made: dict[str, Any] = {"type": "object", "properties": cleaned}
    if root.get("additionalProperties") is False:
        made["additionalProperties"] = False
    for word in ("$defs", "definitions"):
        if isinstance(schema.get(word), Mapping):
            made[word] = _clean(schema[word], files, 0)
    try:
        size = len(json.dumps(made))
    except (TypeError, ValueError, RecursionError):
        return None
    return made if size <= MAX_SCHEMA_CHARS else None


def _clean(value: Any, files: str, depth: int) -> Any:
    """Copy a part of a schema; what a host could look up elsewhere, or take time over, is dropped."""
    if depth > MAX_DEPTH:
        return {}
    if isinstance(value, Mapping):
        if value.get("format") == "file" and value.get("type") == "string":
            title = {"title": one_line(value["title"])} if isinstance(value.get("title"), str) else {}
            return {**title, "type": "string", "description": files}
        found = {}
        for name, part in value.items():
            key = str(name)
            if key in ("$schema", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "pattern"):
                if not isinstance(part, Mapping):
                    continue
            elif key == "$ref" and not str(part).startswith("#"):
                continue
            if key in _TEXTS and isinstance(part, str):
                found[key] = one_line(part, _WORDS)
            else:
                found[one_line(key)] = _clean(part, files, depth + 1)
        return found
    if isinstance(value, (list, tuple)):
        return [_clean(part, files, depth + 1) for part in value]
    return one_line(value, _WORDS) if isinstance(value, str) else value
