"""Inputs and answers as data: what Python code, a JSON or YAML file, or a word of the command line means by them.

One conversion for all, by the JSON Schema of what is asked for. The schema is a guide, not a judge: it says whether
`3` is a number or a text; whether the whole fits is for the node to say. What no node takes, as a number beyond 64
bits, is refused here by its name. Schemas come from peers: patterns and remote references in them are never used.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from kodo.client.schemas import Schema, branches, choices, is_object, labels, properties, resolve
from kodo.p2p.errors import UsageError
from kodo.protocol.uploads import is_upload_id

__all__ = ["Unread", "field_named", "is_data", "read_document", "read_literal", "read_word", "to_data", "to_inputs"]

MAX_DEPTH = 16
MAX_STEPS = 100_000
"""How many schemas one value may be held against: alternatives of alternatives multiply."""

MAX_NESTED = 64
"""Maps and lists inside of each other; nodes take no more."""

MAX_PARTS = 1 << 18
"""Values inside of one: inputs have at most 256 KiB."""

_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_TRUE = frozenset(["true", "yes", "y", "on", "1"])
_FALSE = frozenset(["false", "no", "n", "off", "0"])
_WIRE_DIGITS, _MAX_BITS = 21, 10_000
_WHOLE = "a whole number from -2^63 to 2^64-1"
_FINITE = "a finite number"


@dataclasses.dataclass(frozen=True, slots=True)
class Unread:
    """A scalar as a file has it: `number` of JSON, else a plain one of YAML. The schema says what it means."""

    text: str
    number: bool = False


class _TooManyError(ValueError):
    """The schema has no end."""


# Words


def read_word(text: str, schema: Any, root: Schema, steps: Iterator[None] | None = None) -> Any:
    """Read a text without quotes as the schema demands.

    Args:
        steps: gives None for each schema that may still be held against it.

    Raises:
        ValueError: saying what was expected.
    """
    return _read(text, schema, root, steps or itertools.repeat(None, MAX_STEPS), 0)


def read_literal(text: str, schema: Any, root: Schema) -> Any:
    """Read a text that somebody else may have written: never as a file or a list of files of this machine.

    Raises:
        ValueError: saying what was expected.
    """

    def check(value: Any) -> None:
        if isinstance(value, Path):
            raise ValueError("given as a file, and not as a text")
        for part in value if isinstance(value, list) else ():
            check(part)

    value = read_word(text, schema, root)
    check(value)
    return value


def _read(text: str, schema: Any, root: Schema, steps: Iterator[None], depth: int) -> Any:
    if depth > MAX_DEPTH or next(steps, _TooManyError) is not None:
        raise _TooManyError("something simpler: the schema has too many alternatives")
    schema = resolve(schema, root)
    if (values := choices(schema)) is not None:
        for value in values:
            if text == (value if isinstance(value, str) else json.dumps(value)):
                return value
        for label, value in zip(labels(schema) or (), values, strict=False):
            if text.strip().casefold() == label.casefold():
                return value
        raise ValueError(
            f"one of {', '.join(value if isinstance(value, str) else json.dumps(value) for value in values)}"
        )
    options = branches(schema, root)
    if len(options) > 1:
        return _read_any(text, options, root, steps, depth)
    match options[0].get("type"):
        case "string":
            return _file_or_text(text, options[0])
        case "boolean":
            return _read_truth(text)
        case "integer":
            if re.fullmatch(r"[+-]?\d{1,4000}", text.strip()):
                return _wire_integer(int(text))
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
            return _read_array(text, options[0], root, steps, depth)
        case "object":
            return _read_json(text, dict, 'a JSON object such as {"a": 1}', options[0], root)
        case _:
            if is_object(options[0]):
                return _read_json(text, dict, 'a JSON object such as {"a": 1}', options[0], root)
            try:
                return to_data(_load_json(text), options[0], root)
            except ValueError:
                return text


def _read_any(text: str, options: Sequence[Schema], root: Schema, steps: Iterator[None], depth: int) -> Any:
    # A text takes anything, so it comes last; an optional number's "3" is the number.
    expected: list[str] = []
    for option in sorted(options, key=_takes_text):
        if option.get("type") == "null" and text == "" and any(each.get("type") == "string" for each in options):
            continue
        try:
            value = _read(text, option, root, steps, depth + 1)
            # A `Decimal` is a number or a text: as a number it would lose digits.
            as_text = isinstance(value, float) and _loses_digits(text.strip(), value)
            return text.strip() if as_text and any(map(_takes_text, options)) else value
        except _TooManyError:
            raise
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(expected)))


def _loses_digits(text: str, number: float) -> bool:
    """Return whether a number says less than a text, of whose digits trailing zeros are some, too."""
    if not math.isfinite(number):
        return True
    said, kept = Decimal(text), Decimal(repr(number))
    return said != kept or ("e" not in text.lower() and "." in text and said.as_tuple() != kept.as_tuple())


def _takes_text(option: Schema) -> bool:
    return option.get("type") == "string" and not choices(option)


def _file_or_text(text: str, schema: Schema) -> Any:
    """A `Path` stands for a file that is to be uploaded; an id for one that was."""
    if schema.get("format") != "file" or is_upload_id(text):
        return text
    return Path(text.removeprefix("@")).expanduser()


def _read_truth(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("yes or no")


def _wire_integer(value: int) -> int:
    if _LOWEST <= value <= _HIGHEST:
        return value
    raise ValueError(_WHOLE)


def _read_array(text: str, schema: Schema, root: Schema, steps: Iterator[None], depth: int) -> list[Any]:
    if text.lstrip().startswith("["):
        found: list[Any] = _read_json(text, list, 'a JSON list such as ["a", "b"]', schema, root)
        return found
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    items = schema.get("items", {})
    if resolve(items, root).get("type") in ("object", "array"):
        raise ValueError("a JSON list such as [{…}, {…}]")
    return [_read(word, items, root, steps, depth + 1) for word in words]


def _read_json(text: str, kind: type, expected: str, schema: Schema, root: Schema) -> Any:
    try:
        value = _load_json(text)
    except ValueError:
        raise ValueError(expected) from None
    if not isinstance(value, kind):
        raise ValueError(expected)
    return to_data(value, schema, root)


def _load_json(text: str) -> Any:
    """Read JSON, its numbers as `Unread`.

    Raises:
        ValueError: the text is not one.
    """

    def number(word: str) -> Unread:
        return Unread(word, number=True)

    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_document(text: str) -> Any:
    """Read JSON or YAML; scalars without quotes are `Unread`, which `to_inputs` reads by the form.

    Raises:
        ValueError: it is neither.
    """
    import yaml

    if text.lstrip().startswith(("{", "[")):
        try:
            return _load_json(text)
        except ValueError:
            pass  # flow style is YAML, too
    try:
        return yaml.load(text, _yaml_loader())
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(next(iter(str(error).splitlines()), "nested too deeply")) from None


def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads plain scalars as they stand: YAML takes `NO` for false and `12:30:00` for a number."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            made = super().construct_mapping(node, deep=deep)
            return {key.text if isinstance(key, Unread) else key: value for key, value in made.items()}

    def construct(loader: Any, node: Any) -> Any:
        if node.style is not None:  # quoted or a block: a text, unless a tag says otherwise
            return constructors[node.tag](loader, node)
        return None if node.value in ("", "~") else Unread(node.value)

    constructors = {}
    for kind in ("bool", "int", "float", "timestamp", "null", "str"):
        tag = f"tag:yaml.org,2002:{kind}"
        constructors[tag] = yaml.SafeLoader.yaml_constructors[tag]
        Loader.add_constructor(tag, construct)
    return Loader


# Values


def to_inputs(values: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Return inputs as data, by the schema of the form; `Path`s stay, to be uploaded.

    Raises:
        UsageError: one cannot be sent; says its name and what was expected, never its value.
    """
    root: Schema = schema if isinstance(schema, Mapping) else {}
    form, walk = resolve(root, root), _Walk(root)
    found: dict[str, Any] = {}
    for name, value in values.items():
        known = field_named(str(name), form)
        if known in found:
            raise UsageError(f"{known} is given twice")
        try:
            found[known] = walk.data(value, _part_of([form], known), 0)
        except ValueError as error:
            raise UsageError(f"{known}{getattr(error, 'place', '')} should be {error}") from None
    return found


def to_data(value: Any, schema: Any, root: Schema) -> Any:
    """Return a value as data that travels: dates, decimals, models and the like in the form that the schema takes.

    Raises:
        ValueError: saying what was expected.
    """
    return _Walk(root).data(value, schema, 0)


class _PlaceError(ValueError):
    """What is wrong inside of a value; `place`: where, as `.guests.0`."""

    def __init__(self, place: str, expected: str):
        super().__init__(expected)
        self.place = place


class _Walk:
    """One value turned into data. What YAML repeats by reference is counted as often as it stands there."""

    def __init__(self, root: Schema):
        self._root = root
        self._left = MAX_PARTS

    def data(self, value: Any, schema: Any, depth: int) -> Any:
        """Return a value as data."""
        self._left -= 1
        if depth > MAX_NESTED or self._left < 0:
            raise ValueError("nested less deeply" if self._left >= 0 else "smaller")
        if value is None or type(value) in (str, bool):
            return value
        options = branches(resolve(schema, self._root), self._root)
        if isinstance(value, Unread):
            return _number(value.text, options) if value.number else read_word(value.text, schema, self._root)
        if isinstance(value, Path):
            # One file, or a folder, where a list of files is wanted.
            kinds = {option.get("type") for option in options}
            return [value] if "array" in kinds and "string" not in kinds else value
        if isinstance(value, Enum):
            return self.data(value.value, schema, depth + 1)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return _integer(value, options)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(_FINITE)
            return float(value)
        if isinstance(value, Decimal):
            return _decimal(value, options)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _text(bytes(value))
        if callable(opened := getattr(value, "get_secret_value", None)):
            return self.data(opened(), schema, depth + 1)
        if callable(listed := getattr(value, "tolist", None)):  # of numpy, and of what is like it
            return self.data(listed(), schema, depth + 1)
        return self._composed(value, options, depth)

    def _composed(self, value: Any, options: Sequence[Schema], depth: int) -> Any:
        if callable(fields := getattr(value, "model_dump", None)):
            value = fields(by_alias=True)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            keys = {str(key.value if isinstance(key, Enum) else key): key for key in value}
            return {key: self._inside(key, value[old], _part_of(options, key), depth) for key, old in keys.items()}
        if isinstance(value, (list, tuple, AbstractSet)):
            return [self._inside(place, part, _part_of(options, place), depth) for place, part in enumerate(value)]
        from pydantic_core import PydanticSerializationError, to_jsonable_python

        try:
            return to_jsonable_python(value)  # dates, durations, ids and other single values
        except PydanticSerializationError:
            raise ValueError(f"data, and not a {type(value).__name__}") from None

    def _inside(self, place: str | int, part: Any, schema: Any, depth: int) -> Any:
        try:
            return self.data(part, schema, depth + 1)
        except ValueError as error:
            raise _PlaceError(f".{place}{getattr(error, 'place', '')}", str(error)) from None


def _part_of(options: Sequence[Schema], key: str | int) -> Any:
    """Return the schema of what stands at `key` in a value of one of these schemas."""
    parts: list[Any] = []
    for option in options:
        if isinstance(key, int):
            first = option.get("prefixItems")
            inside = first[key] if isinstance(first, (list, tuple)) and key < len(first) else option.get("items")
        else:
            inside = properties(option).get(key, option.get("additionalProperties"))
        if isinstance(inside, Mapping):
            parts.append(inside)
    return parts[0] if len(parts) == 1 else {"anyOf": parts} if parts else {}


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("text: upload other bytes as a file") from None


def _integer(value: int, options: Sequence[Schema]) -> Any:
    if _LOWEST <= value <= _HIGHEST:
        return int(value)
    if value.bit_length() > _MAX_BITS:
        raise ValueError(_WHOLE)
    return _number(str(value), options)


def _decimal(value: Decimal, options: Sequence[Schema]) -> Any:
    if not value.is_finite():
        raise ValueError(_FINITE)
    numbers = any(option.get("type") in ("number", "integer") for option in options)
    # All digits, trailing zeros too, unless the form takes nothing but numbers.
    return str(value) if any(map(_takes_text, options)) or not numbers else _number(str(value), options)


def _number(text: str, options: Sequence[Schema]) -> Any:
    """Return a number with all its digits: as a text where a number would lose some and both are taken."""
    kinds = {option.get("type") for option in options}
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(_FINITE)
    is_whole = re.fullmatch(r"[+-]?\d+", text) is not None
    if is_whole and len(text) <= _WIRE_DIGITS and _LOWEST <= int(text) <= _HIGHEST:
        return int(text)
    near = float(number)
    if "number" in kinds and any(map(_takes_text, options)) and _loses_digits(text, near):
        return text
    if is_whole and "number" not in kinds:
        raise ValueError(_WHOLE)
    if not math.isfinite(near):
        raise ValueError("a number up to 1.8e308")
    return near


def is_data(value: Any) -> bool:
    """Return whether a value is data already, so that no schema is needed to send it."""
    if type(value) is dict:
        return all(type(key) is str and is_data(part) for key, part in value.items())
    if type(value) is list:
        return all(map(is_data, value))
    if type(value) is int:
        return _LOWEST <= value <= _HIGHEST
    return value is None or type(value) in (str, bool) or (type(value) is float and math.isfinite(value))


def field_named(name: str, schema: Schema) -> str:
    """Return the field of a schema that a name means; the name itself where there is none.

    One letter can be written in two ways (Unicode's NFC and NFD), and keyboards and file systems differ in them.
    """
    fields = properties(schema)
    if name in fields or name.isascii():
        return name
    folded = unicodedata.normalize("NFKC", name)
    return next((field for field in fields if unicodedata.normalize("NFKC", field) == folded), name)
