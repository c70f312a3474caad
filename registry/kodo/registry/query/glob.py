"""Search patterns: what a person types, made into one case-blind glob. Pure.

`*` is any run of characters, `?` any one, `[a-c]` one of a set, `[!a-c]` one outside it. A pattern without any of
these finds the texts that contain it; one with them has to fit a whole text. Case is ignored by Unicode's rules
(`str.casefold`), and composed and decomposed characters are the same (NFC).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from kodo.p2p.errors import UsageError

__all__ = ["MAX_SEARCH_CHARACTERS", "Glob", "fold", "parse_glob"]

MAX_SEARCH_CHARACTERS = 512
MAX_WILDCARDS = 16


def fold(text: str) -> str:
    """Return the form in which texts are compared."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@dataclass(frozen=True, slots=True)
class Glob:
    """A parsed pattern.

    Attributes:
        sqlite: the pattern for SQLite's `GLOB`, to be held against folded texts.
        literals: folded texts that everything it fits contains.
    """

    sqlite: str
    literals: tuple[str, ...]


def parse_glob(text: str) -> Glob:
    """Parse what a person typed.

    Raises:
        UsageError: too long, too many wildcards, or with control characters.
    """
    if len(text) > MAX_SEARCH_CHARACTERS:
        raise UsageError(f"a search has at most {MAX_SEARCH_CHARACTERS} characters, this one {len(text)}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UsageError("a search has no control characters")
    pieces: list[str] = []
    literals: list[str] = []
    run: list[str] = []
    wildcards = 0
    for token, literal in _tokens(fold(text)):
        if literal:
            run.append(token)
            pieces.append(f"[{token}]" if token in "*?[" else token)
            continue
        if token == "*" and pieces and pieces[-1] == "*":
            continue
        wildcards += 1
        pieces.append(token)
        literals.append("".join(run))
        run.clear()
    literals.append("".join(run))
    if wildcards > MAX_WILDCARDS:
        raise UsageError(f"a search has at most {MAX_WILDCARDS} wildcards, this one {wildcards}")
    pattern = "".join(pieces)
    return Glob(pattern if wildcards else f"*{pattern}*", tuple(literal for literal in literals if literal))


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Yield SQLite's spelling of each element, and whether it is one literal character."""
    at = 0
    while at < len(text):
        character = text[at]
        if character == "[":
            first = at + 2 if text[at + 1 : at + 2] == "!" else at + 1
            # As in fnmatch: a bracket that comes first belongs to the set, a set without its end is no set.
            end = text.find("]", first + 1)
            if end > 0:
                yield _set(text[first:end], negated=first == at + 2), False
                at = end + 1
                continue
        yield character, character not in "*?"
        at += 1


def _set(body: str, *, negated: bool) -> str:
    singles: set[str] = set()
    ranges: list[str] = []
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            _add_range(body[at], body[at + 2], singles, ranges)
            at += 3
        else:
            singles.add(body[at])
            at += 1
    # SQLite has no escapes: `]` must stand first, `-` last, `^` anywhere but first.
    inner = "]" if "]" in singles else ""
    inner += "".join(sorted(singles - set("]-^")))
    inner += "".join(ranges)
    tail = ("^" if "^" in singles else "") + ("-" if "-" in singles else "")
    if negated:
        return f"[^{inner}{tail}]" if inner or tail else "?"
    if inner:
        return f"[{inner}{tail}]"
    return {"": "[\x01]", "^": "[\x01^]", "-": "[-]", "^-": "[-^]"}[tail]


def _add_range(low: str, high: str, singles: set[str], ranges: list[str]) -> None:
    """Note the range, its ends moved off the characters that mean something to SQLite."""
    if low > high:
        return
    if high == "]":
        singles.add("]")
        high = "\\"
    while low in "]-^" and low <= high:
        singles.add(low)
        low = chr(ord(low) + 1)
    if low <= high:
        ranges.append(f"{low}-{high}")
