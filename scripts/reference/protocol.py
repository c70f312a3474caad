"""The reference of what nodes and clients say to each other: args of ops, events, refusals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kodo.protocol.calls import OPS
from kodo.protocol.events import EVENTS

from .blocks import table

__all__ = ["args", "events", "refusals"]

ROOT = Path(__file__).resolve().parents[2]
MOST_TEXTS = 3
"""Texts of one refusal that are shown: some, such as `bad-args`, have many."""


def args() -> str:
    """Return the args of every op, with their types, defaults and bounds."""
    return table(["Op", "Arg", "Type", "Default"], (row for op, model in OPS.items() for row in _args(op, model)))


def _args(op: str, model: Any) -> Iterator[list[str]]:
    schema = model.model_json_schema(by_alias=True)
    fields = schema.get("properties", {})
    if not fields:
        yield [f"`{op}`", "", "", ""]
    for name, field in fields.items():
        needed = name in schema.get("required", ())
        default = "*needed*" if needed else f"`{_shown(field.get('default'))}`" if "default" in field else "empty"
        yield [f"`{op}`", f"`{name}`", _type(field, schema), default]


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return "{" + ", ".join(f"`{name}`: {_type(each, schema)}" for name, each in inner["properties"].items()) + "}"
    if "anyOf" in field:
        return " or ".join(_type(each, schema) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field:
        return " or ".join(f"`{each}`" for each in field["enum"])
    kind = field.get("type", "any value")
    if kind == "array":
        return f"list of {_type(field['items'], schema)}{_bounds(field)}"
    names = {"object": "map", "string": "text", "boolean": "true or false", "integer": "whole number"}
    shown = "bytes" if field.get("format") == "binary" else names.get(kind, kind)
    return shown + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    said = []
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " elements"),
    ):
        if low in field and high in field and field[low] == field[high]:
            said.append(f"{_number(field[low])}{unit if field.get('format') != 'binary' else ' bytes'}")
        elif high in field:
            said.append(f"{_number(field[low])} to {_number(field[high])}{unit}" if low in field else "")
            said[-1] = said[-1] or f"at most {_number(field[high])}{unit}"
        elif low in field:
            said.append(f"at least {_number(field[low])}{unit}")
    return f" ({', '.join(said)})" if said else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _shown(default: object) -> str:
    return (
        {True: "true", False: "false", None: "null"}.get(default, "")
        if not isinstance(default, (str, list)) and (default is None or isinstance(default, bool))
        else f"{default:g}"
        if isinstance(default, float)
        else str(default) or '""'
    )


def events() -> str:
    """Return every event: its kind, the least level that sees it, and who may make it."""
    return table(
        ["Event", "Kind", "Level", "Made by"],
        (
            [
                f"`{name}`",
                each.kind.value,
                each.level,
                " or ".join(who for who, may in (("the flow", each.flow), ("the node", each.node)) if may),
            ]
            for name, each in EVENTS.items()
        ),
    )


def refusals(*folders: str) -> str:
    """Return the refusals that the modules below some folders raise, each with texts of it, by code and reason."""
    found: dict[tuple[int, str], list[str]] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for code, reason, text in _refusals(ast.parse(path.read_bytes())):
                texts = found.setdefault((code, reason), [])
                if text and text not in texts:
                    texts.append(text)
    return table(
        ["Code", "Reason", "Message, for example"],
        (
            [code, f"`{reason}`", " · ".join(sorted(texts)[:MOST_TEXTS]) or "*what is full, missing or wrong*"]
            for (code, reason), texts in sorted(found.items())
        ),
    )


def _refusals(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        if ast.unparse(node.func).rpartition(".")[2] not in ("CallError", "Refusal", "refusal", "Problem"):
            continue
        code, reason = node.args[0], node.args[1]
        if isinstance(code, ast.Constant) and isinstance(code.value, int) and isinstance(reason, ast.Constant):
            yield code.value, str(reason.value), _message(node.args[2] if len(node.args) > 2 else None)


def _message(node: ast.expr | None) -> str:
    """Return a message as it is written, with `…` for what is put into it; nothing when it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _message(node.left) + _message(node.right)
    return ""
