"""Datagrams that are joined stay what they were, in their order, and within the bounds of one system call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.joined import Joined, join_more

SIZES = st.sampled_from([1, 2, 5, 6])
PIECES = st.lists(st.builds(lambda size, n: Joined(bytes(range(n)), size), SIZES, st.integers(1, 30)), max_size=8)


def datagrams_of(pieces: list[Joined]) -> list[bytes]:
    return [data for each in pieces for data in each.datagrams()]


@given(PIECES, st.integers(1, 8), st.integers(1, 40))
def test_joining_more_keeps_every_datagram_and_its_place(pieces: list[Joined], most: int, most_bytes: int) -> None:
    joined = list(join_more(pieces, most, most_bytes))
    assert [data for each in joined for data in each.datagrams()] == [
        data for each in pieces for data in each.datagrams()
    ]
    longest = max((len(each.data) for each in pieces), default=0)
    assert all(len(each.data) <= max(longest, min(most_bytes, most * each.size)) for each in joined)
    for each in joined:
        *whole, last = each.datagrams()
        assert {len(data) for data in whole} <= {each.size}
        assert 0 < len(last) <= each.size


def test_what_is_equally_long_is_joined_and_a_shorter_one_ends_it() -> None:
    pieces = [Joined(b"aabb", 2), Joined(b"cc", 2), Joined(b"d", 1), Joined(b"ee", 2), Joined(b"ff", 2)]
    assert list(join_more(pieces, 60, 60_000)) == [Joined(b"aabbccd", 2), Joined(b"eeff", 2)]
