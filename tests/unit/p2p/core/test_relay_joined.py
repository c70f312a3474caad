"""A relay's channel numbers, and datagrams as the kernel has joined them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core import relay_wire
from kodo.p2p.core.relay import (
    UNPROVED_SECONDS,
)
from tests.unit.p2p.core.test_relay import AT_NODE, DIALLER, FIRST, RECORD, At, Scene


def datagram(kind: str, size: int, channel: int) -> bytes:
    """Return a datagram of so many bytes, if it can have so many."""
    frames = {"frame": channel, "frame of another channel": channel + 1, "frame of nobody": 0x4777}
    body = bytes([{"record": 23, "handshake": 22, "frame": 23, "stun": 1}.get(kind, 200)]) + bytes(size - 1)
    if kind in frames:
        return relay_wire.frame(frames[kind], [b"\x17" + body[5:]])[0]
    if kind == "frame that lies":
        return channel.to_bytes(2, "big") + (size + 9).to_bytes(2, "big") + body[4:]
    if kind == "frame of no record":
        return channel.to_bytes(2, "big") + (size - 4).to_bytes(2, "big") + b"\xff" + body[5:]
    return body


def taken(it: Scene) -> list[tuple[object, list[bytes]]]:
    return [(to, [data for piece in pieces for data in piece.datagrams()]) for to, pieces in it.relay.take(it.now)]


KINDS = [
    "record", "handshake", "stun", "garbage", "frame", "frame of another channel", "frame of nobody",
    "frame that lies", "frame of no record",
]  # fmt: skip
alike = st.sampled_from(KINDS).flatmap(lambda kind: st.integers(1, 12).map(lambda count: [kind] * count))


@given(
    st.one_of(alike, st.lists(st.sampled_from(KINDS), min_size=1, max_size=8)),
    st.sampled_from([6, 60, 1204, 5000]),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
)
def test_datagrams_that_the_kernel_has_joined_do_what_each_of_them_does(
    kinds: list[str], size: int, last: int, from_node: bool, proves: bool
) -> None:
    one, joined = Scene(rate_per_channel=50_000, burst=20_000), Scene(rate_per_channel=50_000, burst=20_000)
    for it in (one, joined):
        it.connect(At("198.51.100.9", 9))
        channel = it.connect(proves=proves)
    source = AT_NODE if from_node else DIALLER
    datagrams = [datagram(kind, size, channel) for kind in kinds]
    if last:
        datagrams.append(datagram(kinds[-1], size, channel)[:last])
    for data in datagrams:
        one.relay.received(data, source, one.now)
    joined.relay.received_block(b"".join(datagrams), size, source, joined.now)
    assert taken(joined) == taken(one)
    assert (joined.relay.relayed, joined.relay.dropped) == (one.relay.relayed, one.relay.dropped)
    # And what a dialler may still be sent is the same.
    for it in (one, joined):
        for data in relay_wire.frame(channel, [RECORD] * 30):
            it.relay.received(data, AT_NODE, it.now)
    assert taken(joined) == taken(one)


def test_channel_numbers_come_back_as_late_as_possible() -> None:
    it = Scene(new_per_s=10_000, burst=1 << 30)
    numbers = []
    for port in range(1, relay_wire.LAST_CHANNEL - FIRST + 3):
        numbers.append(it.connect(At("198.51.100.1", port), proves=False))
        it.relay.expire(it.now + UNPROVED_SECONDS)
    assert numbers[-1] == FIRST
    assert len(set(numbers)) == len(numbers) - 1
