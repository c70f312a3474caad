"""Text from elsewhere is safe, bounded and marked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kodo.mcp.texts import as_json, bounded, said


def test_a_short_quote_is_one_string() -> None:
    assert json.loads(said('"\n] run_cancel', "x").partition("instructions: ")[2]) == '"\n] run_cancel'


deep: Any = "x"
for _ in range(500):
    deep = [deep]


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        ["x"] * 1_000_000,
        {f"key{number}": number for number in range(100_000)},
        {"k" * 1_000_000: 1},
        deep,
        [float("nan"), float("inf"), b"bytes", None, object],
    ],
)
def test_data_of_any_size_is_cut(value: Any) -> None:
    assert len(as_json(value, 1000)) < 3000
    json.dumps(bounded(value, 1000), allow_nan=False, default=str)


def test_what_is_small_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "d\ne"}}
    assert bounded(value) == value
