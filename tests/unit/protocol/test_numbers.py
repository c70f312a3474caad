"""Numbers that others wrote, wherever they are read: a flow's, an issuer's, a node's."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from kodo.flow._runtime.flow_events import normal
from kodo.protocol.flow_limits import is_seconds
from kodo.protocol.numbers import finite, seconds_within

HUGE = 10**400
NO_NUMBERS: tuple[Any, ...] = (None, True, "3", [3], HUGE, -HUGE, math.inf, -math.inf, math.nan, Fraction(HUGE), 3j)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: str(value)[:8])
def test_what_no_float_can_be_counts_as_not_known(value: Any):
    assert finite(value) is None
    assert not is_seconds(value)
    assert normal("progress", {"percent": value, "done": value, "total": value, "text": "on"}) == {"text": "on"}


@pytest.mark.parametrize("value", [0, 1.5, -3, 10**300, Fraction(1, 4)])
def test_every_other_number_is_one(value: Any):
    assert finite(value) == float(value)


@pytest.mark.parametrize("value", [None, True, "3", -1, -HUGE, -math.inf, math.nan, Decimal("NaN")])
def test_seconds_that_are_none_are_the_default(value: Any):
    assert seconds_within(value, 7.0, most=60.0) == 7.0


@pytest.mark.parametrize(("value", "seconds"), [(0, 2.0), (30, 30.0), (61, 60.0), (HUGE, 60.0), (math.inf, 60.0)])
def test_seconds_are_kept_within_bounds(value: Any, seconds: float):
    assert seconds_within(value, 7.0, least=2.0, most=60.0) == seconds


@pytest.mark.parametrize("done", [0, 1, 10**308, 1e308, -1e308, 5e-324])
@pytest.mark.parametrize("total", [1, 10**308, 1e308, 5e-324, -5])
def test_a_percent_is_between_0_and_100_for_all_numbers(done: float, total: float):
    assert 0 <= normal("progress", {"done": done, "total": total})["percent"] <= 100
