from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, TypeAdapter

from kodo.protocol.secrets import MASK, asks_secrets, hide, masked, reveal, secret_names


class Account(BaseModel):
    user: str
    password: SecretStr
    spare: SecretStr | None = None


class Form(BaseModel):
    token: SecretStr
    account: Account
    others: list[Account] = []
    by_name: dict[str, SecretStr] = {}
    note: str = ""


SCHEMA = Form.model_json_schema()
VALUE: dict[str, Any] = {
    "token": "s1",
    "account": {"user": "ana", "password": "s2", "spare": None},
    "others": [{"user": "bob", "password": "s3", "spare": "s4"}],
    "by_name": {"x": "s5"},
    "note": "n",
}


def test_every_secret_place_is_hidden_and_can_be_revealed() -> None:
    shown, found = hide(SCHEMA, VALUE)
    assert shown == {
        "token": MASK,
        "account": {"user": "ana", "password": MASK, "spare": None},
        "others": [{"user": "bob", "password": MASK, "spare": MASK}],
        "by_name": {"x": MASK},
        "note": "n",
    }
    assert sorted(secret for _, secret in found) == ["s1", "s2", "s3", "s4", "s5"]
    assert reveal(shown, found) == VALUE
    assert (masked(shown), masked(VALUE)) == (True, False)
    assert secret_names(SCHEMA, shown) == ["token", "account", "others", "by_name"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "writeOnly": True},
        {"type": "string", "format": "password"},
        {"anyOf": [{"type": "integer"}, {"type": "string", "format": "password"}]},
        {"$ref": "#/$defs/S", "$defs": {"S": {"allOf": [{"writeOnly": True}]}}},
        TypeAdapter(SecretStr).json_schema(),
    ],
)
def test_a_value_may_be_a_secret_as_a_whole(schema: dict[str, Any]) -> None:
    shown, found = hide(schema, {"any": ["s"]})
    assert (shown, found, reveal(shown, found)) == (MASK, [[[], {"any": ["s"]}]], {"any": ["s"]})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"properties": {"b": {"writeOnly": True}}}}},
        {"additionalProperties": {"additionalProperties": {"writeOnly": True}}},
        {"patternProperties": {"^a": {"patternProperties": {"b": {"writeOnly": True}}}}},
        {"if": {"properties": {"x": {}}}, "then": {"properties": {"a": {"properties": {"b": {"writeOnly": True}}}}}},
        {"oneOf": [{"type": "null"}, {"properties": {"a": {"$ref": "#/properties/c"}}}], "properties": {"c": {
            "properties": {"b": {"format": "password"}}}}},
    ],
)  # fmt: skip
def test_all_ways_that_lead_to_a_place_are_followed(schema: dict[str, Any]) -> None:
    assert hide(schema, {"a": {"b": "s"}})[0] == {"a": {"b": MASK}}


def test_a_form_without_secrets_is_left_as_it_is() -> None:
    value = {"a": [1, {"b": 2}]}
    assert hide({"properties": {"writeOnly": {"type": "string"}}}, value) == (value, [])
    assert not asks_secrets({"properties": {"a": {"format": "date"}}})


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tree = {"properties": {"t": {"$ref": "#/$defs/T"}, "s": {"writeOnly": True}}}
    schema = {"$ref": "#/$defs/T", "$defs": {"T": tree}}
    value: Any = {"s": "canary"}
    for _ in range(100):
        value = {"t": value}
    assert "canary" not in repr(hide(schema, value)[0])
    assert hide(schema, {"t": {"t": {"s": 1}}})[0] == {"t": {"t": {"s": MASK}}}


def test_places_that_are_not_there_are_passed_over() -> None:
    assert reveal({"a": [1]}, [[["b"], 1], [["a", 5], 1], [["a", "x"], 1], [["a", 0, 0], 1]]) == {"a": [1]}
