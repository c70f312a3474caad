"""Spans hold exactly the bytes that were put in."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kodo.node.store.byte_ranges import MAX_SPANS, Spans, add_span, span_bytes

PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40)


@given(PAIRS)
def test_spans_hold_what_was_added(pairs: list[tuple[int, int]]) -> None:
    spans: Spans = ()
    seen: set[int] = set()
    for start, end in pairs:
        spans = add_span(spans, start, end)
        seen.update(range(start, end))
    assert {byte for start, end in spans for byte in range(start, end)} == seen
    assert span_bytes(spans) == len(seen)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))


@given(st.integers(0, 600))
def test_spans_are_bounded_and_never_hold_what_was_not_added(count: int) -> None:
    spans: Spans = ()
    for number in range(count):
        spans = add_span(spans, number * 10, number * 10 + 1 + number % 5)
    assert len(spans) == min(count, MAX_SPANS)
    assert all(start % 10 == 0 and end - start <= 5 for start, end in spans)
