"""`name=value` on the command line, read by the JSON Schema of what is asked for. Pure but for `@file`.

The schema is a guide, not a judge: it says whether `3` is a number or a text. Whether the whole fits is for the node
to say; it has the flow's own types. Schemas come from peers: patterns and remote references in them are never used.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from kodo.client.schemas import Schema, branches, choices, is_object, is_secret, properties, resolve, takes_file
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import is_upload_id

__all__ = [
    "answer_words",
    "name_files",
    "parse_assignments",
    "parse_value",
    "read_inputs_file",
    "read_text",
    "secret_fields",
]

MAX_FILE_BYTES = 16 << 20
MAX_DEPTH = 16
MAX_STEPS = 100_000
"""How many schemas one value may be held against: alternatives of alternatives multiply."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_TRUE = frozenset(["true", "yes", "y", "on", "1"])
_FALSE = frozenset(["false", "no", "n", "off", "0"])


def answer_words(schema: Any) -> str:
    """Return what an answer to a schema looks like on the command line: `topic=… depth=…`, `yes or no`, `VALUE`.

    It is quoted for a shell: people copy commands, and names of fields are whatever a flow says.
    """
    root = schema if isinstance(schema, Mapping) else {}
    found = resolve(root, root)
    if is_object(found):
        fields = list(properties(found).items())
        options = ["--"] if any(name.startswith("-") for name, _ in fields[:8]) else []
        words = [f"{shlex.quote(name[:80])}={_value_word(field, root)}" for name, field in fields[:8]]
        return " ".join([*options, *words, *["…"] * (len(fields) > 8)]) or "NAME=VALUE …"
    if is_secret(found, root):
        return "-"
    allowed = choices(found)
    if allowed is not None and len(allowed) <= 8:
        return " or ".join(shlex.quote(str(each)[:80]) for each in allowed)
    return "yes or no" if found.get("type") == "boolean" else "VALUE"


def _value_word(schema: Any, root: Schema) -> str:
    return "-" if is_secret(schema, root) else "…"


def secret_fields(words: Sequence[str], schema: Any) -> list[tuple[str, str]]:
    """Return name and text of those `name=value` whose fields are secrets; others are passed over."""
    root: Schema = schema if isinstance(schema, Mapping) else {}
    found: list[tuple[str, str]] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            continue
        with contextlib.suppress(UsageError):
            field, _, _ = _field(name, resolve(root, root), root, {})
            if is_secret(field, root):
                found.append((name, text))
    return found


class _TooManyError(ValueError):
    """The schema has no end."""


def parse_value(text: str, schema: Any, root: Schema) -> Any:
    """Read `text` as the schema demands.

    Raises:
        ValueError: saying what was expected.
    """
    return _parse(text, schema, root, itertools.repeat(None, MAX_STEPS), 0)


def _parse(text: str, schema: Any, root: Schema, steps: Iterator[None], depth: int) -> Any:
    if depth > MAX_DEPTH or next(steps, _TooManyError) is not None:
        raise _TooManyError("something simpler: the schema has too many alternatives")
    schema = resolve(schema, root)
    if (values := choices(schema)) is not None:
        for value in values:
            if text == (value if isinstance(value, str) else json.dumps(value)):
                return value
        raise ValueError(
            f"one of {', '.join(value if isinstance(value, str) else json.dumps(value) for value in values)}"
        )
    options = branches(schema, root)
    if len(options) > 1:
        return _parse_any(text, options, root, steps, depth)
    match options[0].get("type"):
        case "string":
            return _file_or_text(text, options[0])
        case "boolean":
            return _parse_truth(text)
        case "integer":
            if re.fullmatch(r"[+-]?\d{1,4000}", text.strip()):
                return int(text)
            raise ValueError("a whole number")
        case "number":
            if _NUMBER.match(text.strip()) and math.isfinite(value := float(text)):
                return int(text) if re.fullmatch(r"[+-]?\d{1,15}", text.strip()) else value
            raise ValueError("a number")
        case "null":
            if text.strip() in ("", "null", "none"):
                return None
            raise ValueError("nothing")
        case "array":
            return _parse_array(text, options[0], root, steps, depth)
        case "object":
            return _parse_json(text, dict, 'a JSON object such as {"a": 1}')
        case _:
            if is_object(options[0]):
                return _parse_json(text, dict, 'a JSON object such as {"a": 1}')
            try:
                return json.loads(text)
            except ValueError:
                return text


def _parse_any(text: str, options: Sequence[Schema], root: Schema, steps: Iterator[None], depth: int) -> Any:
    # A text takes anything, so it comes last; an optional number's "3" is the number.
    expected: list[str] = []
    for option in sorted(options, key=_takes_text):
        if option.get("type") == "null" and text == "" and any(each.get("type") == "string" for each in options):
            continue
        try:
            value = _parse(text, option, root, steps, depth + 1)
            # A `Decimal` is a number or a text: as a number it would lose digits.
            as_text = isinstance(value, float) and Decimal(text.strip()) != Decimal(repr(value))
            return text.strip() if as_text and any(map(_takes_text, options)) else value
        except _TooManyError:
            raise
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(expected)))


def _takes_text(option: Schema) -> bool:
    return option.get("type") == "string" and not choices(option)


def _file_or_text(text: str, schema: Schema) -> Any:
    """A `Path` stands for a file that is to be uploaded; an id for one that was."""
    if schema.get("format") != "file" or is_upload_id(text):
        return text
    return Path(text.removeprefix("@")).expanduser()


def _parse_truth(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("yes or no")


def _parse_array(text: str, schema: Schema, root: Schema, steps: Iterator[None], depth: int) -> list[Any]:
    if text.lstrip().startswith("["):
        found: list[Any] = _parse_json(text, list, 'a JSON list such as ["a", "b"]')
        return found
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    items = schema.get("items", {})
    if resolve(items, root).get("type") in ("object", "array"):
        raise ValueError("a JSON list such as [{…}, {…}]")
    return [_parse(word, items, root, steps, depth + 1) for word in words]


def _parse_json(text: str, kind: type, expected: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(expected) from None
    if not isinstance(value, kind):
        raise ValueError(expected)
    return value


def parse_assignments(words: Sequence[str], schema: Any, secrets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read `name=value`, `name=@file` and `outer.inner=value` as fields of an object of this schema.

    Args:
        secrets: by name what was read elsewhere for words that say where it is; taken as it is.

    Raises:
        UsageError: naming the word, and what was expected.
    """
    root: Schema = schema if isinstance(schema, Mapping) else {}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word!r} is not name=value")
        field, place, last = _field(name, resolve(root, root), root, found)
        try:
            if name in (secrets or {}):
                value = parse_value((secrets or {})[name], field, root)
            elif text.startswith("@") and takes_file(field, root):
                value = Path(text[1:]).expanduser()
            else:
                if text.startswith("@") and not _takes_files(field, root):
                    text = read_text(text[1:], word)
                value = parse_value(text, field, root)
        except ValueError as error:
            shown = "" if is_secret(field, root) else f"; it is {text[:80]!r}"
            raise UsageError(f"{name} should be {error}{shown}") from None
        if last in place:
            raise UsageError(f"{name} is given twice")
        place[last] = value
    return found


def name_files(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Take the texts in the places of `format: file` for names of local files, as in `--inputs`."""
    fields = properties(schema)

    def read(value: Any, field: Any) -> Any:
        for option in branches(resolve(field, schema), schema):
            if isinstance(value, str) and option.get("type") == "string" and option.get("format") == "file":
                return _file_or_text(value, option)
            if isinstance(value, list) and option.get("type") == "array":
                return [read(each, option.get("items", {})) for each in value]
        return value

    return {name: read(value, fields.get(name, {})) for name, value in values.items()}


def _takes_files(schema: Any, root: Schema) -> bool:
    """Whether it is a list of files: `docs=@a.pdf,@b.pdf`."""
    options = branches(resolve(schema, root), root)
    return any(option.get("type") == "array" and takes_file(option.get("items"), root) for option in options)


def _field(name: str, schema: Schema, root: Schema, found: dict[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """Return the schema of the field `name`, the map that its value goes into, and the key there."""
    fields = properties(schema)
    if name in fields:
        return fields[name], found, name
    head, dot, rest = name.partition(".")
    if dot and head in fields:
        for option in branches(resolve(fields[head], root), root):
            if is_object(option):
                inner = found.setdefault(head, {})
                if not isinstance(inner, dict):
                    raise UsageError(f"{head} is given both as a whole and in parts")
                return _field(rest, option, root, inner)
    if schema.get("additionalProperties") is False or (fields and "additionalProperties" not in schema):
        near = difflib.get_close_matches(name, fields, 1, 0.5)
        hint = f"did you mean {shlex.quote(near[0])}?" if near else f"there are: {', '.join(fields) or 'none'}"
        raise UsageError(f"the flow has no input {name!r}; {hint}")
    return schema.get("additionalProperties") or {}, found, name


def read_text(name: str, word: str) -> str:
    try:
        raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if name == "-" else _read_file(Path(name).expanduser())
        text = raw.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{word}: {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{word}: {name} is not UTF-8 text") from None
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"{word}: {name} is larger than {MAX_FILE_BYTES} bytes")
    return text


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def read_inputs_file(name: str) -> dict[str, Any]:
    """Read `--inputs FILE`, JSON or YAML (`-` is stdin): a map.

    Raises:
        UsageError: it cannot be read, or is not a map.
    """
    import yaml

    text = read_text(name, "--inputs")
    try:
        value = json.loads(text) if text.lstrip().startswith(("{", "[")) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"--inputs {name} is neither JSON nor YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"--inputs {name} must be a map of names to values")
    return value
