"""Inputs mean the same, however they are spelled: as words, in YAML, in JSON, in Python."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr, TypeAdapter

from kodo.cli.values import name_files, parse_assignments
from kodo.client.inputs import Unread, is_data, read_document, to_data, to_inputs
from kodo.client.matching import named
from kodo.flow import File
from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import UsageError


def form(hint: Any) -> dict[str, Any]:
    """Return the form of a flow with one input `x` of this type."""
    schema = TypeAdapter(hint).json_schema()
    return {"type": "object", "properties": {"x": schema}, "$defs": schema.pop("$defs", {})}


def word(text: str, schema: Mapping[str, Any]) -> Any:
    return parse_assignments([f"x={text}"], schema)["x"]


def yaml(text: str, schema: Mapping[str, Any]) -> Any:
    return to_inputs(read_document(f"x: {text}"), schema)["x"]


def json(text: str, schema: Mapping[str, Any]) -> Any:
    return to_inputs(read_document(f'{{"x": {text}}}'), schema)["x"]


def python(value: Any, schema: Mapping[str, Any]) -> Any:
    return to_inputs({"x": value}, schema)["x"]


DAY, NOON = date(2026, 1, 31), time(12, 30)
ID = UUID("12345678-1234-4234-8234-123456789012")


@pytest.mark.parametrize(
    ("hint", "plain", "quoted", "value", "meant"),
    [
        (str, "2026-01-31", '"2026-01-31"', "2026-01-31", "2026-01-31"),
        (str, "12:30:00", '"12:30:00"', "12:30:00", "12:30:00"),
        (str, "NO", '"NO"', "NO", "NO"),
        (str, "01234", '"01234"', "01234", "01234"),
        (str, "1.10", '"1.10"', "1.10", "1.10"),
        (str, "null", '"null"', "null", "null"),
        (str, "1e3", '"1e3"', "1e3", "1e3"),
        (bool, "NO", "false", False, False),
        (bool, "y", "true", True, True),
        (int, "007", "7", 7, 7),
        (int, "-9223372036854775808", "-9223372036854775808", -(2**63), -(2**63)),
        (int, "18446744073709551615", "18446744073709551615", 2**64 - 1, 2**64 - 1),
        (float, "1e3", "1e3", 1e3, 1e3),
        (float, "100000000000000000000000", "100000000000000000000000", 10**23, 1e23),
        (date, "2026-01-31", '"2026-01-31"', DAY, "2026-01-31"),
        (time, "12:30:00", '"12:30:00"', NOON, "12:30:00"),
        (
            datetime,
            "2026-01-31T12:30:00Z",
            '"2026-01-31T12:30:00Z"',
            datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
            "2026-01-31T12:30:00Z",
        ),
        (timedelta, "PT1H30M", '"PT1H30M"', timedelta(minutes=90), "PT1H30M"),
        (UUID, str(ID), f'"{ID}"', ID, str(ID)),
        (
            Decimal,
            "0.10000000000000000000001",
            "0.10000000000000000000001",
            Decimal("0.10000000000000000000001"),
            "0.10000000000000000000001",
        ),
        (Decimal, "1.10", "1.10", Decimal("1.10"), "1.10"),
        (Decimal, "1e999", "1e999", Decimal("1e999"), None),
        (int | str, "3", "3", 3, 3),
        (int | None, "null", "null", None, None),
        (int | None, "4", "4", 4, 4),
        (Literal["yes", "no"], "no", '"no"', "no", "no"),
        (list[str], "[NO, 01]", '["NO", "01"]', ("NO", "01"), ["NO", "01"]),
        (Any, "2026-01-31", '"2026-01-31"', DAY, "2026-01-31"),
        (Any, "NO", '"NO"', "NO", "NO"),
        (Any, "3", "3", 3, 3),
    ],
)
def test_an_input_means_the_same_in_each_spelling(hint: Any, plain: str, quoted: str, value: Any, meant: Any) -> None:
    schema = form(hint)
    # On the command line a list has commas.
    typed = plain.strip("[]") if plain.startswith("[") else plain
    found = [word(typed, schema), yaml(plain, schema), json(quoted, schema), python(value, schema)]
    if meant is None and plain != "null":
        assert [Decimal(each) for each in found] == [Decimal(plain)] * 4
    else:
        assert [(each, type(each)) for each in found] == [(meant, type(meant))] * 4
    assert is_data(found)
    if hint is not Any:
        TypeAdapter(hint).validate_python(found[0])


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "9223372036854775808000", 2**80),
        (int, "-9223372036854775809", -(2**63) - 1),
        (int, "1" * 3000, 10**3000),
        (float, "1e999", math.inf),
        (float, "1" * 400, 10**400),
        (float, "NaN", math.nan),
        (float, "-Infinity", -math.inf),
        (bool | int, "2" * 30, 10**30),
        (list[int], f"[1, {2**70}]", [1, 2**70]),
        (dict[str, float], '{"a": 1e999}', {"a": math.inf}),
        (dict[str, list[float]], '{"a": [1e999]}', {"a": [Decimal("NaN")]}),
    ],
)
def test_a_number_that_cannot_be_sent_is_refused_by_its_name_in_each_spelling(
    hint: Any, text: str, value: Any
) -> None:
    schema = form(hint)
    for spelled in (
        lambda: word(text, schema),
        lambda: yaml(text, schema),
        lambda: json(text, schema),
        lambda: python(value, schema),
    ):
        with pytest.raises(UsageError, match=r"^x[.\w]* should be "):
            spelled()


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    at: date


class Trip(BaseModel):
    start: date
    price: Decimal
    via: list[Point] = []


@pytest.mark.parametrize(
    ("value", "schema", "meant"),
    [
        (Trip(start=DAY, price=Decimal("1.10")), form(Trip), {"start": "2026-01-31", "price": "1.10", "via": []}),
        ([Point(1, DAY)], form(list[Point]), [{"x": 1, "at": "2026-01-31"}]),
        ({"b"}, form(set[str]), ["b"]),
        ({Colour.RED: Colour.RED}, form(dict[str, str]), {"red": "red"}),
        (SecretStr("hunter2"), form(SecretStr), "hunter2"),
        (b"text", form(bytes), "text"),
        (Decimal("0.5"), form(float), 0.5),
        (Decimal(5), form(int), 5),
        (Decimal("1.10"), {}, "1.10"),
        (2**70, form(Decimal), str(2**70)),
        (True, form(int), True),
    ],
)
def test_what_python_has_is_sent_in_the_form_that_the_flow_takes(value: Any, schema: Any, meant: Any) -> None:
    found = python(value, schema)
    assert (found, type(found)) == (meant, type(meant))


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert python({"a": numpy.int64(3), "b": numpy.array([[0.5]])}, {}) == {"a": 3, "b": [[0.5]]}


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "says"), [(object(), "data"), (b"\xff", "text"), (endless(), "nested less"), (len, "data")]
)
def test_what_is_no_data_is_refused_by_its_name(value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^x[.\d]* should be .*{says}"):
        python(value, {})


def test_a_value_is_never_in_its_refusal() -> None:
    with pytest.raises(UsageError) as refused:
        python({"key": [SecretStr("hunter2"), 2**80]}, {})
    assert str(refused.value) == "x.key.1 should be a whole number from -2^63 to 2^64-1"


def test_yaml_that_repeats_itself_without_end_is_refused() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    with pytest.raises(UsageError, match="smaller"):
        to_inputs(read_document(bomb), {})


def test_yaml_keeps_quotes_blocks_tags_and_names_as_they_are_written() -> None:
    text = "no: 1\n'x': \"01\"\ntext: |\n  12:30:00\ntagged: !!str 5\nempty:\nmore: &a {n: ~}\nagain: *a\n"
    found = read_document(text)
    assert found == {
        "no": Unread("1"),
        "x": "01",
        "text": "12:30:00\n",
        "tagged": Unread("5"),
        "empty": None,
        "more": {"n": None},
        "again": {"n": None},
    }


# Names


def test_names_are_found_in_whichever_way_their_letters_are_written() -> None:
    schema = {
        "type": "object",
        "properties": {"größe": {"type": "object", "properties": {"länge": {"type": "integer"}}}},
    }
    typed = unicodedata.normalize("NFD", "größe.länge")
    assert parse_assignments([f"{typed}=3"], schema) == {"größe": {"länge": 3}}
    assert to_inputs({unicodedata.normalize("NFD", "größe"): {}}, schema) == {"größe": {}}
    with pytest.raises(UsageError, match="given twice"):
        to_inputs({unicodedata.normalize("NFD", "größe"): {}, "größe": {}}, schema)
    rows = [{"path": "a.Größe", "name": "Größe"}, {"path": "b", "name": "B"}]
    assert named(rows, unicodedata.normalize("NFD", "Größe")) == rows[:1]
    assert named(rows, unicodedata.normalize("NFD", "a.Größe")) == rows[:1]
    assert named(rows, unicodedata.normalize("NFD", "größe")) == rows[:1]


# Parts of unions


class Card(BaseModel):
    kind: Literal["card"]
    number: str
    owner: str | None = None


class Bank(BaseModel):
    kind: Literal["bank"]
    iban: str
    number: int = 0


class Payer(BaseModel):
    pay: Card | Bank | None = None
    word: str = ""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["pay.kind=card", "pay.number=01"], {"kind": "card", "number": "01"}),
        (["pay.kind=bank", "pay.number=01", "pay.iban=DE"], {"kind": "bank", "number": 1, "iban": "DE"}),
        (["pay.iban=DE", "pay.kind=bank"], {"iban": "DE", "kind": "bank"}),
        (["pay.kind=bank"], {"kind": "bank"}),
        (["pay.number=01"], {"number": "01"}),
    ],
)
def test_each_branch_of_a_union_can_be_given_in_parts(words: list[str], meant: dict[str, Any]) -> None:
    found = parse_assignments(words, Payer.model_json_schema())["pay"]
    assert (found, [type(value) for value in found.values()]) == (meant, [type(value) for value in meant.values()])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pay.kind=cash"], "one of card"),
        (["pay.town=Ulm"], "no input 'town'"),
        (["pay.kind=card", "pay.iban=DE"], "no input 'iban'|one of bank"),
        (["pay.kind=card", "pay.kind=bank"], "given twice"),
    ],
)
def test_parts_that_no_branch_takes_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_assignments(words, Payer.model_json_schema())


# Texts and files


class Files(BaseModel):
    text: str = ""
    doc: File | None = None
    docs: list[File] = []
    maybe: list[File] | None = None
    key: SecretStr | None = None


FILES = Files.model_json_schema()


def test_a_text_may_begin_with_an_at_sign(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("from the file")
    assert parse_assignments([f"text=@{tmp_path}/a.txt"], FILES) == {"text": "from the file"}
    assert parse_assignments(["text=@@ada"], FILES) == {"text": "@ada"}
    assert parse_assignments([], FILES, texts=["text=@@ada"]) == {"text": "@@ada"}


@pytest.mark.parametrize("text", ["@/etc/hostname", "-", "env:HOME", "@-", "a=b", ""])
def test_a_text_that_somebody_else_wrote_is_never_read_from_elsewhere(text: str) -> None:
    assert parse_assignments([], FILES, texts=[f"text={text}"]) == {"text": text}
    assert parse_assignments([], FILES, {"key": "secret"}, [f"key={text}"])["key"] in (text, None)


@pytest.mark.parametrize("name", ["doc", "docs", "maybe"])
def test_a_text_that_somebody_else_wrote_names_no_file(name: str) -> None:
    with pytest.raises(UsageError, match="and not as a text"):
        parse_assignments([], FILES, texts=[f"{name}=@/etc/hostname"])


def test_the_same_word_given_in_both_ways_is_given_twice() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse_assignments(["text=@/etc/hostname"], FILES, texts=["text=@/etc/hostname"])


def test_files_are_named_in_each_spelling() -> None:
    path = Path("a.pdf")
    for given in ({"doc": Unread("a.pdf")}, {"doc": "a.pdf"}, {"doc": path}):
        assert name_files(to_inputs(given, FILES), FILES) == {"doc": path}
    for given in ({"docs": [Unread("a.pdf")]}, {"docs": ["a.pdf"]}, {"docs": path}, {"docs": (path,)}):
        assert name_files(to_inputs(given, FILES), FILES) == {"docs": [path]}
    assert to_inputs({"maybe": path}, FILES) == {"maybe": [path]}


def test_data_stays_what_it_is() -> None:
    data = {"a": [1, 0.5, "x", None, True, {"b": -(2**63)}]}
    assert is_data(data)
    assert to_data(data, {}, {}) == data
    check_value(data)
    assert not any(map(is_data, [DAY, (1,), 2**64, math.nan, {1: 2}, Decimal(1), Path("a")]))
