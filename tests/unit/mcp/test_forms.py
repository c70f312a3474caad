"""Which forms are flat, what they look like, and what a filled one stands for."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, TypeAdapter

from kodo.flow import File
from kodo.mcp.forms import MAX_SCHEMA_CHARS, flat_form, input_schema, missing_inputs, secret_inputs


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Flat(BaseModel):
    name: str = Field(min_length=1, max_length=20, pattern="^a+$", description="Who\nit is")
    depth: int = Field(3, ge=1, le=9)
    ratio: float = 0.5
    sure: bool
    color: Color = Color.RED
    size: Literal[1, 2, 3] = 2
    note: str | None = None


class Inner(BaseModel):
    street: str


class Nested(BaseModel):
    inner: Inner


class Words(BaseModel):
    words: list[str]


class Secret(BaseModel):
    password: SecretStr


class Deep(BaseModel):
    inner: Secret


class WithFile(BaseModel):
    file: File


class Either(BaseModel):
    either: int | str


def schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


def test_a_flat_form_has_what_elicitation_takes_and_no_more() -> None:
    form = flat_form(schema_of(Flat))
    assert form is not None
    fields = form.schema["properties"]
    assert fields["name"] == {
        "type": "string",
        "title": "Name",
        "description": "Who it is",
        "minLength": 1,
        "maxLength": 20,
    }
    assert fields["depth"] == {"type": "integer", "title": "Depth", "minimum": 1, "maximum": 9, "default": 3}
    assert fields["ratio"]["default"] == 0.5
    assert fields["color"]["enum"] == ["red", "blue"]
    assert fields["color"]["default"] == "red"
    assert fields["size"] == {"type": "string", "title": "Size", "enum": ["1", "2", "3"], "default": "2"}
    assert form.schema["required"] == ["name", "sure"]


def test_a_filled_form_is_the_answer_of_the_schemas_own_types() -> None:
    form = flat_form(schema_of(Flat))
    assert form is not None
    answer = form.answer({"name": "aa", "sure": True, "size": "3", "depth": 4.0, "note": "", "else": 1})
    assert answer == {"name": "aa", "sure": True, "size": 3, "depth": 4}
    assert Flat.model_validate(answer).size == 3


@pytest.mark.parametrize(
    ("kind", "content", "answer"),
    [(bool, {"value": True}, True), (str, {"value": "x"}, "x"), (Literal[1, 2], {"value": "2"}, 2), (int, {}, None)],
)
def test_a_value_alone_is_asked_for_by_one_field(kind: Any, content: dict[str, Any], answer: Any) -> None:
    form = flat_form(schema_of(kind))
    assert form is not None
    assert set(form.schema["properties"]) == {"value"}
    assert form.answer(content) == answer


@pytest.mark.parametrize(
    "kind", [Nested, Words, Secret, Deep, WithFile, Either, SecretStr, File, list[str], dict[str, int], int | str]
)
def test_what_is_nested_secret_or_a_file_is_never_a_form(kind: Any) -> None:
    assert flat_form(schema_of(kind)) is None


def _form(**field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": field}}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        3,
        {},
        {"type": "object"},
        _form(type="string", writeOnly=True),
        _form(allOf=[{"type": "string"}, {"format": "password"}]),
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/S"}}, "$defs": {"S": {"format": "password"}}},
        _form(**{"$ref": "#/properties/a"}),
        _form(**{"$ref": "https://elsewhere.example/schema"}),
        _form(type="string", enum=["x" * 1000]),
        _form(enum=[str(number) for number in range(1000)]),
        _form(enum=["same", "same"]),
        _form(enum=[{"a": 1}]),
        _form(type=["string", "integer"]),
        {"type": "object", "properties": {f"f{number}": {"type": "string"} for number in range(1000)}},
        {"type": "object", "properties": {"a\nb": {"type": "string"}}},
    ],
)
def test_what_cannot_be_told_for_sure_is_no_form(schema: Any) -> None:
    assert flat_form(schema) is None


class Inputs(BaseModel):
    topic: str
    password: SecretStr
    login: Deep
    logins: list[Secret] = []
    file: File
    depth: int = 1


def test_secrets_are_no_inputs_of_a_tool() -> None:
    schema = schema_of(Inputs)
    assert secret_inputs(schema) == {"password", "login", "logins"}
    assert missing_inputs(schema, {}) == ["topic", "file"]
    assert missing_inputs(schema, {"topic": "x", "file": "y"}) == []
    shown = input_schema(schema, "a path")
    assert shown is not None
    assert set(shown["properties"]) == {"topic", "file", "depth"}
    assert shown["properties"]["file"] == {"title": "File", "type": "string", "description": "a path"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "description": "x" * 1_000_000}}},
        {"type": "object", "properties": {f"field{n}": {"type": "string"} for n in range(50_000)}},
        {"type": "object", "properties": {"a": {"enum": ["x" * 300] * 4000}}},
    ],
)
def test_a_schema_of_a_megabyte_is_cut_or_not_shown(schema: dict[str, Any]) -> None:
    shown = input_schema(schema, "")
    assert shown is None or len(json.dumps(shown)) <= MAX_SCHEMA_CHARS


def test_a_schema_is_rid_of_what_a_host_would_look_up_or_take_time_over() -> None:
    schema = {
        "$schema": "https://elsewhere.example/meta",
        "$id": "https://elsewhere.example/id",
        "type": "object",
        "properties": {
            "a": {"$ref": "https://elsewhere.example/a"},
            "b": {"type": "string", "pattern": "(a+)+$"},
            "pattern": {"type": "string"},
            "c": {"$ref": "#/$defs/C", "description": "ignore\x1b[2J all"},
        },
        "$defs": {"C": {"$id": "x", "type": "integer"}},
    }
    shown = input_schema(schema, "")
    text = json.dumps(shown)
    assert "elsewhere" not in text
    assert "(a+)" not in text
    assert "\\u001b" not in text
    assert shown is not None
    assert set(shown["properties"]) == {"a", "b", "c", "pattern"}
    assert shown["$defs"]["C"] == {"type": "integer"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_a_deep_schema_is_cut() -> None:
    assert input_schema(nested(5000), "") is not None
    assert flat_form(nested(5000)) is None
