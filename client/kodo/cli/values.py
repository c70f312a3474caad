"""`name=value` on the command line, read by the JSON Schema of what is asked for. Pure but for `@file`.

The schema is a guide, not a judge: it says whether `3` is a number or a text. Whether the whole fits is for the node
to say; it has the flow's own types. Schemas come from peers: patterns and remote references in them are never used.
"""

from __future__ import annotations

import difflib
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kodo.client.inputs import field_named, read_document, read_literal, read_word
from kodo.client.schemas import Schema, branches, choices, is_object, is_secret, properties, resolve, takes_file
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import is_upload_id

__all__ = [
    "answer_words",
    "check_assignments",
    "name_files",
    "parse_assignments",
    "read_inputs_file",
    "read_text",
    "secret_fields",
]

MAX_FILE_BYTES = 16 << 20
MAX_PARTS, MAX_BRANCHES = 16, 64
"""How many names may be in `a.b.c`, and how many alternatives each may have."""

MAX_STEPS = 100_000
"""How many schemas all words may be held against: alternatives of alternatives multiply."""


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
        if equals and name and any(is_secret(field, root) for field in _fields(name, [resolve(root, root)], root)):
            found.append((name, text))
    return found


def _fields(name: str, schemas: Sequence[Schema], root: Schema, depth: int = 0) -> Iterator[Any]:
    """Yield the schemas of the field `name`, which may be a part of another one, in whichever of `schemas` has it."""
    for schema in schemas[:MAX_BRANCHES] if depth < MAX_PARTS else ():
        fields = properties(schema)
        if (known := field_named(name, schema)) in fields:
            yield fields[known]
            continue
        head, dot, rest = name.partition(".")
        if dot and (known := field_named(head, schema)) in fields:
            yield from _fields(rest, _objects(fields[known], root), root, depth + 1)


def _objects(schema: Any, root: Schema) -> list[Schema]:
    return [option for option in branches(resolve(schema, root), root) if is_object(option)]


class _Word(NamedTuple):
    """One `name=value`: as it stands there, the name that is left of it, and the text."""

    word: str
    name: str
    text: str
    is_literal: bool = False


def parse_assignments(
    words: Sequence[str], schema: Any, secrets: Mapping[str, str] | None = None, texts: Sequence[str] = ()
) -> dict[str, Any]:
    """Read `name=value`, `name=@file`, `name=@@text` and `outer.inner=value` as fields of an object of this schema.

    Args:
        secrets: by name what was read elsewhere for words that say where it is; taken as it is.
        texts: more `name=value`, of which nothing stands for a file.

    Raises:
        UsageError: naming the word, and what was expected.
    """
    root: Schema = schema if isinstance(schema, Mapping) else {}
    split = [_Word(word, *_split(word)) for word in words]
    split += [_Word(word, *_split(word), True) for word in texts]
    return _Reader(root, secrets or {}).read(split, resolve(root, root), 0)


def check_assignments(words: Sequence[str]) -> None:
    """Check that words are `name=value`, before anything is looked up for them.

    Raises:
        UsageError: naming the word that is not.
    """
    for word in words:
        _split(word)


def _split(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise UsageError(f"{word!r} is not name=value")
    return name, text


class _Reader:
    """Reads words by a schema."""

    def __init__(self, root: Schema, secrets: Mapping[str, str]):
        self._root = root
        self._secrets = secrets
        self._steps: Iterator[None] = itertools.repeat(None, MAX_STEPS)

    def read(self, words: Sequence[_Word], schema: Schema, depth: int) -> dict[str, Any]:
        """Return the fields that the words give of one object."""
        found: dict[str, Any] = {}
        parts: dict[str, list[_Word]] = {}
        for word in words:
            name, field, rest = self._place(word, schema)
            if rest is not None:
                parts.setdefault(name, []).append(word._replace(name=rest))
            elif name in found:
                raise UsageError(f"{word.word.partition('=')[0]} is given twice")
            else:
                found[name] = self._value(word, field)
        for name, inner in parts.items():
            if name in found:
                raise UsageError(f"{name} is given both as a whole and in parts")
            found[name] = self._read_any(inner, _objects(properties(schema)[name], self._root), depth + 1)
        return found

    def _read_any(self, words: Sequence[_Word], options: Sequence[Schema], depth: int) -> dict[str, Any]:
        """Read the parts of one object by the first alternative that takes them, better one that lacks nothing."""
        fitting: list[tuple[bool, dict[str, Any]]] = []
        refused: list[UsageError] = []
        for option in options[:MAX_BRANCHES] if depth < MAX_PARTS else ():
            if next(self._steps, self) is not None:
                break
            try:
                made = self.read(words, option, depth)
            except UsageError as error:
                refused.append(error)
                continue
            required = option.get("required")
            fitting.append((set(map(str, required if isinstance(required, list) else ())) <= set(made), made))
        if fitting:
            return next((made for whole, made in fitting if whole), fitting[0][1])
        unknown = [error for error in refused if isinstance(error, _UnknownError)]
        raise next(
            (error for error in refused if error not in unknown),
            unknown[0] if unknown else UsageError(f"{words[0].word.partition('=')[0]} is nested too deeply"),
        )

    def _place(self, word: _Word, schema: Schema) -> tuple[str, Any, str | None]:
        """Return a field's name, its schema, and what is left of the word's name where a part of it is meant."""
        fields = properties(schema)
        name = field_named(word.name, schema)
        if name in fields:
            return name, fields[name], None
        head, dot, rest = word.name.partition(".")
        known = field_named(head, schema)
        if dot and rest and known in fields and _objects(fields[known], self._root):
            return known, None, rest
        if schema.get("additionalProperties") is False or (fields and "additionalProperties" not in schema):
            near = difflib.get_close_matches(name, fields, 1, 0.5)
            hint = f"did you mean {shlex.quote(near[0])}?" if near else f"there are: {', '.join(fields) or 'none'}"
            raise _UnknownError(f"the flow has no input {name!r}; {hint}")
        return name, schema.get("additionalProperties") or {}, None

    def _value(self, word: _Word, field: Any) -> Any:
        given, text, root = word.word.partition("=")[0], word.text, self._root
        try:
            if word.is_literal:
                return read_literal(text, field, root)
            if given in self._secrets:
                return read_word(self._secrets[given], field, root)
            if text.startswith("@@") and not takes_file(field, root) and not _takes_files(field, root):
                text = text[1:]
            elif text.startswith("@") and takes_file(field, root):
                return Path(text[1:]).expanduser()
            elif text.startswith("@") and not _takes_files(field, root):
                text = read_text(text[1:], word.word)
            return read_word(text, field, root, self._steps)
        except ValueError as error:
            shown = "" if is_secret(field, root) else f"; it is {text[:80]!r}"
            raise UsageError(f"{given} should be {error}{shown}") from None


class _UnknownError(UsageError):
    """There is no such field."""


def name_files(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Take the texts in the places of `format: file` for names of local files, as in `--inputs`."""
    fields = properties(schema)

    def read(value: Any, field: Any) -> Any:
        for option in branches(resolve(field, schema), schema):
            if isinstance(value, str) and option.get("type") == "string" and option.get("format") == "file":
                return value if is_upload_id(value) else Path(value.removeprefix("@")).expanduser()
            if isinstance(value, list) and option.get("type") == "array":
                return [read(each, option.get("items", {})) for each in value]
        return value

    return {name: read(value, fields.get(name, {})) for name, value in values.items()}


def _takes_files(schema: Any, root: Schema) -> bool:
    """Whether it is a list of files: `docs=@a.pdf,@b.pdf`."""
    options = branches(resolve(schema, root), root)
    return any(option.get("type") == "array" and takes_file(option.get("items"), root) for option in options)


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
    """Read `--inputs FILE`, JSON or YAML (`-` is stdin): a map, for `to_inputs`.

    Raises:
        UsageError: it cannot be read, or is not a map.
    """
    text = read_text(name, "--inputs")
    try:
        value = read_document(text)
    except ValueError as error:
        raise UsageError(f"--inputs {name} is neither JSON nor YAML: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"--inputs {name} must be a map of names to values")
    return value
