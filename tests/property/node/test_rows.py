"""Digests of inputs: the same for the same, whatever the order of the keys."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from kodo.node.store.rows import NewEvent, digest_of

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def turned(value: Any) -> Any:
    """Give the same value, its maps' keys in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(PLAIN)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert digest_of(value) == digest_of(turned(value))


@given(PLAIN, PLAIN)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    if msgpack.packb(one) != msgpack.packb(other) and one != other:
        assert digest_of(one) != digest_of(other)


@given(st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_what_an_event_packs_is_what_comes_back(data: dict[str, Any]) -> None:
    new = NewEvent.make("log", data, 1)
    assert msgpack.unpackb(new.packed, strict_map_key=False) == data
