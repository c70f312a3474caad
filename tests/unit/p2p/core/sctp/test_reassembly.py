import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.sctp.reassembly import CHUNK_COST, Reassembly, Received

BASE = 1 << 32


def received(*offsets):
    state = Received(0)
    for offset in offsets:
        state.add(BASE + offset)
    return state.last - BASE, [[first - BASE, last - BASE] for first, last in state.gaps]


def test_tsns_in_order_leave_no_gap():
    assert received(0, 1, 2) == (2, [])


def test_a_missing_tsn_leaves_a_gap_until_it_comes():
    assert received(0, 2, 3, 5) == (0, [[2, 3], [5, 5]])
    assert received(0, 2, 3, 5, 1) == (3, [[5, 5]])
    assert received(0, 2, 3, 5, 4, 1) == (5, [])


def test_what_comes_twice_is_reported_and_bounded():
    state = Received(0)
    assert state.add(BASE)
    assert not state.add(BASE)
    assert state.duplicates == [BASE]
    for _ in range(100):
        state.add(BASE)
    assert len(state.duplicates) <= 16


def test_tsns_wrap_around():
    state = Received(0xFFFFFFFE)
    for tsn in (0xFFFFFFFE, 0xFFFFFFFF, 0, 1):
        assert state.add(state.unwrap(tsn))
    assert state.last & 0xFFFFFFFF == 1
    assert state.gaps == []


@given(st.lists(st.integers(0, 60), max_size=200))
def test_the_runs_are_those_of_a_set(offsets):
    last, gaps = received(*offsets)
    known = set(range(last + 1)) | {tsn for first, end in gaps for tsn in range(first, end + 1)}
    assert known == set(offsets) | set(range(last + 1))
    assert set(range(last + 1)) <= set(offsets)
    assert gaps == sorted(gaps)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(gaps))


def fragments(chance, streams=3, messages=12, *, unordered=False):
    """Messages of some streams as fragments in the order of their TSNs, and what each stream must give."""
    tsn, sequences, expected, cut = 0, dict.fromkeys(range(streams), 0), {}, []
    for number in range(messages):
        stream = chance.randrange(streams)
        parts = [bytes([number, part]) * chance.randrange(1, 5) for part in range(chance.randrange(1, 6))]
        expected.setdefault(stream, []).append(b"".join(parts))
        for index, part in enumerate(parts):
            flags = 2 * (index == 0) + (index == len(parts) - 1) + 4 * unordered
            cut.append((tsn, flags, stream, sequences[stream], 53, part))
            tsn += 1
        sequences[stream] = (sequences[stream] + 1) & 0xFFFF
    return cut, expected


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_messages_come_out_whole_whatever_the_order_of_their_fragments(seed, unordered):
    chance = random.Random(seed)
    cut, expected = fragments(chance, unordered=unordered)
    chance.shuffle(cut)
    reassembly = Reassembly(1000, 10)
    out = []
    for fragment in cut:
        reassembly.add(*fragment, out)
    got = {}
    for stream, protocol, data in out:
        assert protocol == 53
        got.setdefault(stream, []).append(data)
    if unordered:
        got = {stream: sorted(data) for stream, data in got.items()}
        expected = {stream: sorted(data) for stream, data in expected.items()}
    assert got == expected
    assert reassembly.held == 0


def test_a_gap_on_one_stream_holds_up_no_other():
    reassembly, out = Reassembly(1000, 10), []
    reassembly.add(2, 3, 7, 0, 53, b"seven", out)
    reassembly.add(3, 3, 5, 1, 53, b"late", out)
    assert out == [(7, 53, b"seven")]
    reassembly.add(1, 3, 5, 0, 53, b"early", out)
    assert out[1:] == [(5, 53, b"early"), (5, 53, b"late")]


def test_what_is_kept_is_charged_with_its_overhead():
    reassembly, out = Reassembly(1000, 10), []
    reassembly.add(1, 2, 0, 0, 53, b"abc", out)
    reassembly.add(9, 3, 0, 5, 53, b"abcd", out)
    reassembly.add(20, 4, 0, 0, 53, b"abcde", out)
    assert reassembly.held == 12 + 3 * CHUNK_COST
    reassembly.reset(0)
    assert reassembly.held == 0


def test_sequence_numbers_wrap_around():
    reassembly, out = Reassembly(1000, 10), []
    for number in range(65_540):
        reassembly.add(number, 3, 0, number & 0xFFFF, 53, b"x", out)
    assert len(out) == 65_540


@pytest.mark.parametrize(
    "hostile",
    [
        [(1, 2, 0, 0, 53, b"a"), (2, 2, 0, 0, 53, b"b")],
        [(1, 2, 0, 0, 53, b"a"), (2, 1, 0, 1, 53, b"b")],
        [(2, 2, 0, 0, 53, b"b"), (1, 2, 0, 0, 53, b"a")],
        [(5, 3, 0, 9, 53, b"b"), (6, 3, 0, 9, 53, b"a")],
        [(1, 2, 0, 0, 53, bytes(600)), (2, 1, 0, 0, 53, bytes(600))],
        [(1, 6, 0, 0, 53, bytes(600)), (2, 5, 0, 0, 53, bytes(600))],
        [(number, 3, number, 0, 53, b"a") for number in range(11)],
    ],
    ids=["begins inside", "other number", "begins twice", "same number", "too long", "too long loose", "streams"],
)
def test_a_broken_rule_raises(hostile):
    reassembly, out = Reassembly(1000, 10), []
    *before, last = hostile
    for fragment in before:
        reassembly.add(*fragment, out)
    with pytest.raises(ValueError, match=r"message|streams"):
        reassembly.add(*last, out)
