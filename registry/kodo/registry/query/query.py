"""Filters in the syntax of pandas' `DataFrame.query`, read into a tree. Pure; nothing in them is ever evaluated.

`online and performance > 1.2 and "test" in tags and name.str.contains("trend")` is parsed with Python's `ast`, and
what this module does not know by name is refused with the place where it stands. Meaning is that of pandas 3 over a
frame of the rows: a null equals nothing and compares to nothing (`!=` and `not in` hold for it), text has case, and
`&`, `|` bind as `and`, `or` (https://pandas.pydata.org/docs/user_guide/indexing.html#the-query-method). Where pandas
raises there is an answer: a null taken as a truth value is false, `"x" in tags` asks for a tag. Where it would take
a regular expression, `contains` takes literal text.

`kodo.registry.query.sql` makes SQL of a tree, `kodo.registry.query.rows` holds it against rows.
"""

from __future__ import annotations

import ast
import io
import math
import tokenize
import unicodedata
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime

from kodo.p2p.errors import UsageError
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

__all__ = ["MAX_QUERY_CHARACTERS", "QueryError", "parse_query"]

MAX_QUERY_CHARACTERS = 4096
MAX_DEPTH = 32
MAX_ELEMENTS = 512
"""Elements of the syntax tree, and so the size of the SQL that is made of it."""
_MAX_NUMBER = 2**53 - 1
_REGEX_CHARACTERS = frozenset("\\^$*+?{}[]()|")


class QueryError(UsageError):
    """A query is not one.

    Attributes:
        at: the character where it goes wrong, from 0.
    """

    def __init__(self, message: str, at: int):
        super().__init__(f"character {at + 1}: {message}")
        self.at = at


_ARITHMETIC: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARE: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TRANSFORMS = frozenset({"lower", "upper", "strip"})
_TESTS = frozenset({"contains", "startswith", "endswith"})
_NULLS: Mapping[str, bool] = {"isnull": True, "isna": True, "notnull": False, "notna": False}


def parse_query(text: str, fields: Mapping[str, Kind]) -> Condition:
    """Read a query over rows that have `fields`.

    Raises:
        QueryError: it is not a query, names an unknown field, or exceeds a limit.
    """
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"a query has at most {MAX_QUERY_CHARACTERS} characters, this one {len(text)}", MAX_QUERY_CHARACTERS
        )
    for at, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise QueryError("a query is one line without control characters", at)
    if not text.strip():
        raise QueryError("the query is empty", 0)
    lead = len(text) - len(text.lstrip())
    source, places = _with_words(text[lead:])
    reader = _Reader(source, [lead + place for place in places], fields)
    return reader.condition(reader.tree(), 1)


def _with_words(text: str) -> tuple[str, list[int]]:
    """Spell `&` and `|` as `and` and `or`; give the place in `text` of each character too."""
    starts: dict[int, str] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.OP and token.string in "&|":
                starts[token.start[1]] = {"&": " and ", "|": " or "}[token.string]
    except (tokenize.TokenError, SyntaxError, IndentationError):
        pass  # the parser says better what is wrong
    pieces: list[str] = []
    places: list[int] = []
    for at, character in enumerate(text):
        piece = starts.get(at, character)
        pieces.append(piece)
        places.extend([at] * len(piece))
    return "".join(pieces), [*places, len(text)]


class _Reader:
    """Reads one syntax tree. Every method that gets a node gives what it stands for, or raises QueryError."""

    def __init__(self, source: str, places: list[int], fields: Mapping[str, Kind]):
        self._source = source
        self._places = places
        self._fields = fields
        self._elements = 0

    def tree(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self._source, mode="eval").body
        except SyntaxError as error:
            # Offset 0 is what Python gives for a text that ends too soon.
            at = self._place(error.offset - 1 if error.offset else len(self._source))
            raise QueryError(f"this is not a query ({error.msg})", at) from None
        except (RecursionError, MemoryError, ValueError):
            raise QueryError(f"the query is nested over {MAX_DEPTH} deep", 0) from None

    def condition(self, node: ast.expr, depth: int) -> Condition:
        """Read what is true or false."""
        self._enter(node, depth)
        if isinstance(node, ast.BoolOp):
            parts = tuple(self.condition(part, depth + 1) for part in node.values)
            return All(parts) if isinstance(node.op, ast.And) else Some(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
            return Not(self.condition(node.operand, depth + 1))
        if isinstance(node, ast.Compare):
            return self._comparisons(node, depth)
        if isinstance(node, ast.Call):
            called = self._call(node, depth)
            if isinstance(called, Condition):
                return called
            raise self._bad(node, f"this is {called.kind.value}; compare it with something")
        value = self._value(node, depth)
        if isinstance(value, Field) and value.kind is Kind.BOOL:
            return Truth(value)
        what = f"{value.name} is" if isinstance(value, Field) else "this is"
        raise self._bad(node, f"{what} {value.kind.value}, not a condition; compare it with something")

    def _comparisons(self, node: ast.Compare, depth: int) -> Condition:
        sides = [node.left, *node.comparators]
        parts = tuple(
            self._comparison(node, operator, left, right, depth)
            for operator, left, right in zip(node.ops, sides, sides[1:], strict=False)
        )
        return parts[0] if len(parts) == 1 else All(parts)

    def _comparison(
        self, node: ast.Compare, operator: ast.cmpop, left: ast.expr, right: ast.expr, depth: int
    ) -> Condition:
        listed = isinstance(right, (ast.List, ast.Tuple, ast.Set))
        if isinstance(operator, (ast.In, ast.NotIn)) or (listed and isinstance(operator, (ast.Eq, ast.NotEq))):
            within = self._within(left, right, depth)
            return Not(within) if isinstance(operator, (ast.NotIn, ast.NotEq)) else within
        sign = _COMPARE.get(type(operator))
        if sign is None:
            raise self._bad(node, "`is` is not allowed; use ==, .isnull() or .notnull()")
        one, other = self._alike(left, self._value(left, depth + 1), right, self._value(right, depth + 1))
        if isinstance(one, Literal) and isinstance(other, Literal):
            raise self._bad(left, "this compares two constants; one side has to be a field")
        if one.kind is Kind.TAGS:
            raise self._bad(left, 'write "word" in tags to search for a tag')
        if one.kind is Kind.BOOL and sign not in ("==", "!="):
            raise self._bad(left, f"true and false have no order; {sign} is not allowed here")
        return Compare(sign, one, other)

    def _within(self, left: ast.expr, right: ast.expr, depth: int) -> Condition:
        value = self._value(left, depth + 1)
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            if isinstance(value, Literal):
                raise self._bad(left, "`in` needs a field on its left")
            if value.kind is Kind.TAGS:
                raise self._bad(left, 'write "word" in tags to search for a tag')
            values: list[Literal] = []
            for item in right.elts:
                _, literal = self._alike(left, value, item, self._value(item, depth + 2))
                if not isinstance(literal, Literal):
                    raise self._bad(item, "a list holds constants only")
                values.append(literal)
            return OneOf(value, tuple(values))
        tags = self._value(right, depth + 1)
        if not isinstance(tags, Field) or tags.kind is not Kind.TAGS:
            raise self._bad(
                right, "`in` needs a list, or tags, on its right; to search in a text, use .str.contains(…)"
            )
        if value.kind is not Kind.TEXT:
            raise self._bad(left, f"tags are texts, this is {value.kind.value}")
        return Tagged(value, tags)

    def _alike(self, left: ast.expr, one: Value, right: ast.expr, other: Value) -> tuple[Value, Value]:
        """Check that two values can be compared; make a time of the text beside a time."""
        if one.kind is Kind.TIME and isinstance(other, Literal) and other.kind is Kind.TEXT:
            return one, self._time(right, str(other.value))
        if other.kind is Kind.TIME and isinstance(one, Literal) and one.kind is Kind.TEXT:
            return self._time(left, str(one.value)), other
        if _base(one.kind) is not _base(other.kind):
            raise self._bad(right, f"{one.kind.value} does not compare with {other.kind.value}")
        return one, other

    def _time(self, node: ast.expr, text: str) -> Literal:
        try:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self._bad(
                node, "a time compares with an ISO 8601 text, as 2026-11-22 or 2026-11-22T09:30Z"
            ) from None
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        return Literal(micros // 1000 if micros % 1000 == 0 else micros / 1000, Kind.TIME)

    def _value(self, node: ast.expr, depth: int) -> Value:
        """Read what is no condition."""
        self._enter(node, depth)
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._field(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            of = self._number(node.operand, depth)
            if isinstance(node.op, ast.UAdd):
                return of
            return (
                self._arithmetic(node, "*", Literal(-1, Kind.NUMBER), of) if isinstance(of, Literal) else Negative(of)
            )
        if isinstance(node, ast.BinOp):
            sign = _ARITHMETIC.get(type(node.op))
            if sign is None:
                raise self._bad(node, f"this operator is not allowed; numbers take {' '.join(_ARITHMETIC.values())}")
            return self._arithmetic(node, sign, self._number(node.left, depth), self._number(node.right, depth))
        if isinstance(node, ast.Call):
            called = self._call(node, depth)
            if isinstance(called, Value):
                return called
            raise self._bad(node, "this is a condition, not a value; join conditions with and, or, not")
        if isinstance(node, (ast.BoolOp, ast.Compare, ast.UnaryOp)):
            raise self._bad(node, "a condition cannot be compared; join conditions with and, or, not")
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            raise self._bad(node, "a list is allowed only after `in`")
        raise self._bad(node, f"{_name(node)} is not allowed in a query")

    def _arithmetic(self, node: ast.expr, sign: str, left: Value, right: Value) -> Value:
        if not isinstance(left, Literal) or not isinstance(right, Literal):
            return Arithmetic(sign, left, right)
        result = calculate(sign, float(left.value), float(right.value))
        if result is None or math.isinf(result):
            raise self._bad(node, "these constants make no finite number")
        if sign != "/" and isinstance(left.value, int) and isinstance(right.value, int) and result.is_integer():
            # Whole numbers have no negative zero, by which one can divide.
            return Literal(int(result), Kind.NUMBER)
        return Literal(result, Kind.NUMBER)

    def _number(self, node: ast.expr, depth: int) -> Value:
        value = self._value(node, depth + 1)
        if _base(value.kind) is not Kind.NUMBER:
            raise self._bad(node, f"arithmetic takes numbers, this is {value.kind.value}")
        return value

    def _constant(self, node: ast.Constant) -> Literal:
        value = node.value
        if isinstance(value, bool):
            return Literal(value, Kind.BOOL)
        if isinstance(value, (int, float)):
            # Whole numbers first: one of 400 digits is no float.
            if abs(value) > _MAX_NUMBER if isinstance(value, int) else not math.isfinite(value):
                raise self._bad(node, f"whole numbers go to {_MAX_NUMBER}, and other numbers must be finite")
            return Literal(value, Kind.NUMBER)
        if isinstance(value, str):
            if any(character == "\0" or unicodedata.category(character) == "Cs" for character in value):
                raise self._bad(node, "a text must not contain NUL or half of a surrogate pair")
            return Literal(value, Kind.TEXT)
        if value is None:
            raise self._bad(node, "None compares to nothing; use .isnull() or .notnull()")
        raise self._bad(node, f"a constant of {type(value).__name__} is not allowed")

    def _field(self, node: ast.Name | ast.Attribute) -> Field:
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
        else:
            raise self._bad(node, f"{node.attr[:64]!r} is not allowed here")
        kind = self._fields.get(name)
        if kind is None:
            hint = f"; write {name.capitalize()}" if name in ("true", "false") else ""
            known = ", ".join(self._fields)
            raise self._bad(node, f"there is no field {name[:64]!r}{hint or f'; the fields are {known}'}")
        return Field(name, kind)

    def _call(self, node: ast.Call, depth: int) -> Condition | Value:
        function = node.func
        if not isinstance(function, ast.Attribute):
            raise self._bad(node, "functions cannot be called; fields have .str methods and .isnull()")
        method = function.attr
        if method in _NULLS:
            self._arguments(node, 0)
            of = self._value(function.value, depth + 1)
            if isinstance(of, Literal) or of.kind is Kind.TAGS:
                raise self._bad(function.value, f".{method}() takes a field; tags are never null")
            return IsNull(of) if _NULLS[method] else Not(IsNull(of))
        accessor = function.value
        if not isinstance(accessor, ast.Attribute) or accessor.attr != "str":
            raise self._bad(node, f".{method[:64]}() is not allowed; there are .str methods and .isnull()")
        of = self._value(accessor.value, depth + 1)
        if of.kind is not Kind.TEXT or isinstance(of, Literal):
            raise self._bad(accessor.value, f".str takes a field that is text, this is {of.kind.value}")
        if method in _TRANSFORMS:
            self._arguments(node, 0)
            return Transform(method, of)
        if method == "len":
            self._arguments(node, 0)
            return Measure(of)
        if method in _TESTS:
            return TextTest(method, of, self._text(node, method))
        known = ", ".join(sorted([*_TESTS, *_TRANSFORMS, "len"]))
        raise self._bad(node, f".str.{method[:64]} is not allowed; there are {known}")

    def _text(self, node: ast.Call, method: str) -> str:
        literally = False
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg != "regex" or method != "contains" or value is not False:
                raise self._bad(keyword.value, f".str.{method} takes one text, and contains regex=False")
            literally = True
        self._arguments(node, 1, keywords=True)
        (argument,) = node.args
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise self._bad(argument, f".str.{method} takes one text in quotes")
        text = str(self._constant(argument).value)
        if method == "contains" and not literally and _REGEX_CHARACTERS & set(text):
            raise self._bad(
                argument,
                "regular expressions are not supported; add regex=False to search for this text as it stands",
            )
        return text

    def _arguments(self, node: ast.Call, count: int, *, keywords: bool = False) -> None:
        if len(node.args) != count or (node.keywords and not keywords):
            raise self._bad(node, f"this needs {count or 'no'} argument{'s' * (count == 0)}")

    def _enter(self, node: ast.expr, depth: int) -> None:
        self._elements += 1
        if depth > MAX_DEPTH:
            raise self._bad(node, f"the query is nested over {MAX_DEPTH} deep")
        if self._elements > MAX_ELEMENTS:
            raise self._bad(node, f"the query has over {MAX_ELEMENTS} elements")

    def _bad(self, node: ast.expr, message: str) -> QueryError:
        # `col_offset` counts bytes of UTF-8.
        before = self._source.encode()[: node.col_offset]
        return QueryError(message, self._place(len(before.decode(errors="ignore"))))

    def _place(self, at: int) -> int:
        return self._places[min(at, len(self._places) - 1)]


def _base(kind: Kind) -> Kind:
    return Kind.NUMBER if kind is Kind.TIME else kind


def _name(node: ast.expr) -> str:
    return {
        "Lambda": "a lambda",
        "Subscript": "an index in brackets",
        "IfExp": "if … else",
        "Dict": "a dictionary",
        "NamedExpr": ":=",
        "JoinedStr": "an f-string",
        "Starred": "*",
    }.get(type(node).__name__, f"a {type(node).__name__.lower()}")
