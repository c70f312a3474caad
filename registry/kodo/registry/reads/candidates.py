"""Where to look for the flows that fit: what a search and a query say that an index knows. Pure.

The index holds trigrams of folded texts (https://sqlite.org/fts5.html#the_trigram_tokenizer). What it gives are
candidates, which the condition itself then judges; it may give too many and must never give too few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kodo.registry.query.glob import Glob, fold
from kodo.registry.query.tree import (
    All,
    Compare,
    Condition,
    Field,
    IsNull,
    Kind,
    Literal,
    Not,
    OneOf,
    Some,
    Tagged,
    TextTest,
    Transform,
    Truth,
    Value,
)

__all__ = [
    "GIVEN",
    "INDEXED",
    "INDEXED_CHARACTERS",
    "Candidates",
    "contained",
    "equal_keys",
    "fits_sql",
    "is_of_node",
    "is_short",
    "query_match",
    "search_match",
]

INDEXED_CHARACTERS = 3
"""Shortest text that the trigram index finds."""

_IN_INDEX = {
    "name": "k_name",
    "description": "k_description",
    "author": "k_author",
    "organization": "k_organization",
    "node": "k_node",
}
_KEYS = {"name": "f.k_name", "author": "f.k_author", "organization": "f.k_organization", "node": "n.k_name"}
_OF_NODE = frozenset({"node", "peer_id", "online", "state", "availability", "performance"})
_MAX_WORDS = 16
_TAG_ENDS = 5
"""Characters of a tag from which on only its ends are looked up."""

_DESCRIPTION = "coalesce(f.k_description, lower(f.description))"
_TAGS = "coalesce(f.k_tags, lower(f.tags))"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows that may be flows of a page.

    Attributes:
        table: where they stand, with its short name.
        number: the column that is the flow's `id`.
    """

    table: str
    number: str

    def joined(self, looked_into: Sequence[str]) -> str:
        """Spell them with what conditions and sort keys look into: the flows `f`, and their nodes `n`."""
        if not looked_into:
            return self.table
        nodes = " CROSS JOIN nodes n ON n.id = f.node_id" if any("n." in each for each in looked_into) else ""
        return f"{self.table} CROSS JOIN flows f ON f.id = {self.number}{nodes}"


INDEXED = Candidates("flow_text t", "t.rowid")
"""What the index of texts finds."""

GIVEN = Candidates("json_each(:ids) j", "j.value")
"""What a JSON array of ids names."""


def contained(glob: Glob) -> str | None:
    """Return the text that `glob` looks for anywhere in a text; None when it asks for more than that."""
    if len(glob.literals) != 1:
        return None
    (literal,) = glob.literals
    spelled = "".join(f"[{character}]" if character in "*?[" else character for character in literal)
    return literal if glob.sqlite == f"*{spelled}*" else None


def fits_sql(glob: Glob, parameters: dict[str, Any]) -> str:
    """Return the condition that flow `f` of node `n` fits `glob`; fill in its parameters."""
    texts = ("n.k_name", "f.k_name", "f.k_author", "f.k_organization", _DESCRIPTION)
    literal = contained(glob)
    if literal is None:
        parameters["glob"] = glob.sqlite
        fits = [f"{text} GLOB :glob" for text in texts]
        fits.append(f"EXISTS (SELECT 1 FROM json_each({_TAGS}) WHERE value GLOB :glob)")
        return f"({' OR '.join(fits)})"
    parameters["literal"] = literal
    fits = [f"instr({text}, :literal) > 0" for text in texts]
    if re.search(r'["\\\[\],]', literal):
        fits.append(f"EXISTS (SELECT 1 FROM json_each({_TAGS}) WHERE instr(value, :literal) > 0)")
    else:
        # No tag is parsed: outside of them JSON has only these characters.
        fits.append(f"instr({_TAGS}, :literal) > 0")
    return f"({' OR '.join(fits)})"


def search_match(glob: Glob) -> tuple[str | None, bool]:
    """Return what the index is asked for the candidates of `glob`, and whether these need no other judge."""
    words = [piece for literal in glob.literals for piece in _pieces(literal)]
    if not words:
        return None, False
    literal = contained(glob)
    exact = literal is not None and words == [literal]
    return " AND ".join(map(_quoted, words[:_MAX_WORDS])), exact


def is_short(literal: str) -> bool:
    """Return whether `literal` is a text that only the beginnings of trigrams tell of."""
    return 0 < len(literal) < INDEXED_CHARACTERS and not set(literal) & set('"\\')


def query_match(condition: Condition) -> str | None:
    """Return what the index is asked for the candidates of `condition`; None when it knows nothing of it."""
    terms = [term for part in _conjuncts(condition) if (term := _term(part)) is not None]
    return " AND ".join(terms[:_MAX_WORDS]) if terms else None


def equal_keys(condition: Condition, parameters: dict[str, Any]) -> list[str]:
    """Return conditions that follow from `condition` and that an ordinary index answers; fill in their parameters."""
    found: list[str] = []
    for part in _conjuncts(condition):
        match part:
            case Compare("==", Field(name), Literal(text)) | Compare("==", Literal(text), Field(name)):
                values = [text]
            case OneOf(Field(name), literals):
                values = [literal.value for literal in literals]
            case _:
                continue
        if name in _KEYS:
            marks = []
            for value in values:
                mark = f"key{len(parameters)}"
                parameters[mark] = fold(str(value))
                marks.append(f":{mark}")
            found.append(f"{_KEYS[name]} IN ({', '.join(marks)})")
        elif name == "path":
            found.append("")  # the condition itself is what that index answers
    return found


def is_of_node(condition: Condition) -> bool:
    """Return whether `condition` is about nodes alone."""
    return all(name in _OF_NODE or name.startswith("ping.") for name in _fields(condition))


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, All):
        for part in condition.parts:
            yield from _conjuncts(part)
    else:
        yield condition


def _term(condition: Condition) -> str | None:
    match condition:
        case Tagged(Literal(text), _):
            folded = fold(str(text))
            if not folded or set(folded) & set('"\\'):
                return _all_of("k_tags", _pieces(folded))
            # With its quotes, which few trigrams have; of a long one the ends, for each trigram costs time.
            ends = [f'"{folded[:3]}', f'{folded[-3:]}"'] if len(folded) > _TAG_ENDS else [f'"{folded}"']
            return _all_of("k_tags", ends)
        case TextTest(_, value, text):
            return _all_of(_column(value), _safe_pieces(text))
        case Compare("==", value, Literal(text, Kind.TEXT)) | Compare("==", Literal(text, Kind.TEXT), value):
            return _all_of(_column(value), _safe_pieces(str(text)))
        case OneOf(value, literals) if 0 < len(literals) <= _MAX_WORDS and literals[0].kind is Kind.TEXT:
            terms = [_all_of(_column(value), _safe_pieces(str(literal.value))) for literal in literals]
            known = [term for term in terms if term is not None]
            return f"({' OR '.join(known)})" if len(known) == len(terms) else None
        case Some(parts):
            terms = [query_match(part) for part in parts]
            known = [term for term in terms if term is not None]
            return f"({' OR '.join(known)})" if len(known) == len(terms) <= _MAX_WORDS else None
        case _:
            return None


def _column(value: Value) -> str | None:
    # Not of .upper(): folding undoes .lower(), but the dotless i becomes an I that it would not find.
    while isinstance(value, Transform) and value.method in ("lower", "strip"):
        value = value.of
    return _IN_INDEX.get(value.name) if isinstance(value, Field) else None


def _all_of(column: str | None, words: list[str]) -> str | None:
    if column is None or not words:
        return None
    return f"({column} : ({' AND '.join(map(_quoted, words[:_MAX_WORDS]))}))"


def _pieces(literal: str) -> list[str]:
    # Tags are indexed as JSON, which spells these two otherwise; what is left still has to be there.
    return [piece for piece in re.split(r'["\\]', literal) if len(piece) >= INDEXED_CHARACTERS]


def _safe_pieces(text: str) -> list[str]:
    # Of ASCII alone, and without the last character: what follows it in the text may combine with it (NFC).
    runs = re.findall(r"[\x20-\x7e]+", text)
    return [run[:-1].lower() for run in runs if len(run) > INDEXED_CHARACTERS]


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _fields(part: Condition | Value) -> Iterator[str]:
    match part:
        case Field(name):
            yield name
        case All(parts) | Some(parts):
            for inner in parts:
                yield from _fields(inner)
        case Compare(_, left, right):
            yield from _fields(left)
            yield from _fields(right)
        case Tagged(text, tags):
            yield from _fields(text)
            yield tags.name
        case Literal():
            return
        case Not(of) | Truth(of) | IsNull(of) | OneOf(of, _):
            yield from _fields(of)
        case _:
            for side in ("of", "left", "right"):
                if hasattr(part, side):
                    yield from _fields(getattr(part, side))
