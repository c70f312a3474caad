import sqlite3

import pytest

from kodo.p2p.errors import UsageError
from kodo.registry.query.glob import fold, parse_glob


def fits(pattern, text):
    glob = parse_glob(pattern)
    connection = sqlite3.connect(":memory:")
    try:
        found = bool(connection.execute("SELECT ? GLOB ?", (fold(text), glob.sqlite)).fetchone()[0])
    finally:
        connection.close()
    assert not found or all(literal in fold(text) for literal in glob.literals)
    return found


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("trend", "a trend scout", True),
        ("trend", "tren d", False),
        ("TREND", "a trend scout", True),
        ("trend*", "a trend scout", False),
        ("trend*", "Trend scout", True),
        ("*scout", "Trend scout", True),
        ("t*s?out", "Trend scout", True),
        ("t?end", "trend scout", False),
        ("[tb]rend*", "brend", True),
        ("[!tb]rend*", "brend", False),
        ("[!tb]rend*", "crend", True),
        ("[a-c]x", "bx", True),
        ("[a-c]x", "dx", False),
        ("[]-a]x*", "]x", True),
        ("[]-a]x*", "^x", True),
        ("[^a]x", "^x", True),
        ("[^a]x", "bx", False),
        ("[a^]x", "^x", True),
        ("[^]x", "^x", True),
        ("[-a]x", "-x", True),
        ("[a-]x", "-x", True),
        ("[^-a]x", "_x", True),
        ("[z-a]x", "zx", False),
        ("[!z-a]x", "zx", True),
        ("[[]x]", "[x]", True),
        ("a[b", "xa[bx", True),
        ("100%", "over 100% sure", True),
        ("a_b", "axb", False),
        ('"quoted"', 'so "quoted" here', True),
        ("back\\slash", "a back\\slash", True),
        ("GRÖSSE", "Größe", True),
        ("größe", "GRÖSSE", True),
        ("ΟΔΟΣ", "οδος", True),
        ("cafe\u0301", "CAFÉ", True),
        ("cafe", "café", False),
        ("市場", "市場調査", True),
        ("**a**", "a", True),
        ("?", "é", True),
    ],
)
def test_a_pattern_fits(pattern, text, expected):
    assert fits(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["a" * 513, "a\nb", "a\0", "\ud800", "?" * 17])
def test_a_pattern_over_a_bound_is_refused(pattern):
    with pytest.raises(UsageError):
        parse_glob(pattern)


def test_literals_are_what_every_fit_contains():
    assert parse_glob("Foo*bar?baz[x]q").literals == ("foo", "bar", "baz", "q")
