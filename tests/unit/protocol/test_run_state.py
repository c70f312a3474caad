"""The one rule of a run's state, by which a node's log and a follower's view must agree."""

from __future__ import annotations

import pytest

from kodo.protocol.events import EVENTS
from kodo.protocol.run_state import Head, RunState, ends, launched_state, reduce


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], RunState.PENDING),
        (["progress"], RunState.PENDING),
        (["lock"], RunState.LOCKED),
        (["lock", "unlock-deny"], RunState.LOCKED),
        (["lock", "unlock"], RunState.PENDING),
        (["lock", "lock-timeout"], RunState.PENDING),
        (["lock", "final"], RunState.DONE),
        (["lock", "fatal"], RunState.ERROR),
        (["final", "fatal"], RunState.ERROR),
        (["fatal", "final"], RunState.ERROR),
        (["final", "acknowledge"], RunState.DONE),
    ],
)
def test_the_state_is_what_the_events_make_it(events: list[str], state: RunState) -> None:
    head = Head()
    for event in events:
        head = reduce(head, event, {"lid": "a"})
    assert head.state is state


def test_what_ends_a_run_is_what_makes_it_over() -> None:
    for event in EVENTS:
        assert ends(event) == reduce(Head(), event, {}).state.over


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"state": "pending", "queue_position": 2}, "queued"),
        ({"state": "pending", "queue_position": None}, "running"),
        ({"state": "done", "queue_position": None}, "done"),
        ({"state": "pending"}, "pending"),  # of a node that is older
    ],
)
def test_a_run_that_was_launched_is_queued_or_running_where_the_node_tells(
    answer: dict[str, object], shown: str
) -> None:
    assert launched_state(answer) == shown
