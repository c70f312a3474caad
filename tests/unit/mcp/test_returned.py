"""What flows say that they return, as hosts are told it, and results held against that."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field, TypeAdapter

from kodo.client.flow import FlowOnNode
from kodo.mcp.catalog import Catalog, Offer
from kodo.mcp.files import Folders
from kodo.mcp.options import BridgeOptions
from kodo.mcp.results import OUTPUT_SCHEMA, output_schema
from kodo.mcp.returned import MAX_PARTS, fits, returned_schema
from kodo.mcp.texts import bounded
from kodo.mcp.tools import flow_tool


class Tree(BaseModel):
    name: str = Field(min_length=1, pattern="^(a+)+$", description="Its\nname")
    kind: Literal["leaf", "branch"] = "leaf"
    children: list[Tree] = []
    size: int | None = None


def told(hint: Any) -> Any:
    return returned_schema(TypeAdapter(hint).json_schema(mode="serialization"))


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (str, "x", 1),
        (list[int], [1], ["x"]),
        (dict[str, bool], {"a": True}, {"a": 1}),
        (tuple[int, str], [1, "x"], ["x", 1]),
        (Literal["a", 1, None], None, "b"),
        (int | list[str], ["x"], [1]),
        (Tree, {"name": "a", "kind": "leaf", "children": [], "size": None}, {"name": ""}),
        (
            Tree,
            {"name": "a", "kind": "leaf", "size": 1, "children": []},
            {"name": "a", "kind": "leaf", "size": 1, "children": [{"name": 1}]},
        ),
    ],
)
def test_a_schema_tells_right_from_wrong(hint: Any, good: Any, bad: Any) -> None:
    schema = told(hint)
    assert fits(good, schema)
    assert not fits(bad, schema)
    whole = output_schema(schema)
    facts = {"run": "12D3KooWx/f", "state": "done"}
    jsonschema.validate({**facts, "result": good}, whole)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**facts, "result": bad}, whole)
    jsonschema.validate({**facts, "other_result": bad}, whole)


def test_no_reference_pattern_or_format_is_left() -> None:
    text = json.dumps(told(Tree))
    assert "$" not in text
    assert "pattern" not in text
    assert "Its name" in text


@pytest.mark.parametrize("word", ["$ref", "allOf"])
def test_what_stands_beside_a_reference_keeps_out_nothing_that_was_right(word: str) -> None:
    closed = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    beside = {"properties": {"b": {}}, word: "#/$defs/closed" if word == "$ref" else [closed]}
    made = returned_schema({"$defs": {"closed": closed}, **beside})
    assert made is not None
    assert fits({"a": 1}, made)


def nest(depth: int) -> dict[str, Any]:
    return {"type": "array", "items": nest(depth - 1)} if depth else {"type": "integer"}


DOUBLING = {
    "$defs": {
        f"n{level}": {"anyOf": [{"$ref": f"#/$defs/n{level + 1}"}, {"$ref": f"#/$defs/n{level + 1}"}]}
        for level in range(40)
    },
    "$ref": "#/$defs/n0",
}


@pytest.mark.parametrize(
    "said",
    [
        nest(500),
        DOUBLING,
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "items": {"$ref": "#/$defs/a"}},
        {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(10_000)}},
        {"anyOf": [{"type": "string"}] * 10_000},
        {"type": "string", "description": "x" * 1_000_000},
        {"enum": [f"choice {number}" for number in range(10_000)]},
        {"$ref": "https://elsewhere.example/schema"},
        {"patternProperties": {"^(a+)+$": {"type": "string"}}, "additionalProperties": False},
    ],
    ids=lambda said: json.dumps(said)[:40],
)
def test_a_schema_that_is_made_to_hurt_is_bounded(said: Any) -> None:
    made = returned_schema(said)
    text = json.dumps(made)
    assert len(text) <= 16_000
    assert "$ref" not in text
    if made is not None:
        jsonschema.Draft202012Validator.check_schema(made)
        assert fits({"aaaa": "x"}, made) in (True, False)


@pytest.mark.parametrize("said", [None, 3, "x", [], {}, {"type": "nothing"}, {"type": [[]]}, {"$ref": "#/no"}])
def test_where_nothing_is_said_anything_fits(said: Any) -> None:
    assert returned_schema(said) is None
    assert output_schema(None) == OUTPUT_SCHEMA


def test_a_result_that_would_take_long_to_check_does_not_fit() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"type": "string"}] * 16}}
    assert fits(["x"] * 100, schema)
    assert not fits(["x"] * 100_000, schema)
    assert not fits([10**400], {"type": "array", "items": {"type": "string"}})


def test_a_result_that_was_cut_is_held_against_what_is_sent() -> None:
    schema = told(dict[str, str])
    assert fits(bounded({"a": "x" * 100_000}), schema)
    assert not fits(bounded({"a": "x"}), {"type": "object", "required": ["b"]})


@pytest.mark.parametrize("returns", [None, {}, 5, {"type": 7}, {"type": "string"}])
def test_a_node_that_tells_nothing_of_results_gets_the_schema_of_all_runs(returns: Any) -> None:
    offer = Offer("a.example", "12D3KooWpeer", "flows.x", "X", "")
    answer = {"path": "flows.x", "schema": {"type": "object"}}
    flow = FlowOnNode(None, answer if returns is None else {**answer, "returns": returns})  # type: ignore[arg-type]
    made = flow_tool("n", offer, flow, Folders([]), 50.0)["outputSchema"]
    known = returns == {"type": "string"}
    assert (made == OUTPUT_SCHEMA) is not known
    assert (made["properties"]["result"].get("type") == "string") is known


def test_parts_beyond_the_bound_may_be_anything() -> None:
    fields = {f"p{number}": {"type": "string"} for number in range(2 * MAX_PARTS)}
    made = returned_schema({"type": "object", "properties": fields})
    assert made is not None
    assert not fits({"p0": 1}, made)
    assert fits({f"p{2 * MAX_PARTS - 1}": 1}, made)


@pytest.mark.parametrize("first", [{"type": "string"}, None])
async def test_results_are_held_against_what_was_told_when_a_flow_changes(first: Any) -> None:
    catalog = Catalog(None, BridgeOptions())  # type: ignore[arg-type]  # it asks nobody
    offer = Offer("a.example", "12D3KooWpeer", "flows.x", "X", "")
    catalog.tell(offer.ref, FlowOnNode(None, {"path": "flows.x", "returns": first}))  # type: ignore[arg-type]
    assert await catalog.returns(offer) == first
    catalog.tell(offer.ref, FlowOnNode(None, {"path": "flows.x", "returns": {"type": "null"}}))  # type: ignore[arg-type]
    assert await catalog.returns(offer) == {"type": "null"}
