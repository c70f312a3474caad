"""Values are counted before they are made: what a stranger sends costs as little as it is read."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.callframe import MAX_REQUEST_VALUES, FrameReader, TooManyValuesError
from kodo.p2p.core.elements import count_values, over_values
from kodo.p2p.core.varint import encode_varint
from tests.support.counting import calls_of

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.binary(max_size=300) | st.text(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=40))
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=60,
)

MANY = 1 << 17
FLOODS: dict[str, bytes] = {
    "maps": b"\xdd" + MANY.to_bytes(4, "big") + b"\x80" * MANY,
    "lists": b"\xdd" + MANY.to_bytes(4, "big") + b"\x90" * MANY,
    "numbers": b"\xdd" + MANY.to_bytes(4, "big") + b"\x01" * MANY,
    "numbers of two bytes": b"\xdd" + MANY.to_bytes(4, "big") + b"\xcc\x80" * MANY,
    "empty texts": b"\xdd" + MANY.to_bytes(4, "big") + b"\xa0" * MANY,
    "empty bytes": b"\xdd" + MANY.to_bytes(4, "big") + b"\xc4\x00" * MANY,
    "lists in lists": b"\xdd" + (MANY // 4).to_bytes(4, "big") + b"\x93\x90\x90\x90" * (MANY // 4),
    "a map": b"\xdf" + MANY.to_bytes(4, "big") + b"\xa1k\x01" * MANY,
}


def made(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(made(key) + made(part) for key, part in value.items())
    return 1 + sum(map(made, value)) if isinstance(value, list) else 1


@given(VALUES)
def test_as_many_values_are_counted_as_are_made(value: Any) -> None:
    assert count_values(msgpack.packb(value), 10**9) == made(value)


@given(st.binary(max_size=400), st.integers(0, 50))
def test_whatever_the_bytes_are_counting_ends(data: bytes, most: int) -> None:
    assert 0 <= count_values(data, most) <= len(data)
    assert over_values(data, most) == (count_values(data, most) > most)


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("most", [64, 1024, MAX_REQUEST_VALUES])
def test_a_flood_of_values_is_refused_before_one_is_made(flood: str, most: int) -> None:
    data = FLOODS[flood]
    reader = FrameReader(max_bytes=len(data), max_values=most)
    frame = encode_varint(len(data)) + data

    def work() -> None:
        with pytest.raises(TooManyValuesError, match=str(most)):
            reader.feed(frame)

    assert calls_of(work) < 5 * most + 500


def test_a_long_text_is_one_value() -> None:
    [value] = FrameReader(max_values=1).feed(encode_varint(1005) + msgpack.packb("x" * 1002))
    assert value == "x" * 1002
