"""Which path a dialler takes: what is checked when, and what an answer, or none, changes."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.paths import (
    AWAITED_SECONDS,
    IDLE_SECONDS,
    LATE_SECONDS,
    QUIET_SECONDS,
    UNANSWERED,
    UNANSWERED_THOUGH_HEARD,
    Candidate,
    Change,
    Paths,
    Rank,
    Target,
    rank_targets,
)

NEAR, FAR, OTHER = Target("192.168.1.9", 1), Target("203.0.113.9", 1), Target("203.0.113.10", 1)
BRIDGE = Target("172.17.0.1", 1)
CANDIDATES = [Candidate(NEAR, Rank.NEAR), Candidate(FAR, Rank.FAR), Candidate(OTHER, Rank.FAR)]
ME, ME_ELSEWHERE = ("198.51.100.1", 5000), ("198.51.100.2", 5000)
RTT = 0.03


def networks(*texts: str) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    return [ipaddress.ip_interface(text) for text in texts]


HERE = networks("127.0.0.1/8", "::1/128", "192.168.1.5/24", "172.17.0.1/16", "fe80::5/64", "2001:db8:5::5/64")


@pytest.mark.parametrize(
    ("hosts", "order"),
    [
        # Its own network before routed ones; the bridges of its containers last, and marked.
        (
            ["172.18.0.1", "10.8.0.1", "8.8.4.4", "192.168.1.9"],
            ["192.168.1.9", "8.8.4.4", "172.18.0.1!", "10.8.0.1!"],
        ),
        # A bridge that has the same address here is somebody else's, where the peer has an address of its own.
        (["172.17.0.1", "192.168.1.9"], ["192.168.1.9", "172.17.0.1!"]),
        # All of them are this machine's: the peer is on it.
        (["172.17.0.1", "192.168.1.5", "127.0.0.1"], ["127.0.0.1", "172.17.0.1", "192.168.1.5"]),
        (["8.8.4.4", "2001:db8:5::9", "fe80::9"], ["2001:db8:5::9", "fe80::9", "8.8.4.4"]),
        (["172.18.0.1", "10.8.0.1"], ["172.18.0.1", "10.8.0.1"]),  # nothing is worth waiting for
    ],
)
def test_addresses_are_ordered_by_how_near_they_are(hosts: list[str], order: list[str]) -> None:
    found = rank_targets([Target(host, 1) for host in hosts], HERE)
    assert [each.target.host + "!" * each.late for each in found] == order


@pytest.mark.parametrize(
    ("host", "rank"),
    [("127.0.0.1", Rank.NEAR), ("192.168.1.9", Rank.NEAR), ("10.8.0.1", Rank.FAR), ("203.0.113.9", Rank.FAR)],
)
def test_what_is_in_a_network_of_this_machine_is_near(host: str, rank: Rank) -> None:
    assert [each.rank for each in rank_targets([Target(host, 1)], HERE)] == [rank]


def run(paths: Paths, until: float, answering: dict[Target, tuple[str, int]]) -> list[tuple[float, Target]]:
    """Let time pass: what answers does so after `RTT`. Returns what was checked when."""
    sent: list[tuple[float, Target]] = []
    answers: list[tuple[float, float, Target]] = []
    while True:
        timer = paths.get_timer()
        times = ([] if timer is None else [timer]) + [at for at, _, _ in answers[:1]]
        if not times or min(times) > until:
            return sent
        now = min(times)
        while answers and answers[0][0] <= now:
            _, asked, target = answers.pop(0)
            if target in answering:
                paths.answered(target, answering[target], now, now - asked)
        for target in paths.take_due(now):
            sent.append((now, target))
            answers.append((now + RTT, now, target))


def held(candidates: list[Candidate] = CANDIDATES, over: Target = FAR) -> Paths:
    """The paths of a link that is settled over one of them at time 0."""
    paths = Paths(candidates, -RTT)
    paths.take_due(-RTT)
    assert paths.answered(over, ME, 0.0, RTT) is Change.MOVED
    paths.settled = True
    return paths


def times(sent: list[tuple[float, Target]], target: Target) -> list[float]:
    return [round(at, 3) for at, each in sent if each == target]


def test_all_addresses_are_checked_at_once_and_late_ones_soon_after() -> None:
    paths = Paths([*CANDIDATES, Candidate(BRIDGE, Rank.FAR, late=True)], 0.0)
    assert set(paths.take_due(0.0)) == {NEAR, FAR, OTHER}
    assert times(run(paths, 0.5, {}), BRIDGE)[0] == LATE_SECONDS


def test_late_addresses_are_checked_at_once_when_the_others_are_refused() -> None:
    paths = Paths([*CANDIDATES, Candidate(BRIDGE, Rank.FAR, late=True)], 0.0)
    paths.take_due(0.0)
    for target in (NEAR, FAR, OTHER):
        paths.refused(target)
    assert not paths.all_refused
    assert paths.take_due(0.001) == [BRIDGE]
    paths.refused(BRIDGE)
    assert paths.all_refused
    assert paths.get_timer() is None


def test_checks_without_an_answer_are_repeated_ever_more_rarely() -> None:
    paths = Paths([Candidate(FAR, Rank.FAR)], 0.0)
    assert times(run(paths, 4.0, {}), FAR) == [0.0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55]


def test_the_first_answer_chooses_and_until_the_link_is_settled_none_other_does() -> None:
    paths = Paths(CANDIDATES, 0.0)
    assert paths.answered(FAR, ME, 0.1, RTT) is Change.MOVED
    assert paths.answered(NEAR, ME, 0.2, RTT) is Change.NOTHING
    assert paths.current == FAR
    paths.settled = True
    assert paths.answered(OTHER, ME, 0.3, RTT) is Change.NOTHING
    assert paths.answered(NEAR, ME, 0.4, RTT) is Change.MOVED
    assert paths.answered(FAR, ME, 0.5, RTT) is Change.NOTHING


def test_better_addresses_are_checked_often_at_first_and_then_rarely() -> None:
    sent = times(run(held(), 60.0, {FAR: ME}), NEAR)
    assert len([at for at in sent if at <= 4]) >= 6
    late = [at for at in sent if at > 5]
    assert all(b - a == pytest.approx(IDLE_SECONDS) for a, b in itertools.pairwise(late))
    assert len(late) >= 4


def test_a_late_address_does_not_replace_a_path_that_works() -> None:
    paths = held([Candidate(FAR, Rank.FAR), Candidate(BRIDGE, Rank.NEAR, late=True)])
    assert not times(run(paths, 60.0, {FAR: ME, BRIDGE: ME}), BRIDGE)


def test_silence_while_something_is_awaited_is_asked_about_soon_then_ever_more_rarely() -> None:
    sent = times(run(held(over=NEAR), 30.0, {NEAR: ME}), NEAR)
    assert sent[0] == QUIET_SECONDS
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(sent)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == AWAITED_SECONDS


def test_while_packets_come_a_check_goes_only_now_and_then() -> None:
    paths, sent = held(over=NEAR), []
    for step in range(1000):
        paths.heard(step / 50)
        for at, _ in run(paths, step / 50, {}):
            sent.append(at)
            paths.answered(NEAR, ME, step / 50, RTT)
    assert 7 <= len(sent) <= 20 / AWAITED_SECONDS + 1


def test_an_idle_path_is_checked_rarely() -> None:
    paths = held(over=NEAR)
    paths.awaiting = False
    sent = times(run(paths, 100.0, {NEAR: ME}), NEAR)
    assert sent == [pytest.approx(IDLE_SECONDS * n) for n in range(1, 11)]


def test_an_answer_that_sees_us_elsewhere_is_told_once() -> None:
    paths = held(over=NEAR)
    assert paths.answered(NEAR, ME, 1.0, RTT) is Change.NOTHING
    assert paths.answered(NEAR, ME_ELSEWHERE, 2.0, RTT) is Change.REMAPPED
    assert paths.answered(NEAR, ME_ELSEWHERE, 3.0, RTT) is Change.NOTHING


def test_a_better_address_that_has_answered_too_early_to_be_taken_is_asked_again_once_it_can_be() -> None:
    paths = Paths([Candidate(FAR, Rank.RELAYED), Candidate(OTHER, Rank.FAR)], 0.0)
    paths.take_due(0.0)
    assert paths.answered(FAR, ME, 0.1, RTT) is Change.MOVED
    run(paths, 0.35, {})
    assert paths.answered(OTHER, ME, 0.35, RTT) is Change.NOTHING
    paths.settle(0.36)
    assert paths.take_due(0.36) == [OTHER]
    assert paths.answered(OTHER, ME, 0.4, RTT) is Change.MOVED


def test_a_path_that_answers_no_more_is_left_for_one_that_does_but_not_at_the_first_loss() -> None:
    paths = held()
    paths.take_due(QUIET_SECONDS)
    assert paths.answered(OTHER, ME, 0.3, RTT) is Change.NOTHING
    sent = run(paths, 5.0, {OTHER: ME})
    assert paths.current == OTHER
    unanswered = [at for at, target in sent if target == FAR and at < times(sent, OTHER)[0] - 1e-9]
    assert len(unanswered) + 1 >= UNANSWERED
    assert times(sent, OTHER)[0] < 2.0


def test_a_path_that_answers_again_is_kept() -> None:
    paths = held()
    run(paths, 0.7, {})
    paths.answered(FAR, ME, 0.8, RTT)
    assert paths.answered(OTHER, ME, 0.9, RTT) is Change.NOTHING
    assert paths.current == FAR


def test_data_shows_that_a_path_works() -> None:
    paths = held()
    run(paths, 5.0, {})
    paths.heard(5.0)
    assert paths.answered(OTHER, ME, 5.1, RTT) is Change.NOTHING


def test_a_path_by_which_data_comes_and_no_answer_is_given_up_in_the_end() -> None:
    paths = held()
    asked = 0
    for step in range(1000):
        now = step / 50
        paths.heard(now)  # the peer repeats what nobody acknowledges
        asked += paths.take_due(now).count(FAR)
        if asked > UNANSWERED_THOUGH_HEARD:
            break
        assert paths.answered(OTHER, ME, now, RTT) is Change.NOTHING
    assert paths.answered(OTHER, ME, now, RTT) is Change.MOVED


def test_when_this_machines_networks_change_the_path_and_better_ones_are_checked_at_once() -> None:
    paths = held()
    paths.awaiting = False
    run(paths, 9.0, {FAR: ME})
    paths.networks_changed(9.5)
    assert set(paths.take_due(9.5)) == {FAR, NEAR}


STEPS = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.sampled_from(["answer", "refuse", "hear", "due", "networks", "settle", "await", "idle"]),
        st.sampled_from([NEAR, FAR, OTHER]),
        st.sampled_from([ME, ME_ELSEWHERE]),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_checks_are_bounded_and_a_path_is_only_left_for_one_that_answered(
    steps: list[tuple[float, str, Target, tuple[str, int]]],
) -> None:
    paths, now = Paths(CANDIDATES, 0.0), 0.0
    for wait, what, target, mapped in steps:
        now += wait
        before = paths.current
        match what:
            case "answer":
                change = paths.answered(target, mapped, now, RTT)
                assert (change is Change.MOVED) == (paths.current != before)
                assert paths.current in (before, target)
            case "refuse":
                paths.refused(target)
            case "hear" if before is not None:
                paths.heard(now)
            case "networks":
                paths.networks_changed(now)
            case "settle":
                paths.settled = before is not None
            case "await" | "idle":
                paths.awaiting = what == "await"
            case "due":
                due = paths.take_due(now)
                assert len(due) == len(set(due))
                timer = paths.get_timer()
                assert timer is None or timer > now  # so nobody can have it check without end
        if what != "answer":
            assert paths.current == before
        if before is not None:
            assert paths.get_timer() is not None


PLACES = [Target(f"203.0.113.{number}", 1) for number in range(5)]
TABLES = st.lists(
    st.tuples(
        st.sampled_from(Rank), st.booleans(), st.sampled_from(["silent", "refused", "dropped", "answers", "dies"])
    ),
    min_size=1,
    max_size=len(PLACES),
)
MOST_CHECKS = 16
"""Of one target in a second: six from anew, after the beginning and each move to a better rank, or of a lost path."""


@given(TABLES, st.booleans())
def test_whatever_is_refused_no_target_is_checked_without_end(
    table: list[tuple[Rank, bool, str]], settled: bool
) -> None:
    behaviour = {target: what for target, (_, _, what) in zip(PLACES, table, strict=False)}
    candidates = [Candidate(target, rank, late) for target, (rank, late, _) in zip(PLACES, table, strict=False)]
    paths, now, sent = Paths(candidates, 0.0), 0.0, list[float]()
    while (timer := paths.get_timer()) is not None and timer <= 10.0:
        now = max(now, timer)
        for target in paths.take_due(now):
            sent.append(now)
            assert len([at for at in sent if at > now - 1]) <= MOST_CHECKS * len(table)
            match behaviour[target]:
                case "refused":
                    paths.refused(target)
                case "dropped":
                    paths.drop(target)
                case "answers":
                    paths.answered(target, ME, now, RTT)
                case "dies":
                    paths.answered(target, ME, now, RTT)
                    behaviour[target] = "refused"
        paths.settled = settled and paths.current is not None
    assert paths.current is not None or timer is not None or paths.all_refused


def test_late_addresses_are_checked_at_once_when_this_machine_has_no_way_to_the_others() -> None:
    paths = Paths([Candidate(FAR, Rank.FAR), Candidate(BRIDGE, Rank.FAR, late=True)], 0.0)
    paths.take_due(0.0)
    paths.drop(FAR)
    assert paths.targets == [BRIDGE]
    assert paths.take_due(0.0) == [BRIDGE]
    paths.drop(BRIDGE)
    assert paths.all_refused
    assert paths.get_timer() is None


def test_a_refused_address_does_not_have_the_late_ones_checked_again_and_again() -> None:
    paths = Paths([Candidate(FAR, Rank.FAR), Candidate(BRIDGE, Rank.FAR, late=True)], 0.0)
    paths.take_due(0.0)
    for _ in range(3):
        paths.refused(FAR)
        assert paths.take_due(0.001) in ([BRIDGE], [])
    assert paths.get_timer() == pytest.approx(0.001 + 0.05)
