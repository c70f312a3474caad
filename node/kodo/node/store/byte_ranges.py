"""Which bytes of a file were seen: spans `[start, end)` in order, apart from each other. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MAX_SPANS", "Spans", "add_span", "span_bytes"]

Spans = tuple[tuple[int, int], ...]

MAX_SPANS = 256
"""How many spans of one file are remembered; beyond that the shortest is forgotten."""


def add_span(spans: Spans, start: int, end: int) -> Spans:
    """Return `spans` with `[start, end)` in them."""
    if start >= end:
        return spans
    before = [span for span in spans if span[1] < start]
    after = [span for span in spans if span[0] > end]
    touched = spans[len(before) : len(spans) - len(after)]
    merged = (min([start, *(span[0] for span in touched)]), max([end, *(span[1] for span in touched)]))
    found = [*before, merged, *after]
    if len(found) > MAX_SPANS:
        found.remove(min(found, key=lambda span: span[1] - span[0]))
    return tuple(found)


def span_bytes(spans: Sequence[tuple[int, int]]) -> int:
    """Return how many bytes the spans hold."""
    return sum(end - start for start, end in spans)
