"""Whatever flows are called and say: names, forms and texts that a host gets."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from kodo.mcp.catalog import Offer, tool_names
from kodo.mcp.forms import flat_form, input_schema, missing_inputs
from kodo.mcp.returned import fits, returned_schema
from kodo.mcp.texts import lines, one_line, quoted
from kodo.mcp.tools import RUN_TOOLS, WRITERS

NAME = re.compile(r"[A-Za-z0-9_-]{1,60}\Z")


texts = st.text(max_size=80)


@given(st.lists(st.tuples(texts, texts, texts), max_size=12))
def test_every_flow_has_one_name_that_hosts_take(rows: list[tuple[str, str, str]]) -> None:
    offers = {(peer, path): Offer(node, peer, path, path, "") for node, path, peer in rows}
    names = tool_names(offers.values())
    assert sorted(each.ref for each in names.values()) == sorted(each.ref for each in offers.values())
    assert all(NAME.match(name) for name in names)
    assert len({name.casefold() for name in names}) == len(names)
    assert not set(names) & {*RUN_TOOLS, *WRITERS}
    assert tool_names(reversed(list(offers.values()))) == names


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "anyOf",
                    "$ref",
                    "enum",
                    "const",
                    "format",
                    "writeOnly",
                    "default",
                    "items",
                    "a",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(json_like, json_like)
def test_no_schema_breaks_a_form_and_none_asks_for_a_secret(schema: Any, content: Any) -> None:
    form = flat_form(schema)
    if form is not None:
        json.dumps(form.schema)
        assert '"password"' not in json.dumps(form.schema).replace('"default": "password"', "")
        kinds = {field["type"] for field in form.schema["properties"].values()}
        assert kinds <= {"string", "number", "integer", "boolean"}
        form.answer(content if isinstance(content, dict) else None)
    if isinstance(schema, dict):
        input_schema(schema, "a file")
        missing_inputs(schema, {})


@given(st.text())
def test_text_is_safe_and_bounded(text: str) -> None:
    assert one_line(text, 50).isprintable()
    assert len(one_line(text, 50)) <= 50
    assert all(line.isprintable() for line in lines(text, 100).split("\n"))


@given(st.text(alphabet="ab-\n 0123456789"))
def test_a_quote_ends_where_its_own_word_says(text: str) -> None:
    shown = quoted(lines(text), "the flow x")
    head, *rest = shown.split("\n")
    word = head.split(" with ")[1].split()[0]
    assert rest[0] == rest[-1] == f"--- {word} ---"
    assert f"--- {word} ---" not in rest[1:-1]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c\n"]), inner, max_size=3)
    ),
    max_leaves=12,
)
kinds = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
schemas = st.recursive(
    st.fixed_dictionaries({"type": kinds}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(st.sampled_from(["a", "b", "c\n"]), inner, max_size=3),
            "required": st.lists(st.sampled_from(["a", "b", "c\n"]), max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "patternProperties": st.just({"^b": {"type": "null"}}),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "enum": st.lists(values, min_size=1, max_size=3),
            "minItems": st.integers(0, 2),
            "maximum": st.integers(-2, 2),
            "minLength": st.integers(0, 2),
            "$ref": st.sampled_from(["#", "#/properties/a", "#/allOf/0", "#/no"]),
        },
    ),
    max_leaves=10,
)


@given(schemas, values)
def test_what_a_flow_may_return_by_its_own_schema_fits_what_hosts_are_told(
    schema: dict[str, Any], value: Any
) -> None:
    made = returned_schema(schema)
    try:
        right = jsonschema_rs.Draft202012Validator(schema).is_valid(value)
    except ValueError:  # a reference that leads nowhere, or round in circles
        return
    if right and made is not None:
        assert fits(value, made)


@given(json_like)
def test_any_schema_of_a_result_becomes_one_that_hosts_take(said: Any) -> None:
    made = returned_schema(said)
    if made is not None:
        assert jsonschema_rs.meta.is_valid(made)
        assert '"$ref": "' not in json.dumps(made)
