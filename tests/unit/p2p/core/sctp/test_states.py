import pytest

from kodo.p2p.core.sctp.states import (
    ASSOCIATION_TABLE,
    CHANNEL_TABLE,
    AssociationEvent,
    AssociationState,
    ChannelState,
    ChannelStep,
    next_association_state,
    next_channel_state,
)


def reachable(table, start):
    found, more = {start}, [start]
    while more:
        state = more.pop()
        for (before, _), after in table.items():
            if before is state and after not in found:
                found.add(after)
                more.append(after)
    return found


def test_every_state_can_be_reached():
    assert reachable(ASSOCIATION_TABLE, AssociationState.NEW) == set(AssociationState)
    assert reachable(CHANNEL_TABLE, ChannelState.OPEN) == set(ChannelState)


def test_every_event_moves_something():
    assert {event for _, event in ASSOCIATION_TABLE} == set(AssociationEvent)
    assert {step for _, step in CHANNEL_TABLE} == set(ChannelStep)


@pytest.mark.parametrize("state", AssociationState)
def test_an_association_can_end_from_anywhere_and_then_stays_closed(state):
    assert next_association_state(state, AssociationEvent.END) is AssociationState.CLOSED
    after = {after for (before, _), after in ASSOCIATION_TABLE.items() if before is AssociationState.CLOSED}
    assert after == {AssociationState.CLOSED}


def test_nothing_leads_back_to_established():
    ended = reachable(ASSOCIATION_TABLE, AssociationState.SHUTDOWN_PENDING)
    assert AssociationState.ESTABLISHED not in ended
    assert AssociationState.SHUTDOWN_PENDING not in reachable(ASSOCIATION_TABLE, AssociationState.SHUTDOWN_SENT)


def test_what_is_not_in_a_table_is_not_possible():
    assert next_association_state(AssociationState.ESTABLISHED, AssociationEvent.INIT_ACK) is None
    assert next_channel_state(ChannelState.OPEN, ChannelStep.CONFIRMED) is None


def test_a_channel_closes_only_after_both_resets():
    closing = [step for (_, step), after in CHANNEL_TABLE.items() if after is ChannelState.CLOSED]
    assert sorted(step.name for step in closing) == ["CONFIRMED", "PEER_RESET"]
    for order in (
        [ChannelStep.CLOSE, ChannelStep.FLUSHED, ChannelStep.CONFIRMED, ChannelStep.PEER_RESET],
        [ChannelStep.CLOSE, ChannelStep.FLUSHED, ChannelStep.PEER_RESET, ChannelStep.CONFIRMED],
        [ChannelStep.CLOSE, ChannelStep.PEER_RESET, ChannelStep.FLUSHED, ChannelStep.CONFIRMED],
        [ChannelStep.PEER_RESET, ChannelStep.FLUSHED, ChannelStep.CONFIRMED],
    ):
        state: ChannelState | None = ChannelState.OPEN
        for step in order:
            assert state is not None
            assert state is not ChannelState.CLOSED
            state = next_channel_state(state, step)
        assert state is ChannelState.CLOSED
