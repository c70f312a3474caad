import dataclasses
import enum
import json
from datetime import date
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kodo.flow._runtime.plain import is_plain, plain


class Model(BaseModel):
    day: date


@dataclasses.dataclass
class Point:
    x: int


class Colour(enum.IntEnum):
    RED = 1


class Hostile:
    def __str__(self):
        raise RuntimeError


def test_models_dataclasses_enums_paths_and_sets_become_json_like():
    value = {"m": Model(day=date(2026, 1, 2)), "p": Point(1), "c": Colour.RED, "f": Path("a/b"), "s": {1}, 5: b"\0"}
    assert plain(value) == {"m": {"day": "2026-01-02"}, "p": {"x": 1}, "c": 1, "f": "a/b", "s": [1], "5": "AA=="}


def test_what_json_or_msgpack_cannot_hold_becomes_text():
    assert plain([float("nan"), 1 << 70, "\ud800"]) == ["nan", str(1 << 70), "\\ud800"]


def test_an_object_that_refuses_to_be_text_is_named():
    assert plain(Hostile()) == "<Hostile>"


def test_a_value_that_contains_itself_ends():
    value: list = []
    value.append(value)
    assert json.dumps(plain(value))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()))
def test_what_is_called_plain_needs_no_conversion(data):
    converted = plain(data)
    json.dumps(converted, allow_nan=False)
    if is_plain(data):
        assert converted == {key: plain(value) for key, value in data.items()}
        assert all(type(converted[key]) is type(value) for key, value in data.items())
