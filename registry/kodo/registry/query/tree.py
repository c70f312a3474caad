"""The tree of a query: fields, values, conditions, and how its numbers are reckoned. Pure data.

`kodo.registry.query.query` reads texts into it, `query_sql` makes SQL of it, `query_rows` holds it against rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

__all__ = [
    "FLOW_FIELDS",
    "NODE_FIELDS",
    "All",
    "Arithmetic",
    "Compare",
    "Condition",
    "Field",
    "IsNull",
    "Kind",
    "Literal",
    "Measure",
    "Negative",
    "Not",
    "OneOf",
    "Some",
    "Tagged",
    "TextTest",
    "Transform",
    "Truth",
    "Value",
    "calculate",
]


class Kind(Enum):
    """What a value is. A time is a number too, ms UTC, and compares with ISO 8601 texts."""

    TEXT = "text"
    NUMBER = "a number"
    TIME = "a time"
    BOOL = "true or false"
    TAGS = "tags"


NODE_FIELDS: Mapping[str, Kind] = {
    "name": Kind.TEXT,
    "peer_id": Kind.TEXT,
    "online": Kind.BOOL,
    "state": Kind.TEXT,
    "tags": Kind.TAGS,
    "availability": Kind.NUMBER,
    "performance": Kind.NUMBER,
    "ping.cpu": Kind.NUMBER,
    "ping.memory": Kind.NUMBER,
    "ping.disk": Kind.NUMBER,
    "ping.runners_free": Kind.NUMBER,
    "ping.runners_busy": Kind.NUMBER,
    "ping.queued": Kind.NUMBER,
    "ping.round_trip_ms": Kind.NUMBER,
    "flows": Kind.NUMBER,
    "seq": Kind.NUMBER,
    "issued_at": Kind.TIME,
    "expires_at": Kind.TIME,
    "seen_at": Kind.TIME,
}
"""The fields of a node row that a query may name."""

_SHARED = ("peer_id", "online", "state", "availability", "performance")

FLOW_FIELDS: Mapping[str, Kind] = {
    "path": Kind.TEXT,
    "name": Kind.TEXT,
    "source": Kind.TEXT,
    "description": Kind.TEXT,
    "author": Kind.TEXT,
    "organization": Kind.TEXT,
    "published": Kind.TIME,
    "release": Kind.TEXT,
    "tags": Kind.TAGS,
    "inputs_schema_sha256": Kind.TEXT,
    "requests_per_hour": Kind.NUMBER,
    "completions_per_hour": Kind.NUMBER,
    "node": Kind.TEXT,
    **{name: kind for name, kind in NODE_FIELDS.items() if name in _SHARED or name.startswith("ping.")},
}
"""The fields of a flow row that a query may name."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the row."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; of a time it is the ms UTC."""

    value: str | int | float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left operator right` over numbers; the operators are those of Python: `+ - * / // % **`."""

    operator: str
    left: Value
    right: Value
    kind: Kind = Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Negative:
    """`-of`."""

    of: Value
    kind: Kind = Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Transform:
    """`.str.lower()`, `.str.upper()`, `.str.strip()`."""

    method: str
    of: Value
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Measure:
    """`.str.len()`, in characters."""

    of: Value
    kind: Kind = Kind.NUMBER


Value: TypeAlias = Field | Literal | Arithmetic | Negative | Transform | Measure


@dataclass(frozen=True, slots=True)
class Truth:
    """A field that is itself true or false."""

    of: Field


@dataclass(frozen=True, slots=True)
class Compare:
    """`left operator right`: `== != < <= > >=`."""

    operator: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """`of in [...]`; `values` may be empty."""

    of: Value
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Tagged:
    """`text in tags`."""

    text: Value
    tags: Field


@dataclass(frozen=True, slots=True)
class TextTest:
    """`.str.contains(text)`, `.str.startswith(text)`, `.str.endswith(text)`."""

    method: str
    of: Value
    text: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """`.isnull()`."""

    of: Value


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: Condition


@dataclass(frozen=True, slots=True)
class All:
    """`and`."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """`or`."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Truth | Compare | OneOf | Tagged | TextTest | IsNull | Not | All | Some


def calculate(sign: str, left: float | None, right: float | None) -> float | None:
    """Return `left sign right` over floats as pandas has it: by zero infinite, what is no number null."""
    if left is None or right is None:
        return None
    left, right = float(left), float(right)
    try:
        result = _divide(sign, left, right) if sign in ("/", "//", "%") else _reckon(sign, left, right)
    except OverflowError:
        # Only a power overflows by exception; odd powers keep the sign.
        return -math.inf if left < 0 and right % 2 == 1 else math.inf
    return None if math.isnan(result) else result


def _reckon(sign: str, left: float, right: float) -> float:
    if sign == "**":
        if left == 0 and right < 0:
            return math.inf
        power: float | complex = left**right
        return math.nan if isinstance(power, complex) else power
    return left + right if sign == "+" else left - right if sign == "-" else left * right


def _divide(sign: str, left: float, right: float) -> float:
    if right == 0:
        if sign == "%" or left == 0:
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1.0, right)
    if math.isinf(left) and sign != "/":
        return math.nan
    return left / right if sign == "/" else left // right if sign == "//" else left % right
