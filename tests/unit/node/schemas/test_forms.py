"""Values against schemas: what is said of them, and that no value makes the judging last."""

from __future__ import annotations

from typing import Any

import pytest

from kodo.node.schemas.forms import MAX_PLACES, missing, places

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "word": {"type": "string", "pattern": "^[a-z]+$"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ({"n": 1}, []),
        ({"n": 1, "word": "abc"}, []),
        ({"n": 1, "word": "ABC"}, ["/word"]),
        ({"n": "1"}, ["/n"]),
        ({}, [""]),
        ({"n": 1, "other": 2}, [""]),
        ([], [""]),
    ],
)
def test_faults_are_found_where_they_are(value: Any, at: list[str]) -> None:
    assert [fault["at"] for fault in places(SCHEMA, value)] == at


def test_faults_are_counted_no_further_than_anybody_reads() -> None:
    assert len(places({"additionalProperties": False}, {str(n): n for n in range(1000)})) == MAX_PLACES
    assert missing(SCHEMA, {}) == ["n"]


@pytest.mark.parametrize(
    ("value", "unique"),
    [
        ([], True),
        ([1, "1", True, None, [1], {"a": 1}], True),
        ([1, 1.0], False),
        ([0, False], True),
        ([[0], [False]], True),
        ([[1, 2], [1, 2.0]], False),
        ([{"a": 1, "b": [2]}, {"b": [2], "a": 1}], False),
        ([b"a", "a"], True),
    ],
)
def test_elements_are_unique_as_json_schema_means_it(value: list[Any], unique: bool) -> None:
    assert bool(places({"uniqueItems": True}, value)) is not unique


def test_names_by_pattern_and_others_are_told_apart() -> None:
    schema = {
        "properties": {"known": {"type": "string"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": {"type": "boolean"},
    }
    assert places(schema, {"known": "", "x-a": 1, "else": True}) == []
    faults = places(schema, {"known": 1, "x-a": True, "else": 1})
    assert sorted(fault["at"] for fault in faults) == ["/else", "/known", "/x-a"]


def test_a_pattern_that_only_backtracking_can_decide_is_left_to_the_flow() -> None:
    assert places({"pattern": r"^(?!no)"}, "no") == []
    assert places({"pattern": r"(broken"}, "no") == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 100_000 + "!"),
        ({"pattern": "^(a|a)*$"}, "a" * 100_000 + "!"),
        ({"patternProperties": {"^(a+)+$": False}, "additionalProperties": False}, {"a" * 100_000 + "!": 1}),
        ({"propertyNames": {"pattern": "^(a+)+$"}}, {"a" * 100_000 + "!": 1}),
    ],
    ids=["nested", "alternatives", "names", "all names"],
)
def test_no_text_makes_a_pattern_run_away(schema: dict[str, Any], value: Any) -> None:
    # With a backtracking engine none of these would end within the life of the machine.
    assert len(places(schema, value)) == 1


def test_many_elements_that_cannot_be_sorted_are_compared_in_one_pass() -> None:
    class Counted(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = str.__hash__

    value: list[Any] = [each for n in range(2000) for each in (n, Counted(n))]
    assert places({"uniqueItems": True}, value) == []
    assert Counted.compared < 10 * len(value)


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("date", ["2026-01-31", "0001-01-01"], ["31.1.2026", "2026-02-30", "tomorrow", "", "1" * 10_000]),
        ("date-time", ["2026-01-31T12:30:00Z", "2026-01-31 12:30"], ["2026-01-31T25:00", "now"]),
        ("time", ["12:30:00", "12:30", "12:30:00+01:00"], ["25:00", "noon"]),
        ("duration", ["PT1H30M", "P1D", "01:30:00"], ["an hour", "PT"]),
        ("uuid", ["00000000-0000-4000-8000-000000000000"], ["00000000", "x"]),
        ("email", ["what pydantic alone judges"], []),
    ],
)
def test_dates_times_and_ids_are_judged_before_a_run_begins(name: str, taken: list[str], refused: list[str]) -> None:
    schema = {"properties": {"x": {"anyOf": [{"type": "string", "format": name}, {"type": "null"}]}}}
    assert [text for text in taken if places(schema, {"x": text})] == []
    assert [text for text in refused if not places(schema, {"x": text})] == []
    alone = {"properties": {"x": {"type": "string", "format": name}}}
    assert all(f"no {name} such as" in places(schema, {"x": text[:50]})[0]["message"] for text in refused)
    assert places(alone, {"x": 5})[0]["message"] == "5 is not of type 'string'"
