"""What a channel passes to its link."""

from __future__ import annotations

import random

import pytest

from kodo.p2p.core.framing import MAX_PAYLOAD_BYTES, MessageReader, encode_message
from kodo.p2p.core.varint import decode_varint
from kodo.p2p.net.datachannel import DataChannel


class Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, channel_id: int, message: bytes, /) -> None:
        self.sent.append(message)

    def consumed(self, count: int, /) -> None: ...

    def drop_queued(self, channel_id: int, /) -> None: ...

    def close_channel(self, channel_id: int, /) -> None: ...


FRAMES = [
    encode_message(message=bytes(size)) for size in (0, 1, 1017, 4080, 4100, 5000, 8191, 9000, MAX_PAYLOAD_BYTES)
]


def read_as_go_libp2p(messages: list[bytes]) -> list[bytes]:
    """Read frames as Go's `bufio.Reader` of 4096 bytes does over messages: one that does not fit is lost.

    It fills its buffer with one message to learn a length, then reads the rest into its place: through the buffer
    again where less than that is missing.
    """
    frames, left = [], list(messages)
    while left:
        assert len(left[0]) <= 4096
        length, at = decode_varint(left[0])
        frame = left.pop(0)
        while len(frame) < at + length:
            assert len(left[0]) <= max(4096, at + length - len(frame))
            frame += left.pop(0)
        frames.append(frame)
    return frames


def test_frames_to_a_peer_that_may_be_go_libp2p_fit_its_buffer() -> None:
    link = Link()
    channel = DataChannel(link, 0, in_parts=True)
    frames = random.Random(1).choices(FRAMES, k=50)
    for frame in frames:
        channel.send(frame)
    assert read_as_go_libp2p(link.sent) == frames
    reader = MessageReader()
    assert sum(len(reader.feed(message)) for message in link.sent) == len(frames)


@pytest.mark.parametrize("frame", FRAMES, ids=len)
def test_frames_to_other_peers_go_whole(frame: bytes) -> None:
    link = Link()
    DataChannel(link, 0).send(frame)
    assert link.sent == [frame]
