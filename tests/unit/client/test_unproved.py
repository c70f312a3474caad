"""Runs that nothing proves: bounded, and what was forgotten is not trusted."""

from __future__ import annotations

import pytest

from kodo.client import unproved
from kodo.client.unproved import Unproved
from tests.support.records import identity

ONE, TWO, THREE = (identity(number).peer_id for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unproved, "MAX_RUNS", 3)
    monkeypatch.setattr(unproved, "MAX_NODES", 2)


def test_runs_are_unproved_until_they_are_proved() -> None:
    found = Unproved()
    found.add("a", ONE)
    found.add("b", ONE)
    found.add("a", TWO)
    assert (found.has("a", ONE), found.has("b", TWO), found.of(ONE)) == (True, False, ["a", "b"])
    found.discard("a", ONE)
    assert (found.has("a", ONE), found.has("a", TWO), found.of(ONE)) == (False, True, ["b"])


def test_of_a_node_with_too_many_all_are_doubted_and_of_others_none() -> None:
    found = Unproved()
    for number in range(10):
        found.add(str(number), ONE)
    found.discard("0", ONE)
    assert (found.has("0", ONE), found.has("never", ONE), found.of(ONE)) == (True, True, None)
    assert (found.has("0", TWO), found.of(TWO)) == (False, [])
    assert found._nodes == {ONE: None}


def test_with_too_many_nodes_all_are_doubted() -> None:
    found = Unproved()
    for node in (ONE, TWO, THREE):
        found.add("a", node)
    assert (found.has("b", THREE), found.has("b", identity(4).peer_id), found.of(ONE)) == (True, True, None)
    assert len(found._nodes) == 2
