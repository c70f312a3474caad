"""Places for requests: what one source gets of them, and what it leaves."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.hosts import THIS_MACHINE
from kodo.p2p.errors import CallError
from kodo.registry.http.shares import Shares


def held(shares: Shares, stack: contextlib.ExitStack, source: str, count: int) -> int:
    got = 0
    for _ in range(count):
        with contextlib.suppress(CallError):
            stack.enter_context(shares.hold(source))
            got += 1
    return got


@given(most=st.integers(4, 200), crowds=st.integers(1, 3))
def test_one_or_two_sources_never_take_the_last_places(most: int, crowds: int) -> None:
    shares = Shares(most, "reads")
    with contextlib.ExitStack() as stack:
        got = sum(held(shares, stack, f"192.0.2.{number}", 2 * most) for number in range(crowds))
        assert got < most or crowds == 3
        if got < most:
            assert held(shares, stack, "198.51.100.1", 1) == 1
    with contextlib.ExitStack() as stack:
        assert held(shares, stack, "192.0.2.1", most) >= most // 2  # all were given back


def test_this_machine_leaves_a_quarter() -> None:
    shares = Shares(64, "reads")
    with contextlib.ExitStack() as stack:
        assert held(shares, stack, THIS_MACHINE, 100) == 48
        assert held(shares, stack, "192.0.2.1", 100) == 16
        with pytest.raises(CallError) as full, shares.hold("192.0.2.2"):
            pass
        assert (full.value.code, full.value.reason) == (503, "busy")


def test_who_has_too_many_is_told_when_to_come_again() -> None:
    shares = Shares(8, "readers", retry_after_s=5)
    with contextlib.ExitStack() as stack:
        held(shares, stack, "192.0.2.1", 8)
        with pytest.raises(CallError) as crowding, shares.hold("192.0.2.1"):
            pass
        assert (crowding.value.code, crowding.value.reason) == (429, "too-often")
        assert crowding.value.data["retry_after_s"] == 5
