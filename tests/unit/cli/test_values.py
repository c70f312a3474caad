"""`name=value` as the schema reads it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kodo.cli.values import answer_words, name_files, parse_assignments, read_inputs_file
from kodo.client.inputs import read_word, to_inputs
from kodo.client.schemas import resolve
from kodo.flow import File
from kodo.p2p.errors import UsageError


class Inner(BaseModel):
    city: str
    zip: int | None = None


class Inputs(BaseModel):
    topic: str
    depth: int = 3
    ratio: float = 0.5
    fast: bool = False
    words: list[str] = []
    numbers: list[int] = []
    place: Inner | None = None
    either: int | str = 1
    maybe: str | None = None
    price: Decimal = Decimal(1)


SCHEMA = Inputs.model_json_schema()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("topic=3", "3"),
        ("topic=a=b", "a=b"),
        ("topic=", ""),
        ("depth=7", 7),
        ("depth=-7", -7),
        ("ratio=2.5", 2.5),
        ("ratio=1e3", 1000.0),
        ("fast=yes", True),
        ("fast=0", False),
        ("words=a, b,c", ["a", "b", "c"]),
        ('words=["a,b"]', ["a,b"]),
        ("words=", []),
        ("numbers=1,2", [1, 2]),
        ('place={"city": "Ulm"}', {"city": "Ulm"}),
        ("place=null", None),
        ("place.city=Ulm", {"city": "Ulm"}),
        ("either=5", 5),
        ("either=five", "five"),
        ("price=0.5", 0.5),
        ("price=7", 7),
        ("price=1e3", 1000.0),
        ("price=0.10000000000000000000001", "0.10000000000000000000001"),
        ("price=12345678901234567890.5", "12345678901234567890.5"),
        ("ratio=0.10000000000000000000001", 0.1),
        ("maybe=x", "x"),
        ("maybe=", ""),
    ],
)
def test_the_schema_says_what_a_word_means(word: str, value: Any) -> None:
    name = word.split("=")[0].split(".")[0]
    found = parse_assignments([word], SCHEMA)[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("depth=x", "whole number"),
        ("depth=1.5", "whole number"),
        ("ratio=nan", "a number"),
        ("fast=maybe", "yes or no"),
        ("numbers=1,x", "whole number"),
        ("words=[", "JSON list"),
        ("place=Ulm", "JSON object"),
        ("place.zip=x", "whole number"),
        ("topik=1", "did you mean topic"),
        ("place.town=x", "there are: city, zip"),
        ("nothing", "name=value"),
        ("=x", "name=value"),
    ],
)
def test_a_word_that_does_not_fit_is_refused_with_what_was_expected(word: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_assignments([word], SCHEMA)


def test_the_parts_of_an_inner_object_come_together() -> None:
    found = parse_assignments(["place.city=Ulm", "place.zip=89073", "topic=t"], SCHEMA)
    assert found == {"place": {"city": "Ulm", "zip": 89073}, "topic": "t"}


@pytest.mark.parametrize("words", [["topic=a", "topic=b"], ['place={"city": "Ulm"}', "place.city=Ulm"]])
def test_a_name_given_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_assignments(words, SCHEMA)


def test_enums_give_their_own_values() -> None:
    schema = {"enum": ["a", 2, True, None]}
    assert [read_word(text, schema, schema) for text in ("a", "2", "true", "null")] == ["a", 2, True, None]
    with pytest.raises(ValueError, match="one of a, 2, true, null"):
        read_word("b", schema, schema)


def test_without_a_schema_json_is_read_and_all_else_is_text() -> None:
    assert parse_assignments(["a=1", "b=x", 'c={"d": [1]}'], {}) == {"a": 1, "b": "x", "c": {"d": [1]}}


def test_a_file_gives_the_value(tmp_path: Path) -> None:
    (tmp_path / "topic.txt").write_text("bikes\n")
    assert parse_assignments([f"topic=@{tmp_path}/topic.txt"], SCHEMA) == {"topic": "bikes\n"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nope"):
        parse_assignments([f"topic=@{tmp_path}/nope"], SCHEMA)


@pytest.mark.parametrize("text", ['{"topic": "t", "depth": 2}', "topic: t\ndepth: 2\n"])
def test_inputs_come_from_json_or_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "inputs").write_text(text)
    assert to_inputs(read_inputs_file(str(tmp_path / "inputs")), SCHEMA) == {"topic": "t", "depth": 2}


@pytest.mark.parametrize("text", ["[1]", "{", "!!python/object:os.system {}"])
def test_inputs_that_are_no_map_of_names_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "inputs").write_text(text)
    with pytest.raises(UsageError):
        read_inputs_file(str(tmp_path / "inputs"))


def test_a_reference_that_leads_in_a_circle_ends() -> None:
    root = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    assert resolve(root, root) == {}


def test_alternatives_nested_without_end_are_refused() -> None:
    schema: dict[str, Any] = {}
    schema["anyOf"] = [{"$ref": "#"}] * 20
    with pytest.raises(ValueError, match="simpler"):
        read_word("x", schema, schema)


class Files(BaseModel):
    doc: File
    docs: list[File] = []
    maybe: File | None = None
    root: Path | None = None
    text: str = ""


UPLOAD = "upload-" + "0" * 26


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("doc=@no/such.pdf", Path("no/such.pdf")),
        ("doc=no/such.pdf", Path("no/such.pdf")),
        (f"doc={UPLOAD}", UPLOAD),
        ("docs=@a.pdf,@b.pdf", [Path("a.pdf"), Path("b.pdf")]),
        ("maybe=@a.pdf", Path("a.pdf")),
        ("root=@a.zip", Path("a.zip")),
        ("root=/on/the/node", "/on/the/node"),
    ],
)
def test_a_file_is_named_and_not_read(word: str, value: Any) -> None:
    assert parse_assignments([word], Files.model_json_schema()) == {word.partition("=")[0]: value}


def test_texts_of_an_inputs_file_are_files_where_the_form_wants_them() -> None:
    given = {"doc": "a.pdf", "docs": ["b.pdf", UPLOAD], "root": "/on/the/node", "text": "a.pdf"}
    named = {"doc": Path("a.pdf"), "docs": [Path("b.pdf"), UPLOAD]}
    assert name_files(given, Files.model_json_schema()) == {**given, **named}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "yes or no"),
        ({"enum": ["fast", "slow"]}, "fast or slow"),
        ({"type": "string"}, "VALUE"),
        ({"type": "object", "properties": {"topic": {}, "depth": {}}}, "topic=… depth=…"),
        ({"type": "object"}, "NAME=VALUE …"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {}}}}}, "a=…"),
        ({"type": "object", "properties": {"a; rm -rf ~": {}}}, "'a; rm -rf ~'=…"),
        ({"enum": ["$(id)"]}, "'$(id)'"),
        (None, "VALUE"),
    ],
)
def test_an_answer_is_described_by_its_schema(schema: Any, words: str) -> None:
    assert answer_words(schema) == words
