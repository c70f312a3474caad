"""How far the packets go that open a NAT for a dialler."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kodo.p2p.net.openings import (
    ALL_THE_WAY,
    FAR_AT_ONCE,
    FAR_PER_SECOND,
    FAR_SECONDS,
    FIRST_HOPS,
    MOST_FAR,
    RELAYS,
    REMEMBERED,
    STEP_SECONDS,
    Openings,
)

DIALLER, OWN = ("203.0.113.9", 40_000), ("192.0.2.1", 4711)
RELAY = "203.0.113.1"
LATER = STEP_SECONDS + 0.1


def test_the_first_packets_get_no_further_than_the_router_before_the_machine() -> None:
    openings = Openings()
    assert DIALLER not in openings
    for now in (0.0, 0.05, STEP_SECONDS - 0.1):
        assert openings.next_hops(DIALLER, OWN, RELAY, now, proved=True) == FIRST_HOPS
    assert DIALLER in openings


@pytest.mark.parametrize(("proved", "hops"), [(False, FIRST_HOPS), (True, ALL_THE_WAY)])
def test_later_ones_go_all_the_way_to_who_has_shown_that_it_is_there(proved: bool, hops: int) -> None:
    openings = Openings()
    openings.next_hops(DIALLER, OWN, RELAY, 0.0, proved=proved)
    assert openings.next_hops(DIALLER, OWN, RELAY, LATER, proved=proved) == hops
    assert openings.next_hops(DIALLER, OWN, RELAY, 100.0, proved=proved) == hops


def test_all_begins_anew_when_it_was_of_use_and_where_the_own_address_is_another() -> None:
    openings = Openings()
    openings.next_hops(DIALLER, OWN, RELAY, 0.0, proved=True)
    openings.came(DIALLER)
    assert openings.next_hops(DIALLER, OWN, RELAY, 100.0, proved=True) == FIRST_HOPS
    assert openings.next_hops(DIALLER, OWN, RELAY, 100.0 + LATER, proved=True) == ALL_THE_WAY
    assert openings.next_hops(DIALLER, ("192.0.2.1", 4712), RELAY, 101.0, proved=True) == FIRST_HOPS


def test_so_many_diallers_are_remembered() -> None:
    openings = Openings()
    for port in range(REMEMBERED + 1):
        openings.next_hops(("203.0.113.9", port), OWN, RELAY, 0.0, proved=False)
    assert ("203.0.113.9", 0) not in openings
    assert ("203.0.113.9", REMEMBERED) in openings


def far(openings: Openings, dialler: tuple[str, int], times: list[float], relay: str = RELAY) -> list[float]:
    """Return at which of some times a packet goes all the way."""
    return [at for at in times if openings.next_hops(dialler, OWN, relay, at, proved=True) == ALL_THE_WAY]


def test_few_packets_go_all_the_way_to_one_dialler_however_often_its_relay_asks() -> None:
    openings = Openings()
    went = far(openings, DIALLER, [number / 100 for number in range(100_000)])
    assert len(went) == MOST_FAR
    assert went[0] >= STEP_SECONDS
    assert all(later - at >= FAR_SECONDS - 1e-9 for at, later in pairwise(went))


def test_a_relay_that_says_ever_other_addresses_of_the_node_gets_no_more_sent() -> None:
    openings = Openings()
    went = 0
    for turn in range(100):
        own = ("192.0.2.1", 1024 + turn)
        for at in (10.0 * turn, 10.0 * turn + LATER):
            went += openings.next_hops(DIALLER, own, RELAY, at, proved=True) == ALL_THE_WAY
    assert went == MOST_FAR


@pytest.mark.parametrize("diallers", [REMEMBERED // 2, REMEMBERED * 2])
def test_few_packets_go_all_the_way_because_of_one_relay(diallers: int) -> None:
    openings = Openings()
    seconds, went = 60, 0
    for tick in range(seconds * 2):
        for number in range(diallers):
            went += len(far(openings, (f"198.51.100.{number % 250}", 1024 + number), [tick / 2]))
    assert went <= FAR_AT_ONCE + seconds * FAR_PER_SECOND
    # A relay that is honest is not kept from its own by one that is not.
    other = ("192.0.2.9", 4000)
    assert len(far(openings, other, [1000.0, 1000.0 + LATER], "203.0.113.2")) == 1


def test_addresses_of_one_network_count_as_one_relay_and_relays_are_forgotten() -> None:
    openings = Openings()
    went = 0
    for number in range(FAR_AT_ONCE * 2):
        dialler = ("2001:db8:9::1", 1024 + number)
        went += len(far(openings, dialler, [0.0, LATER], f"2001:db8::{number:x}"))
    assert went <= FAR_AT_ONCE + 1
    for number in range(RELAYS * 2):
        far(openings, ("198.51.100.1", 1024 + number), [10.0, 10.0 + LATER], f"203.0.113.{number}")
    assert len(openings._relays) == RELAYS
