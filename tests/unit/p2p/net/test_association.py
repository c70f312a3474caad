"""What a peer may make an association keep and compute, by packets that only a hostile one sends.

Single methods are given chunks as they come out of the parser; that the whole still speaks SCTP is shown where
sessions are tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    DataChunk,
    ForwardTsnChunk,
    SackChunk,
    serialize_packet,
)

from kodo.p2p.errors import PeerError
from kodo.p2p.net import webrtc
from kodo.p2p.net.webrtc import Association

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
BEFORE = 0xFFFFFFFF
"""The last TSN that had come when a test begins: the next one is 0."""


class _Dtls:
    state, _role = "connected", "server"

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def _send_data(self, data: bytes) -> None:
        self.sent.append(data)


class _Link:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.errors: list[Exception] = []

    def message_received(self, stream_id: int, data: bytes) -> None:
        self.messages.append(data)

    def fail(self, error: Exception) -> None:
        self.errors.append(error)

    def acknowledged(self) -> None:
        pass

    def left_queue(self, count: int) -> None:
        pass


def chunk(tsn: int, data: bytes = b"x", flags: int = WHOLE, stream: int = 2, seq: int = 0) -> DataChunk:
    made = DataChunk()
    made.tsn, made.stream_id, made.stream_seq, made.flags = tsn & 0xFFFFFFFF, stream, seq & 0xFFFF, flags
    made.protocol, made.user_data = WEBRTC_BINARY, data
    return made


def run(work: Callable[[Association, _Link], Coroutine[Any, Any, None]]) -> None:
    async def body() -> None:
        link = _Link()
        association = Association(cast("Any", _Dtls()), cast("Any", link))
        association._remote_port = 5000
        association._last_received_tsn = BEFORE
        await work(association, link)

    asyncio.run(body())


async def feed(association: Association, each: Any) -> None:
    await association._handle_data(serialize_packet(5000, 5000, association._local_verification_tag, each))


def test_gap_blocks_cost_no_more_than_what_was_sent() -> None:
    async def work(association: Association, link: _Link) -> None:
        sack = SackChunk()
        sack.cumulative_tsn = association._last_sacked_tsn
        sack.gaps = [(1, 65535)] * 200
        assert association._gaps_of_what_was_sent(sack) == []
        association._local_tsn = (association._local_tsn + 10) & 0xFFFFFFFF
        assert association._gaps_of_what_was_sent(sack) == [(1, 10)]
        sack.gaps = [(2, 3), (3, 5), (9, 8), (7, 7), (4, 4)]
        assert association._gaps_of_what_was_sent(sack) == [(2, 3), (4, 5), (7, 7)]
        sack.gaps = [(5, 3)]
        await feed(association, sack)
        assert link.errors == []

    run(work)


def test_misordered_chunks_are_kept_and_those_far_ahead_are_not() -> None:
    async def work(association: Association, link: _Link) -> None:
        count = webrtc.MISORDERED_CHUNKS
        for tsn in range(1, 2 * count):
            await feed(association, chunk(tsn, seq=tsn))
        assert len(association._sack_misordered) == count - 1
        await feed(association, chunk(0, seq=0))
        assert (len(link.messages), association._last_received_tsn, association._sack_misordered) == (
            count,
            count - 1,
            set(),
        )
        assert association._advertised_rwnd == association._window_size - count
        await feed(association, chunk(0, seq=0))
        assert (len(link.messages), link.errors) == (count, [])

    run(work)


def test_a_message_that_does_not_end_ends_the_link() -> None:
    async def work(association: Association, link: _Link) -> None:
        for tsn in range(webrtc.MESSAGE_CHUNKS + 1):
            await feed(association, chunk(tsn, flags=0 if tsn else SCTP_DATA_FIRST_FRAG))
        assert [type(error) for error in link.errors] == [PeerError]

    run(work)


def test_messages_that_wait_for_one_that_never_comes_end_the_link() -> None:
    async def work(association: Association, link: _Link) -> None:
        for tsn in range(webrtc.MESSAGE_CHUNKS + 1):
            await feed(association, chunk(tsn, stream=2 * tsn, seq=1))
        assert [type(error) for error in link.errors] == [PeerError]

    run(work)


def test_streams_without_number_end_the_link() -> None:
    async def work(association: Association, link: _Link) -> None:
        for tsn in range(webrtc.INBOUND_STREAMS + 1):
            assert link.errors == []
            await feed(association, chunk(tsn, stream=tsn))
        assert [type(error) for error in link.errors] == [PeerError]

    run(work)


@pytest.mark.parametrize("pieces", [1, 16, webrtc.MESSAGE_CHUNKS])
def test_a_message_in_pieces_arrives(pieces: int) -> None:
    async def work(association: Association, link: _Link) -> None:
        for tsn in range(pieces):
            first = SCTP_DATA_FIRST_FRAG if tsn == 0 else 0
            last = SCTP_DATA_LAST_FRAG if tsn == pieces - 1 else 0
            await feed(association, chunk(tsn, bytes([tsn]) * 250, first | last))
        assert link.messages == [b"".join(bytes([each]) * 250 for each in range(pieces))]
        assert (association._chunks_kept, link.errors) == (0, [])

    run(work)


def _announcement(tsn: int) -> DataChunk:
    made = chunk(tsn, b"\x03" + bytes(webrtc.DCEP_BYTES))
    made.protocol = WEBRTC_DCEP
    return made


def _skip() -> ForwardTsnChunk:
    made = ForwardTsnChunk()
    made.cumulative_tsn = 1000
    return made


@pytest.mark.parametrize(
    "bad",
    [
        chunk(0, b"x", WHOLE | SCTP_DATA_UNORDERED),
        chunk(0, b""),
        chunk(0, bytes(webrtc.MESSAGE_BYTES + 1 - 2000)),
        _announcement(0),
        _skip(),
    ],
    ids=["unordered", "empty", "too long", "announcement", "skip"],
)
def test_what_no_honest_peer_sends_ends_the_link(bad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "MESSAGE_BYTES", webrtc.MESSAGE_BYTES - 2000)  # a chunk has less than 64 KiB

    async def work(association: Association, link: _Link) -> None:
        await feed(association, bad)
        assert [type(error) for error in link.errors] == [PeerError]
        assert link.messages == []

    run(work)


def test_data_before_the_association_is_set_up_ends_the_link() -> None:
    async def work(association: Association, link: _Link) -> None:
        association._last_received_tsn = None
        await feed(association, chunk(0))
        assert [type(error) for error in link.errors] == [PeerError]

    run(work)
