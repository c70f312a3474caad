"""How far the packets go that open a NAT for a dialler."""

from __future__ import annotations

import pytest

from kodo.p2p.net.openings import ALL_THE_WAY, FIRST_HOPS, REMEMBERED, STEP_SECONDS, Openings

DIALLER, OWN = ("203.0.113.9", 40_000), ("192.0.2.1", 4711)
LATER = STEP_SECONDS + 0.1


def test_the_first_packets_get_no_further_than_the_router_before_the_machine() -> None:
    openings = Openings()
    assert DIALLER not in openings
    for now in (0.0, 0.05, STEP_SECONDS - 0.1):
        assert openings.next_hops(DIALLER, OWN, now, proved=True) == FIRST_HOPS
    assert DIALLER in openings


@pytest.mark.parametrize(("proved", "hops"), [(False, FIRST_HOPS), (True, ALL_THE_WAY)])
def test_later_ones_go_all_the_way_to_who_has_shown_that_it_is_there(proved: bool, hops: int) -> None:
    openings = Openings()
    openings.next_hops(DIALLER, OWN, 0.0, proved=proved)
    assert openings.next_hops(DIALLER, OWN, LATER, proved=proved) == hops
    assert openings.next_hops(DIALLER, OWN, 100.0, proved=proved) == hops


def test_all_begins_anew_when_it_was_of_use_and_where_the_own_address_is_another() -> None:
    openings = Openings()
    openings.next_hops(DIALLER, OWN, 0.0, proved=True)
    openings.came(DIALLER)
    assert openings.next_hops(DIALLER, OWN, 100.0, proved=True) == FIRST_HOPS
    assert openings.next_hops(DIALLER, OWN, 100.0 + LATER, proved=True) == ALL_THE_WAY
    assert openings.next_hops(DIALLER, ("192.0.2.1", 4712), 101.0, proved=True) == FIRST_HOPS


def test_so_many_diallers_are_remembered() -> None:
    openings = Openings()
    for port in range(REMEMBERED + 1):
        openings.next_hops(("203.0.113.9", port), OWN, 0.0, proved=False)
    assert ("203.0.113.9", 0) not in openings
    assert ("203.0.113.9", REMEMBERED) in openings
