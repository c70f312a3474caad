"""A follower's view of a run and its node's log come to the same state, whatever the events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kodo.protocol.events import Event, RunView
from kodo.protocol.run_state import Head, reduce

LIDS = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["lock", "unlock", "lock-timeout", "unlock-deny", "log", "final", "fatal", "acknowledge"])


@given(st.lists(st.tuples(NAMES, LIDS), max_size=20))
def test_a_follower_sees_the_state_that_the_log_has(said: list[tuple[str, str]]) -> None:
    head, view = Head(), RunView()
    for seq, (event, lid) in enumerate(said, 1):
        data = {"lid": lid}
        head = reduce(head, event, data)
        view.apply(Event(seq, 1, "", event, data))
        assert (view.state, set(view.locks)) == (head.state, set(head.locks))
