"""What a framework says is made to fit into an event."""

from collections.abc import Callable
from typing import Any

import pytest

from kodo.flow._runtime.buffer import pack_event
from kodo.flow.adapters.truncate import MAX_CHARACTERS, MAX_ITEMS, fit


def test_what_fits_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, None, True, "text"], "b": {"c": []}}
    assert fit(value) == value


@pytest.mark.parametrize(
    "make",
    [
        lambda: "ä" * 10_000_000,
        lambda: ["\U0001f600" * 5000] * 1000,
        lambda: {str(number): "x" * 5000 for number in range(1000)},
        lambda: [[[["x" * 100] * 199] * 199] * 3],
        lambda: {"k" * 1_000_000: 1},
        lambda: list(range(1_000_000)),
    ],
)
def test_whatever_is_said_the_event_is_within_its_bound(make: Callable[[], Any]) -> None:
    assert pack_event("result", {"update": fit(make())})


def test_what_had_to_go_is_named() -> None:
    assert fit("x" * (MAX_CHARACTERS + 1)).endswith(f"({MAX_CHARACTERS + 1} characters)")
    assert fit(list(range(MAX_ITEMS + 5)))[-1] == f"… ({MAX_ITEMS + 5} items)"
