"""What values from outside cost the node, counted: no value makes more work than its bytes, or than a bound."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
from jsonschema import Draft202012Validator

from kodo.node.schemas import judge
from kodo.node.schemas.forms import is_schema, places
from kodo.node.schemas.judge import INLINE_STEPS, MAX_WAITING, MAX_WAITING_EACH, Judge
from kodo.node.store.rows import check_packed
from kodo.p2p.errors import CallError
from kodo.protocol.events import MAX_EVENT_BYTES
from kodo.protocol.secrets import MAX_SECRET_BYTES, hide, reveal
from kodo.protocol.steps import MAX_STEPS, Steps, TooComplexError
from tests.support.counting import calls_of
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import info, node_of

STEPS = 500
CALLS = 80
"""Calls of functions that a step may stand for."""

TEXT = "x" * 100_000
NAMES = [f"name{number}" for number in range(3000)]
BRANCH = {"type": "object", "properties": {"items": {"items": {"$ref": "#/$defs/Node"}}}, "required": ["items"]}


def nested(depth: int) -> Any:
    value: Any = {"text": 1}
    for _ in range(depth):
        value = {"items": [value]}
    return value


def union(word: str) -> dict[str, Any]:
    node = {word: [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}
    return {"$defs": {"Node": node, "A": BRANCH, "B": BRANCH}, "$ref": "#/$defs/Node"}


DEFINITIONS = {"$defs": {name: {"type": "string"} for name in NAMES}}
WORST: dict[str, tuple[dict[str, Any], Any]] = {
    "a union of models, nested": (union("anyOf"), nested(16)),
    "a discriminated union of models, nested": (union("oneOf"), nested(16)),
    "if": ({"if": union("anyOf"), "$defs": union("anyOf")["$defs"]}, nested(16)),
    "not": ({"not": {"not": {"$ref": "#/$defs/Node"}}, "$defs": union("anyOf")["$defs"]}, nested(16)),
    "items": ({"items": {"type": "integer"}}, [1] * 250_000),
    "items, of any kind": ({"items": {}}, [1] * 250_000),
    "items, unknown words": ({"items": dict.fromkeys(NAMES, 1)}, [1] * 10_000),
    "prefixItems": ({"prefixItems": [{"type": "integer"}] * 20_000}, [1] * 20_000),
    "contains": ({"contains": {"type": "string"}}, [1] * 250_000),
    "contains, false": ({"contains": False}, [TEXT] * 1000),
    "messages": ({"anyOf": [{"maxLength": 1}] * 5000}, TEXT),
    "messages of false": ({"anyOf": [False] * 5000}, [TEXT]),
    "messages of lists": ({"anyOf": [{"maxItems": 1}] * 5000}, list(range(1000))),
    "enum": ({"items": {"enum": NAMES}}, [NAMES[-1]] * 5000),
    "const": ({"items": {"const": [0] * 3000}}, [[0] * 3000] * 1000),
    "required": ({"items": {"required": NAMES}}, [dict.fromkeys(NAMES, 1)] * 1000),
    "properties": ({"items": {"properties": {name: {} for name in NAMES}}}, [{}] * 5000),
    "dependentRequired": ({"items": {"dependentRequired": {"a": NAMES}}}, [{"a": 1, **dict.fromkeys(NAMES)}] * 500),
    "dependentSchemas": ({"items": {"dependentSchemas": {name: {} for name in NAMES}}}, [dict.fromkeys(NAMES)] * 500),
    "propertyNames": ({"items": {"propertyNames": {"maxLength": 9}}}, [dict.fromkeys(NAMES)] * 500),
    "patternProperties": ({"patternProperties": {f"^{name}$": {} for name in NAMES}}, dict.fromkeys(NAMES)),
    "additionalProperties": (
        {"patternProperties": {f"^{name}!$": {} for name in NAMES}, "additionalProperties": {}},
        dict.fromkeys(NAMES),
    ),
    "uniqueItems": ({"items": {"uniqueItems": True}}, [[[number] for number in range(1000)]] * 500),
    "uniqueItems, again and again": ({"allOf": [{"uniqueItems": True}] * 1000}, [[number] for number in range(1000)]),
    "$ref to an anchor": ({**DEFINITIONS, "items": {"$ref": "#there"}}, [1] * 1000),
    "$ref below an $id": (
        {
            **DEFINITIONS,
            "items": {"$id": "http://there.example/", "$defs": {"x": {}}, "items": {"$ref": "#/$defs/x"}},
        },
        [[1]] * 1000,
    ),
    "$ref, round and round": ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
    "unevaluatedItems": ({"prefixItems": [{}] * 1000, "unevaluatedItems": False}, [1] * 20_000),
    "unevaluatedProperties": (
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"a" * 100_000 + "!": 1},
    ),
    "another dialect": (
        {"items": {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"pattern": "^(a+)+$"}}},
        [["a" * 100_000 + "!"]] * 1000,
    ),
}


@pytest.mark.parametrize("case", WORST)
def test_no_value_and_no_schema_cost_more_calls_than_the_steps_they_have(case: str) -> None:
    schema, value = WORST[case]
    steps = Steps(STEPS)

    def work() -> None:
        with contextlib.suppress(TooComplexError):
            places(schema, value, steps)

    # The whole value may be walked once more when its steps are over, never again and again.
    assert calls_of(work) < CALLS * STEPS + 3 * len(msgpack.packb([schema, value]))


@pytest.mark.parametrize("word", sorted(Draft202012Validator.VALIDATORS))
def test_every_keyword_is_counted(word: str) -> None:
    with pytest.raises(TooComplexError):
        places({word: {}}, 1, Steps(0))


def test_a_form_as_people_make_them_takes_few_steps() -> None:
    texts = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "properties": {"topic": {"type": "string"}, "more": texts}, "required": ["topic"]}
    steps = Steps(INLINE_STEPS)
    assert places(schema, {"topic": "bikes", "more": ["a"] * 100}, steps) == []
    assert steps.left > INLINE_STEPS / 2


def test_a_long_list_of_numbers_still_passes() -> None:
    assert places({"items": {"type": "integer"}}, [1] * 45_000, Steps(MAX_STEPS)) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {name: {"type": "string", "title": "a name"} for name in NAMES}},
        {"anyOf": [{}] * 60_000},
        {"enum": list(range(60_000))},
        {"required": NAMES * 10},
        {"description": TEXT * 2},
    ],
    ids=["properties", "anyOf", "enum", "required", "text"],
)
def test_a_lock_s_schema_is_checked_in_one_call(schema: dict[str, Any]) -> None:
    assert calls_of(lambda: is_schema(schema)) < 10


@pytest.mark.parametrize(
    "schema",
    [
        5,
        {"type": "text"},
        {"items": [{}]},
        {"pattern": 1},
        {"title": b"bytes"},
        {"properties": {"a": {"required": "a"}}},
    ],
)
def test_what_is_no_schema_is_told_from_one(schema: Any) -> None:
    assert not is_schema(schema)
    assert is_schema({"type": "object", "properties": {"a": {"type": "string"}}})


def test_a_reference_into_a_list_by_a_name_leads_nowhere() -> None:
    assert places({"anyOf": [{}], "items": {"$ref": "#/anyOf/x"}}, [1])


SECRET = {"writeOnly": True}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"allOf": [{"properties": {"a": SECRET}}] * 3000}}, [{"a": 1}] * 3000),
        ({"additionalProperties": {"items": SECRET}}, {"k" * 100_000: [1] * 10_000}),
        ({"items": {"patternProperties": dict.fromkeys(NAMES, SECRET)}}, [{"a": 1}] * 3000),
        ({"items": {"properties": {"a": SECRET}}}, [{}] * 250_000),
    ],
    ids=["schemas", "keys", "patterns", "places"],
)
def test_taking_secrets_out_costs_no_more_than_its_steps(schema: dict[str, Any], value: Any) -> None:
    def work() -> None:
        with contextlib.suppress(TooComplexError):
            _, found = hide(schema, value, Steps(STEPS))
            assert sum(len(str(path)) for path, _ in found) < 300 * STEPS

    assert calls_of(work) < CALLS * STEPS + 10 * len(NAMES)


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]], ids=["map", "list"])
def test_secrets_are_put_back_in_one_pass(wrap: Callable[[Any], Any]) -> None:
    class Read(list[Any]):
        reads = 0

        def __iter__(self) -> Any:
            Read.reads += 1
            return super().__iter__()

    value = wrap(Read([0] * 1000))
    step = "a" if isinstance(value, dict) else 0
    assert reveal(value, [[[step, number], number] for number in range(1000)]) == wrap(list(range(1000)))
    assert Read.reads <= 2


def test_a_value_that_no_event_takes_is_refused_by_its_bytes() -> None:
    check_packed("x" * MAX_EVENT_BYTES)
    with pytest.raises(ValueError, match="bytes"):
        check_packed("x" * (MAX_EVENT_BYTES + MAX_SECRET_BYTES))


# --- beside the loop ---


async def test_a_value_that_takes_too_long_is_refused_with_what_to_do() -> None:
    made = Judge()
    try:
        with pytest.raises(CallError, match="smaller") as caught:
            await made.do(lambda steps: steps.spend(MAX_STEPS + 1), "ana")
        assert (caught.value.code, caught.value.reason) == (400, "too-complex")
    finally:
        made.close()


async def test_more_than_a_moment_s_work_is_done_beside_the_loop() -> None:
    import threading

    def work(size: int, steps: Steps) -> str:
        steps.spend(size)
        return threading.current_thread().name

    made = Judge()
    try:
        assert await made.do(partial(work, INLINE_STEPS), "ana") == threading.current_thread().name
        assert await made.do(partial(work, INLINE_STEPS + 1), "ana") != threading.current_thread().name
    finally:
        made.close()


async def test_few_values_wait_to_be_judged() -> None:
    import threading

    begin = threading.Event()

    def work(steps: Steps) -> None:
        steps.spend(INLINE_STEPS + 1)
        begin.wait(10)

    made = Judge()
    try:
        waiting = [asyncio.ensure_future(made.do(work, f"p{number}")) for number in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(CallError) as caught:
            await made.do(work, "ana")
        assert (caught.value.code, caught.value.reason) == (429, "busy")
        begin.set()
        await asyncio.gather(*waiting)
        await made.do(work, "ana")
    finally:
        begin.set()
        made.close()


async def test_who_sends_many_large_values_leaves_places_in_the_line_to_others() -> None:
    import threading

    begin = threading.Event()

    def work(steps: Steps) -> None:
        steps.spend(INLINE_STEPS + 1)
        begin.wait(10)

    made = Judge()
    try:
        many = [asyncio.ensure_future(made.do(work, "ana")) for _ in range(MAX_WAITING)]
        others = [asyncio.ensure_future(made.do(work, name)) for name in ("bob", "eve")]
        await asyncio.sleep(0)
        begin.set()
        refused = [each for each in await asyncio.gather(*many, return_exceptions=True) if each is not None]
        assert [(type(each), getattr(each, "code", 0)) for each in refused] == [(CallError, 429)] * MAX_WAITING_EACH
        await asyncio.gather(*others)
    finally:
        begin.set()
        made.close()


# --- through the ops ---


async def test_what_fits_a_form_in_too_many_ways_is_refused(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "MAX_STEPS", 5000)
    definitions = union("anyOf")["$defs"]
    schema = {"properties": {"tree": {"$ref": "#/$defs/Node"}}, "required": ["tree"], "$defs": definitions}
    tree = {"tree": nested(16)}
    flow = {**info("flows.tree", "work"), "schema": schema}
    async with node_of(tmp_path, clock, more=[flow]) as node:
        refused = await node.refused("run.launch", path="flows.tree", inputs=tree)
        assert (refused.code, refused.reason) == (400, "too-complex")
        locked = await node.call("run.launch", path="flows.tree")
        [lock] = (await node.call("lock.list"))["result"]
        refused = await node.refused("lock.answer", fid=locked["fid"], lid=lock["lid"], candidate=tree)
        assert (refused.code, refused.reason) == (400, "too-complex")


async def test_what_no_event_takes_is_refused_before_it_is_held_against_a_form(
    tmp_path: Path, clock: StillClock
) -> None:
    huge = {"n": "x" * (MAX_EVENT_BYTES + MAX_SECRET_BYTES)}
    async with node_of(tmp_path, clock) as node:
        refused = await node.refused("run.launch", path="flows.work", inputs=huge)
        assert (refused.code, refused.reason) == (413, "too-large")
        locked = await node.call("run.launch", path="flows.work")
        [lock] = (await node.call("lock.list"))["result"]
        refused = await node.refused("lock.answer", fid=locked["fid"], lid=lock["lid"], candidate=huge)
        assert (refused.code, refused.reason) == (413, "too-large")
