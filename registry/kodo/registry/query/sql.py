"""A query's tree as SQL with parameters: a text of the caller's never gets into a statement.

SQL has three truth values where pandas has two. `WHERE`, `AND` and `OR` take NULL as false, so that only what turns a
truth around (`not`, `!=`) has to make two of them: `IS NOT TRUE`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping

from kodo.registry.query.tree import (
    All,
    Arithmetic,
    Compare,
    Condition,
    Field,
    IsNull,
    Kind,
    Literal,
    Measure,
    Negative,
    Not,
    OneOf,
    Some,
    Tagged,
    TextTest,
    Transform,
    Truth,
    Value,
    calculate,
)

__all__ = ["compile_query", "register_functions"]

_FUNCTIONS = {"/": "kodo_divide", "//": "kodo_floor_divide", "%": "kodo_modulo", "**": "kodo_power"}
_PLAIN = r"[A-Za-z0-9 ._-]+"
_SIGNS = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def register_functions(connection: sqlite3.Connection) -> None:
    """Register on `connection` the functions that compiled queries call; Python's own, for Unicode and for signs."""
    for sign, name in _FUNCTIONS.items():

        def reckon(left: float | None, right: float | None, sign: str = sign) -> float | None:
            return calculate(sign, left, right)

        connection.create_function(name, 2, reckon, deterministic=True)
    for method in ("lower", "upper", "strip"):

        def transform(text: str | None, method: str = method) -> str | None:
            return None if text is None else str(getattr(text, method)())

        connection.create_function(f"kodo_{method}", 1, transform, deterministic=True)


def compile_query(
    condition: Condition, columns: Mapping[str, str], parameters: dict[str, str | int | float | None]
) -> str:
    """Return the SQL expression that is true where `condition` holds; add what it needs to `parameters`.

    Args:
        condition: what `parse_query` gave.
        columns: the SQL expression of each field; of tags a JSON array.
        parameters: those of the statement, by name; names that begin with `q` are this function's.
    """
    return _Compiler(columns, parameters).condition(condition)


class _Compiler:
    def __init__(self, columns: Mapping[str, str], parameters: dict[str, str | int | float | None]):
        self._columns = columns
        self._parameters = parameters

    def condition(self, condition: Condition) -> str:
        match condition:
            case All(parts):
                return "(" + " AND ".join(map(self.condition, parts)) + ")"
            case Some(parts):
                return "(" + " OR ".join(map(self.condition, parts)) + ")"
            case Not(of):
                return f"({self.condition(of)} IS NOT TRUE)"
            case Truth(of):
                return f"({self.value(of)} = 1)"
            case IsNull(value):
                return f"({self.value(value)} IS NULL)"
            case Compare("!=", left, right):
                return f"(({self.value(left)} = {self.value(right)}) IS NOT TRUE)"
            case Compare(sign, left, right):
                return f"({self.value(left)} {_SIGNS[sign]} {self.value(right)})"
            case OneOf(value, literals):
                return f"({self.value(value)} IN ({', '.join(map(self.value, literals))}))"
            case Tagged(Literal(text), tags) if re.fullmatch(_PLAIN, str(text)):
                # No tag is parsed: a quote that begins one comes after one of these, a quote within one after `\\`.
                begins = (self._parameter(f'{mark}"{text}"') for mark in "[, ")
                return f"({' OR '.join(f'instr({self._columns[tags.name]}, {mark}) > 0' for mark in begins)})"
            case Tagged(text, tags):
                listed = f"SELECT value FROM json_each({self._columns[tags.name]})"
                return f"({self.value(text)} IN ({listed}))"
            case TextTest(method, value, text):
                return self._test(method, self.value(value), text)

    def value(self, value: Value) -> str:
        match value:
            case Literal(constant, kind):
                return self._parameter(int(constant) if kind is Kind.BOOL else constant)
            case Field(name):
                return self._columns[name]
            case Transform(method, of):
                return f"kodo_{method}({self.value(of)})"
            case Measure(of):
                return f"length({self.value(of)})"
            case Negative(of):
                # SQLite's own minus takes from zero, and so has no negative zero, by which one can divide.
                return f"(-1.0 * CAST({self.value(of)} AS REAL))"
            case Arithmetic(sign, left, right):
                # As floats: whole numbers would be divided, and overflow, in another way.
                one, other = (f"CAST({self.value(side)} AS REAL)" for side in (left, right))
                if sign in _FUNCTIONS:
                    return f"{_FUNCTIONS[sign]}({one}, {other})"
                return f"({one} {sign} {other})"

    def _test(self, method: str, value: str, text: str) -> str:
        if not text:
            return f"({value} IS NOT NULL)"
        given = self._parameter(text)
        if method == "contains":
            return f"(instr({value}, {given}) > 0)"
        start = f"1, {len(text)}" if method == "startswith" else f"-{len(text)}"
        return f"(substr({value}, {start}) = {given})"

    def _parameter(self, value: str | int | float) -> str:
        name = f"q{len(self._parameters)}"
        self._parameters[name] = value
        return f":{name}"
