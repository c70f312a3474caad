"""Text from elsewhere, made safe."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.cli.text import compact, human_bytes, human_seconds, human_time, line, lines, to_json

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@given(ANY_TEXT)
def test_no_text_acts_on_the_terminal(text: str) -> None:
    for safe in (line(text), lines(text).replace("\n", ""), compact(text), compact({text: [text]})):
        assert all(character.isprintable() or character in "\u200c\u200d" for character in safe)


@given(ANY_TEXT)
def test_json_is_ascii_and_reads_back(text: str) -> None:
    encoded = to_json({"text": text})
    assert encoded.isascii()
    assert encoded.isprintable()
    assert json.loads(encoded) == {"text": text}


def test_escape_sequences_and_reordering_marks_are_made_visible() -> None:
    assert line("a\x1b[31mb\u202ec\x9b1m") == "a�[31mb�c�1m"


def test_line_breaks_stay_only_where_they_are_wanted() -> None:
    assert line("a\nb\tc") == "a b c"
    assert lines("a\r\nb\rc\td") == "a\nb\nc    d"


def test_joined_emoji_stay_whole() -> None:
    assert line("👩‍💻 é 漢") == "👩‍💻 é 漢"


def test_long_text_is_cut_with_a_mark() -> None:
    assert line("x" * 100, 10) == "x" * 9 + "…"
    assert lines("x" * 100, 10) == "x" * 10 + "\n…"


def test_what_json_cannot_say_is_still_json() -> None:
    assert json.loads(to_json({"a": float("nan"), "b": b"\x00", 1: (1, 2)})) == {"a": None, "b": "AA==", "1": [1, 2]}


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_000_000, "3.0 MB"), ("x", "?"), (-1, "?")]
)
def test_sizes_are_shown_in_units(size: object, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0.4 s"), (59, "59 s"), (64, "1 min 4 s"), (7260, "2 h 1 min"), (None, "?")]
)
def test_durations_are_shown_in_units(seconds: object, text: str) -> None:
    assert human_seconds(seconds) == text


def test_a_time_is_shown_to_the_minute_and_what_is_none_is_not() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", human_time(1_800_000_000_000))
    assert [human_time(value) for value in (None, "x", True, -1, 1 << 63)] == [""] * 5
