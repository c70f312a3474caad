"""Batches of datagrams: what is packed is read again, and anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.batches import MAX_BATCH_BYTES, pack_batch, read_batch


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_a_batch_is_read_as_it_was_packed(datagrams: list[bytes]) -> None:
    assert read_batch(pack_batch(datagrams)) == datagrams


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_whole_or_refused(message: bytes) -> None:
    try:
        found = read_batch(message)
    except ValueError:
        return
    assert pack_batch(found) == message


@pytest.mark.parametrize(
    "message",
    [b"", b"\0", b"\0\0", b"\0\1", b"\0\2a", b"\0\1a\0\0", b"\0\1a\0", pack_batch([bytes(60_000), bytes(10_000)])],
)
def test_what_has_no_datagrams_or_half_of_one_is_no_batch(message: bytes) -> None:
    with pytest.raises(ValueError, match="batch"):
        read_batch(message)
    assert len(pack_batch([b"a"])) < MAX_BATCH_BYTES
