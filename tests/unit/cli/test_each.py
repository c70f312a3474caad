"""The rows of a file as inputs: by the flow's form, and with the line that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kodo.cli.each import read_rows
from kodo.p2p.errors import UsageError

FORM = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "words": {"type": "array", "items": {"type": "string"}},
        "place": {"type": "object", "properties": {"city": {"type": "string"}}},
        "doc": {"type": "string", "format": "file"},
    },
    "required": ["n"],
}


def rows_of(tmp_path: Path, name: str, text: str, **common: Any) -> list[dict[str, Any]]:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return read_rows(str(file), FORM, common)


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.csv", 'n,words\n1,"a,b"\n2,\n', [{"n": 1, "words": ["a", "b"]}, {"n": 2}]),
        ("a.CSV", "\ufeffn , place.city\r\n1,Ulm\r\n\r\n2,\r\n", [{"n": 1, "place": {"city": "Ulm"}}, {"n": 2}]),
        ("a.csv", 'n,place.city\n1,"two\nlines"\n', [{"n": 1, "place": {"city": "two\nlines"}}]),
        ("a.csv", "n,doc\n1,@x.pdf\n", [{"n": 1, "doc": Path("x.pdf")}]),
        ("a.jsonl", '{"n": 1}\n\n{"n": 2, "words": ["a"]}\n', [{"n": 1}, {"n": 2, "words": ["a"]}]),
        ("a.ndjson", '{"n": "as it is"}', [{"n": "as it is"}]),
    ],
)
def test_rows_are_read_by_the_form(tmp_path: Path, name: str, text: str, rows: list[dict[str, Any]]) -> None:
    assert rows_of(tmp_path, name, text) == rows


def test_a_row_wins_over_what_is_said_for_all(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.jsonl", '{"n": 1}\n{"words": ["b"]}', n=5, words=["a"]) == [
        {"n": 1, "words": ["a"]},
        {"n": 5, "words": ["b"]},
    ]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "n\none\n", "line 2: n should be a whole number"),
        ("a.csv", "n,m\n1,2\n", "line 2: .*'m'"),
        ("a.csv", "n,words\n1\n", "line 2: it has 1 cells, and the header 2"),
        ("a.csv", "n,\n1,2\n", "line 1: the header has an empty name"),
        ("a.csv", 'n\n"1\n', "this is not CSV"),
        ("a.csv", "n\n", "has no rows"),
        ("a.csv", "words\na\n", "line 2: n is missing"),
        ("a.csv", "n,n\n1,2\n", "line 2: n is given twice"),
        ("a.jsonl", '{"n": 1}\n{"n": ', "line 2: this is not JSON"),
        ("a.jsonl", "[1]", "line 1: a row is an object"),
        ("a.jsonl", "[" * 100_000, "line 1: "),
        ("a.jsonl", "", "has no rows"),
        ("a.txt", "n", "takes a .csv or .jsonl"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        rows_of(tmp_path, name, text)
