import fnmatch
import re
import sqlite3

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kodo.p2p.errors import UsageError
from kodo.registry.query.glob import fold, parse_glob

LETTERS = "ab]^-[!*?\\"


@pytest.fixture(scope="module")
def sqlite():
    connection = sqlite3.connect(":memory:")
    yield lambda text, pattern: bool(connection.execute("SELECT ? GLOB ?", (text, pattern)).fetchone()[0])
    connection.close()


@given(pattern=st.text(LETTERS, max_size=8), text=st.text(LETTERS, max_size=6))
def test_a_glob_fits_as_fnmatch_does(sqlite, pattern, text):
    try:
        glob = parse_glob(pattern)
    except UsageError:
        assume(False)
    # fnmatch has no "contains": a pattern that is all literal is put between stars.
    literal = re.escape(pattern) in fnmatch.translate(pattern)
    whole = f"*{_escaped(pattern)}*" if literal else pattern
    expected = fnmatch.fnmatchcase(text, whole)
    assert sqlite(text, glob.sqlite) is expected
    if expected:
        assert all(literal in text for literal in glob.literals)


def _escaped(pattern):
    return "".join(f"[{character}]" if character in "*?[" else character for character in pattern)


@given(st.text(max_size=20))
def test_folding_is_stable(text):
    assert fold(fold(text)) == fold(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
def test_every_text_is_found_by_itself(sqlite, text):
    assume(not set(text) & set("*?["))
    assert sqlite(fold(f"before {text} after"), parse_glob(text).sqlite) or fold(text) not in fold(
        f"before {text} after"
    )
