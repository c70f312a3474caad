"""One list of what is said of a flow, and everything that is made of it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.flow.decorator import FlowDefinition
from kodo.protocol.flow_info import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_RELEASE_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_TEXT_CHARACTERS,
    FlowInfo,
)
from kodo.registry.query.tree import FLOW_FIELDS
from kodo.registry.records.record import FlowRecord

NAMES = {each.name for each in fields(FlowInfo)}
FULL = FlowInfo(
    path="flows.a",
    name="A",
    entry="flows:a",
    source="flows.py",
    description="does it",
    author="ana@example.com",
    organization="Example",
    release="1.0",
    published=1_700_000_000_000,
    tags=("one", "two"),
    schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    example={"n": 1},
    returns={"type": "string"},
    resources={"num_gpus": 1.0},
    needs_ray=True,
    error="it is broken",
)


def test_each_list_of_what_is_said_of_flows_is_a_part_of_the_one() -> None:
    # What authors write; a check, and what becomes of the files in a run's folder, are for who runs the flow.
    assert {each.name for each in fields(FlowDefinition)} - {"outputs", "check"} <= NAMES
    assert set(FlowRecord.SAID) <= NAMES  # what nodes sign
    assert set(FlowRecord.model_fields) - set(FlowRecord.SAID) == {
        "inputs_schema_sha256",
        "requests_per_hour",
        "completions_per_hour",
    }
    assert set(FlowRecord.SAID) <= set(FLOW_FIELDS)  # what registries search
    assert set(FULL.row()) - NAMES == {"broken"}  # what users see
    assert set(FULL.about()) <= set(FULL.row())  # what a run keeps


def test_a_row_and_a_runs_event_say_what_they_always_said() -> None:
    about = {
        "path": "flows.a",
        "name": "A",
        "release": "1.0",
        "author": "ana@example.com",
        "organization": "Example",
        "description": "does it",
    }
    more = {"published": 1_700_000_000_000, "tags": ["one", "two"], "broken": "it is broken"}
    assert FULL.about() == about
    assert FULL.row() == {**about, **more}


@pytest.mark.parametrize("info", [FULL, FlowInfo("a", "a", "a", schema={"type": "object"})])
def test_what_the_importing_process_writes_is_read_back(info: FlowInfo) -> None:
    assert FlowInfo.from_map(json.loads(json.dumps(info.to_map()))) == info


def test_a_map_that_says_little_is_enough() -> None:
    assert FlowInfo.from_map({"path": "a", "error": "no"}) == FlowInfo(
        "a", "a", "", schema={"type": "object"}, error="no"
    )
    with pytest.raises(KeyError):
        FlowInfo.from_map({"name": "a"})


SURROGATES = st.characters(codec=None)
TEXTS = st.builds(str.__mul__, st.text(SURROGATES, max_size=5), st.sampled_from([1, 60, 1000]))
TAG_LISTS = st.builds(
    list.__mul__,
    st.lists(st.builds(str.__mul__, st.text(SURROGATES, max_size=3), st.sampled_from([1, 30]))),
    st.sampled_from([1, 40]),
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("name", "source", "description", "author", "release"), TEXTS)),
    TAG_LISTS,
    st.integers(-(1 << 70), 1 << 70),
)
def test_whatever_an_author_says_is_cut_to_what_a_record_takes(
    said: dict[str, Any], tags: list[str], published: int
) -> None:
    cut = FlowInfo(
        path="flows.a", entry="a:a", tags=tuple(tags), published=published, organization=said["author"], **said
    ).cut()
    record = FlowRecord(**{name: getattr(cut, name) for name in FlowRecord.SAID})
    record.model_dump_json()
    assert cut.cut() == cut


@pytest.mark.parametrize(
    ("field", "bound"),
    [
        ("name", MAX_TEXT_CHARACTERS),
        ("author", MAX_TEXT_CHARACTERS),
        ("organization", MAX_TEXT_CHARACTERS),
        ("source", MAX_PATH_CHARACTERS),
        ("description", MAX_DESCRIPTION_CHARACTERS),
        ("release", MAX_RELEASE_CHARACTERS),
    ],
)
def test_a_text_at_its_bound_stays_whole(field: str, bound: int) -> None:
    for length in (bound, bound + 1):
        said = {"path": "a", "entry": "a", "name": "a", field: "x" * length}
        assert getattr(FlowInfo(**said).cut(), field) == "x" * bound


def test_the_first_tags_of_a_length_that_is_taken_stay() -> None:
    fitting = [f"{number:0{MAX_TAG_CHARACTERS}}" for number in range(MAX_TAGS + 1)]
    tags = ("", "x" * (MAX_TAG_CHARACTERS + 1), *fitting)
    assert FlowInfo("a", "a", "a", tags=tags).cut().tags == tuple(fitting[:MAX_TAGS])
