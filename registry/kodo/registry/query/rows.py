"""A query's tree held against rows in memory. Pure; the meaning is that of `kodo.registry.query.sql`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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

__all__ = ["fits"]

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda of, text: text in of,
    "startswith": str.startswith,
    "endswith": str.endswith,
}


def fits(condition: Condition, row: Mapping[str, Any]) -> bool:
    """Return whether `condition` holds for `row`; a field that the row lacks is null.

    `ping.cpu` is the field `cpu` of the row's map `ping`.
    """
    match condition:
        case All(parts):
            return all(fits(part, row) for part in parts)
        case Some(parts):
            return any(fits(part, row) for part in parts)
        case Not(of):
            return not fits(of, row)
        case Truth(of):
            return _value(of, row) is True
        case IsNull(value):
            return _value(value, row) is None
        case Compare(sign, left, right):
            return _compare(sign, _value(left, row), _value(right, row))
        case OneOf(value, literals):
            found = _value(value, row)
            return found is not None and found in [literal.value for literal in literals]
        case Tagged(text, tags):
            return _value(text, row) in _tags(row.get(tags.name))
        case TextTest(method, value, text):
            found = _value(value, row)
            return found is not None and _TESTS[method](found, text)


def _compare(sign: str, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return sign == "!="
    return left != right if sign == "!=" else _COMPARE[sign](left, right)


def _value(value: Value, row: Mapping[str, Any]) -> Any:
    match value:
        case Literal(constant):
            return constant
        case Field(name, kind):
            outer, _, inner = name.partition(".")
            found = row.get(outer)
            if inner:
                found = found.get(inner) if isinstance(found, Mapping) else None
            return found if _is(found, kind) else None
        case Transform(method, of):
            text = _value(of, row)
            return None if text is None else getattr(text, method)()
        case Measure(of):
            text = _value(of, row)
            return None if text is None else len(text)
        case Negative(of):
            number = _value(of, row)
            return None if number is None else -float(number)
        case Arithmetic(sign, left, right):
            return calculate(sign, _value(left, row), _value(right, row))


def _is(value: Any, kind: Kind) -> bool:
    # Rows come from peers too.
    if isinstance(value, bool):
        return kind is Kind.BOOL
    return isinstance(value, str) if kind is Kind.TEXT else isinstance(value, (int, float)) and kind is not Kind.BOOL


def _tags(tags: Any) -> Iterable[Any]:
    return tags if isinstance(tags, (list, tuple, frozenset, set)) else ()
