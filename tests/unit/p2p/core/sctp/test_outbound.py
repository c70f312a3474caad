from kodo.p2p.core.sctp.outbound import Outbound, OutboundStream


def taken(outbound, room=100):
    found = []
    while (fragment := outbound.take(room)) is not None:
        found.append(fragment)
    return found


def test_a_short_message_goes_whole():
    outbound, stream = Outbound(100), OutboundStream(4)
    outbound.put(stream, 53, b"abc")
    assert outbound.queued == 3
    assert taken(outbound) == [(3, 4, 0, 53, b"abc")]
    assert outbound.queued == 0
    assert not outbound


def test_a_long_message_is_cut_and_put_together_again():
    outbound, stream = Outbound(400), OutboundStream(4)
    message = bytes(range(250)) * 5
    outbound.put(stream, 53, message)
    found = taken(outbound, 400)
    assert [flags for flags, *_ in found] == [2, 0, 0, 1]
    assert b"".join(data for *_, data in found) == message


def test_channels_take_turns_by_message():
    outbound, first, second = Outbound(100), OutboundStream(0), OutboundStream(2)
    for text in (b"a", b"b", b"c"):
        outbound.put(first, 53, text)
    outbound.put(second, 53, b"x")
    outbound.put(second, 53, b"y")
    assert [data for *_, data in taken(outbound)] == [b"a", b"x", b"b", b"y", b"c"]


def test_fragments_of_two_messages_are_never_mixed():
    outbound, first, second = Outbound(400), OutboundStream(0), OutboundStream(2)
    outbound.put(first, 53, bytes(1000))
    outbound.put(second, 53, bytes(1000))
    assert [stream for _, stream, *_ in taken(outbound, 400)] == [0, 0, 0, 2, 2, 2]


def test_a_message_that_fits_into_a_packet_is_not_cut_to_fill_another():
    outbound, stream = Outbound(1000), OutboundStream(0)
    outbound.put(stream, 53, bytes(900))
    assert outbound.take(500) is None
    assert outbound.take(1000) is not None


def test_sequence_numbers_of_a_stream_wrap_around():
    outbound, stream = Outbound(100), OutboundStream(0)
    stream.sequence = 65_535
    outbound.put(stream, 53, b"a")
    outbound.put(stream, 53, b"b")
    assert [sequence for _, _, sequence, *_ in taken(outbound)] == [65_535, 0]


def test_what_is_dropped_never_goes_and_what_is_half_out_is_ended():
    outbound, first, second = Outbound(400), OutboundStream(0), OutboundStream(2)
    message = bytes(range(250)) * 4
    for data in (message, b"b", b"c"):
        outbound.put(first, 53, data)
    outbound.put(second, 53, b"x")
    begun = outbound.take(400)
    outbound.drop(first)
    outbound.put(first, 53, b"reset")
    assert outbound.queued == len(message) - 400 + len(b"x" + b"reset")
    found = [begun, *taken(outbound, 400)]
    assert b"".join(data for _, stream, *_, data in found if stream == 0) == message + b"reset"
    assert [sequence for flags, stream, sequence, *_ in found if stream == 0 and flags & 1] == [0, 1]
    assert outbound.queued == 0


def test_what_was_dropped_whole_leaves_no_turn():
    outbound, first, second = Outbound(400), OutboundStream(0), OutboundStream(2)
    outbound.drop(first)
    outbound.put(first, 50, b"announcement")
    outbound.put(first, 53, b"a")
    outbound.put(second, 53, b"x")
    outbound.drop(first)
    outbound.drop(second)
    assert [data for *_, data in taken(outbound)] == [b"announcement"]
    assert not outbound
    assert outbound.queued == 0
