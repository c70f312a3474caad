"""Forms in a terminal, made of a JSON Schema: for inputs that are missing, and for locks.

Asking is passed in: `ask(prompt, secret)` gives one line, `say(text)` shows one. Titles, descriptions and defaults
come from a peer and are made safe before they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kodo.cli.text import compact, line, lines
from kodo.client.inputs import read_word
from kodo.client.schemas import (
    Schema,
    branches,
    choices,
    group_of,
    help_texts,
    is_object,
    is_secret,
    labels,
    placeholder,
    properties,
    resolve,
)
from kodo.p2p.errors import UsageError

__all__ = ["Ask", "Say", "fill_form", "fill_missing", "missing_inputs"]

Ask = Callable[[str, bool], Awaitable[str]]
Say = Callable[[str], None]

MAX_FIELDS = 200
MAX_DEPTH = 8
_NOTHING: Any = object()


def missing_inputs(schema: Any, given: Mapping[str, Any]) -> list[str]:
    """Name the required fields that are not given."""
    required = schema.get("required") if isinstance(schema, Mapping) else None
    known = properties(schema) if isinstance(schema, Mapping) else {}
    return [name for name in required if name in known and name not in given] if isinstance(required, list) else []


async def fill_missing(schema: Schema, given: Mapping[str, Any], ask: Ask, say: Say) -> dict[str, Any]:
    """Ask for the required fields that are not given; give all of them together."""
    fields = properties(schema)
    answers = dict(given)
    missing = set(missing_inputs(schema, given))
    heading = ""
    for name in [name for name in fields if name in missing]:
        heading = _say_group(fields[name], heading, say)
        answers[name] = await _ask_field(name, fields[name], schema, ask, say, _NOTHING, required=True)
    return answers


async def fill_form(schema: Any, ask: Ask, say: Say, *, default: Any = _NOTHING, title: str = "answer") -> Any:
    """Ask for all that the schema has fields for.

    Args:
        default: what the whole is when nothing is entered; its fields become the fields' defaults.
    """
    root: Schema = schema if isinstance(schema, Mapping) else {}
    return await _ask_field(title, root, root, ask, say, default, required=True, outermost=True)


async def _ask_field(
    name: str,
    schema: Any,
    root: Schema,
    ask: Ask,
    say: Say,
    default: Any,
    *,
    required: bool,
    outermost: bool = False,
    depth: int = 0,
) -> Any:
    """Return the field's value; `_NOTHING` for an optional one that was left out."""
    if depth > MAX_DEPTH:
        raise UsageError("this form is nested too deeply for a terminal; answer it as JSON")
    field = resolve(schema, root)
    if default is _NOTHING and "default" in field:
        default = field["default"]
    options = branches(field, root)
    objects = [option for option in options if is_object(option) and properties(option)]
    if objects and (len(options) == 1 or default is None or default is _NOTHING):
        nullable = len(options) > 1
        if (nullable or not required) and not await _ask_yes(f"{line(name)}: fill it in?", ask, say):
            return None if nullable and required else _NOTHING
        return await _ask_object(name, objects[0], root, ask, say, default, outermost, depth)
    return await _ask_value(name, field, root, ask, say, default, required)


async def _ask_object(
    name: str, schema: Schema, root: Schema, ask: Ask, say: Say, default: Any, outermost: bool, depth: int
) -> dict[str, Any]:
    if outermost and schema.get("description"):  # whoever asks has shown the title
        say(lines(schema["description"]))
    elif not outermost and (text := schema.get("description") or schema.get("title")):
        say(line(text))
    required = schema.get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    answers: dict[str, Any] = {}
    heading = ""
    for field, inner in list(properties(schema).items())[:MAX_FIELDS]:
        heading = _say_group(inner, heading, say)
        label = field if outermost else f"{name}.{field}"
        known = default.get(field, _NOTHING) if isinstance(default, Mapping) else _NOTHING
        value = await _ask_field(label, inner, root, ask, say, known, required=field in needed, depth=depth + 1)
        if value is not _NOTHING:
            answers[field] = value
    return answers


def _say_group(field: Any, heading: str, say: Say) -> str:
    """Show the heading of a field's group where it is not that of the field before; return it."""
    group = group_of(field)
    if group and group != heading:
        say(f"— {line(group, 120)} —")
    return group


async def _ask_yes(question: str, ask: Ask, say: Say) -> bool:
    while True:
        answer = (await ask(f"{question} [y/N] ", False)).strip().lower()
        if answer in ("", "n", "no"):
            return False
        if answer in ("y", "yes"):
            return True
        say("enter yes or no")


async def _ask_value(name: str, field: Schema, root: Schema, ask: Ask, say: Say, default: Any, required: bool) -> Any:
    for text in help_texts(field):
        say(f"  {line(text)}")
    options = branches(field, root)
    chooses = next((each for each in (field, *options) if choices(each)), field)
    values, names = choices(chooses), labels({**chooses, **field}) or labels(chooses)
    if values is not None:
        for number, value in enumerate(values, 1):
            named = f"{line(names[number - 1], 200)} ({compact(value)})" if names else compact(value)
            say(f"  {number}) {named}")
    secret = is_secret(field, root)
    example = f" (e.g. {line(placeholder(field), 80)})" if placeholder(field) and default is _NOTHING else ""
    prompt = line(name, 120) + _hint(field, options, values) + example + _shown(default, required, secret) + ": "
    while True:
        entered = await ask(prompt, secret)
        text = entered.strip()
        if text == "" and default is not _NOTHING:
            return default
        if text == "" and not required:
            return _NOTHING
        kinds = [option.get("type") for option in options]
        if text == "" and "string" not in kinds and "array" not in kinds and "null" not in kinds:
            say("a value is needed")
            continue
        if values is not None and text.isdecimal() and 1 <= int(text) <= len(values) and text not in map(str, values):
            return values[int(text) - 1]
        try:
            return read_word(text, field, root)
        except ValueError as error:
            say(f"that should be {line(error)}")


def _hint(field: Schema, options: list[Schema], values: list[Any] | None) -> str:
    if values is not None:
        return f" (1–{len(values)})"
    kinds = {str(option.get("type")) for option in options} - {"null", "None"}
    words = {"boolean": "yes/no", "integer": "whole number", "number": "number", "object": "JSON"}
    if any(option.get("format") == "file" for option in options):
        return " (@ and the path of a file)"
    if kinds == {"array"}:
        items: Mapping[str, Any] = next(
            (option["items"] for option in options if isinstance(option.get("items"), Mapping)), {}
        )
        return " (comma separated, or JSON)" if items.get("format") != "file" else " (@ and a path, comma separated)"
    parts = [words[kind] for kind in sorted(kinds) if kind in words]
    low, high = field.get("minimum"), field.get("maximum")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        parts.append(f"{low} to {high}")
    return f" ({', '.join(parts)})" if parts else ""


def _shown(default: Any, required: bool, secret: bool) -> str:
    if default is _NOTHING:
        return "" if required else " [leave out]"
    if secret:
        return " [kept]"
    if isinstance(default, bool):
        return " [yes]" if default else " [no]"
    if isinstance(default, list) and all(isinstance(each, (str, int, float)) for each in default):
        return f" [{line(', '.join(map(str, default)), 200)}]"
    return f" [{line(default, 200) if isinstance(default, str) else line(json.dumps(default), 200)}]"
