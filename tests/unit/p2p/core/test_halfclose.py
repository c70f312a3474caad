import pytest

from kodo.p2p.core.framing import Flag
from kodo.p2p.core.halfclose import READ_TABLE, WRITE_TABLE, Event, HalfClose, ReadState, WriteState
from kodo.p2p.errors import PeerError, UsageError


def after(*events: Event) -> HalfClose:
    ways = HalfClose()
    for event in events:
        ways.on(event)
    return ways


def test_a_new_stream_is_open_both_ways():
    ways = HalfClose()
    assert ways.may_write
    assert ways.may_read
    assert not ways.done


def test_a_way_out_has_ended_only_when_fin_was_acknowledged():
    ways = HalfClose()
    assert ways.on(Event.LOCAL_CLOSE_WRITE) is Flag.FIN
    assert ways.write is WriteState.FIN_SENT
    assert not ways.may_write
    assert ways.on(Event.REMOTE_FIN_ACK) is None
    assert ways.write is WriteState.CLOSED
    assert ways.may_read


def test_a_fin_is_acknowledged_and_ends_the_way_in_only():
    ways = HalfClose()
    assert ways.on(Event.REMOTE_FIN) is Flag.FIN_ACK
    assert ways.read is ReadState.CLOSED
    assert ways.may_write
    assert not ways.done


@pytest.mark.parametrize(
    "order",
    [
        (Event.LOCAL_CLOSE_WRITE, Event.REMOTE_FIN_ACK, Event.REMOTE_FIN),
        (Event.LOCAL_CLOSE_WRITE, Event.REMOTE_FIN, Event.REMOTE_FIN_ACK),
        (Event.REMOTE_FIN, Event.LOCAL_CLOSE_WRITE, Event.REMOTE_FIN_ACK),
    ],
)
def test_the_channel_may_be_closed_when_both_ways_have_ended_in_any_order(order):
    *before, _ = order
    assert not after(*before).done
    ways = after(*order)
    assert ways.done
    assert (ways.write, ways.read) == (WriteState.CLOSED, ReadState.CLOSED)


def test_stop_sending_throws_payload_away_until_fin():
    ways = HalfClose()
    assert ways.on(Event.LOCAL_CLOSE_READ) is Flag.STOP_SENDING
    assert not ways.may_read
    ways.on(Event.REMOTE_DATA)
    assert ways.read is ReadState.STOPPED
    assert ways.on(Event.REMOTE_FIN) is Flag.FIN_ACK
    assert ways.read is ReadState.CLOSED


def test_a_stopped_writer_still_says_fin():
    ways = after(Event.REMOTE_STOP_SENDING)
    assert not ways.may_write
    assert ways.on(Event.LOCAL_CLOSE_WRITE) is Flag.FIN


def test_a_local_reset_ends_both_ways_and_is_said_once():
    ways = HalfClose()
    assert ways.on(Event.LOCAL_RESET) is Flag.RESET
    assert (ways.write, ways.read) == (WriteState.RESET, ReadState.RESET)
    assert ways.done
    assert ways.on(Event.LOCAL_RESET) is None


def test_a_remote_reset_ends_both_ways_and_is_not_answered():
    ways = HalfClose()
    assert ways.on(Event.REMOTE_RESET) is None
    assert ways.done
    assert ways.on(Event.LOCAL_RESET) is None


@pytest.mark.parametrize("event", [Event.LOCAL_RESET, Event.REMOTE_RESET, Event.CHANNEL_CLOSED])
def test_a_way_that_had_ended_in_order_stays_so(event):
    received = after(Event.REMOTE_FIN, event)
    assert (received.write, received.read) == (WriteState.RESET, ReadState.CLOSED)
    sent = after(Event.LOCAL_CLOSE_WRITE, Event.REMOTE_FIN_ACK, event)
    assert (sent.write, sent.read) == (WriteState.CLOSED, ReadState.RESET)


def test_what_arrives_after_our_reset_means_nothing():
    ways = after(Event.LOCAL_RESET)
    for event in (Event.REMOTE_DATA, Event.REMOTE_FIN, Event.REMOTE_FIN_ACK, Event.REMOTE_STOP_SENDING):
        assert ways.on(event) is None
    assert (ways.write, ways.read) == (WriteState.RESET, ReadState.RESET)


def test_a_channel_that_closes_without_fin_breaks_both_ways():
    ways = after(Event.CHANNEL_CLOSED)
    assert (ways.write, ways.read) == (WriteState.RESET, ReadState.RESET)


def test_a_channel_that_closes_after_we_stopped_reading_has_broken_nothing_that_we_wanted():
    ways = after(Event.LOCAL_CLOSE_READ, Event.CHANNEL_CLOSED)
    assert (ways.write, ways.read) == (WriteState.RESET, ReadState.CLOSED)


def test_a_channel_that_closes_before_a_stopped_writer_said_fin_breaks_the_way_out():
    ways = after(Event.REMOTE_STOP_SENDING, Event.CHANNEL_CLOSED)
    assert (ways.write, ways.read) == (WriteState.RESET, ReadState.RESET)


def test_a_channel_that_closes_instead_of_fin_ack_ends_the_way_out():
    ways = after(Event.REMOTE_FIN, Event.LOCAL_CLOSE_WRITE, Event.CHANNEL_CLOSED)
    assert (ways.write, ways.read) == (WriteState.CLOSED, ReadState.CLOSED)


@pytest.mark.parametrize(
    ("before", "event", "error"),
    [
        ([Event.LOCAL_CLOSE_WRITE], Event.LOCAL_CLOSE_WRITE, UsageError),
        ([Event.LOCAL_RESET], Event.LOCAL_CLOSE_WRITE, UsageError),
        ([Event.LOCAL_CLOSE_READ], Event.LOCAL_CLOSE_READ, UsageError),
        ([Event.REMOTE_FIN], Event.LOCAL_CLOSE_READ, UsageError),
        ([Event.REMOTE_FIN], Event.REMOTE_FIN, PeerError),
        ([Event.REMOTE_FIN], Event.REMOTE_DATA, PeerError),
        ([], Event.REMOTE_FIN_ACK, PeerError),
        ([Event.REMOTE_STOP_SENDING], Event.REMOTE_FIN_ACK, PeerError),
        ([Event.LOCAL_CLOSE_WRITE, Event.REMOTE_FIN_ACK], Event.REMOTE_FIN_ACK, PeerError),
    ],
)
def test_an_impossible_event_raises_and_changes_nothing(before, event, error):
    ways = after(*before)
    stood = (ways.write, ways.read)
    with pytest.raises(error, match=event.name):
        ways.on(event)
    assert (ways.write, ways.read) == stood


def test_flags_that_arrive_have_their_events():
    assert {Event.of(flag) for flag in Flag} == {
        Event.REMOTE_FIN,
        Event.REMOTE_STOP_SENDING,
        Event.REMOTE_RESET,
        Event.REMOTE_FIN_ACK,
    }


def test_every_state_of_both_tables_can_be_reached():
    assert set(WRITE_TABLE.values()) == set(WriteState) - {WriteState.OPEN}
    assert set(READ_TABLE.values()) == set(ReadState)


def test_both_ways_know_how_to_break_from_every_state():
    for event in (Event.LOCAL_RESET, Event.REMOTE_RESET, Event.CHANNEL_CLOSED):
        assert {state for state, known in WRITE_TABLE if known is event} == set(WriteState)
        assert {state for state, known in READ_TABLE if known is event} == set(ReadState)
