"""What a byte of a peer costs has a constant bound, whatever association the peer has built before.

Each row is one kind of chunk or parameter, given to an association in which everything that can be long is long:
channels, closings that nobody confirms, gaps both ways, half messages, data that nobody acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import pack

import pytest

from kodo.p2p.core.sctp import ChannelOpened, Settings, association, wire
from kodo.p2p.core.sctp.channels import encode_open
from tests.support.operations import operations
from tests.support.sctp_network import Network
from tests.support.sctp_packets import data_chunk

CHANNELS, EARLY_CHANNELS, QUEUED, GAPS = 150, 17, 700, 1500
PACKETS, BUNDLED_PACKETS = 24, 6
"""Packets that one measurement takes, of one chunk and of as many as fit."""
TIMES = 16
"""What a byte may cost more than one of a small plain packet."""


class Worst:
    """The server of a network, after its peer has done what it can; made by `packet`, `chunks` are its peer's."""

    def __init__(self, *, early: bool) -> None:
        channels = EARLY_CHANNELS if early else CHANNELS
        settings = Settings(max_channels=CHANNELS, early_channels=channels if early else None)
        network = Network(settings=settings, tsn=(1000, 2000)).connect()
        self.side, self.now = network.server, network.now
        self.tsn, self.acknowledged, self.request = 999, 1999, 1000
        own = self.side.open_channel()
        for stream in range(0, 2 * (channels - 1), 2):
            self.give(data_chunk(self.next_tsn(), stream, 0, 50, encode_open("", "")))
            self.give(data_chunk(self.next_tsn(), stream, 1, flags=2))
        while (event := self.side.next_event()) is not None:
            if isinstance(event, ChannelOpened) and event.channel_id % 4:
                self.side.close_channel(event.channel_id)
        for _ in range(QUEUED):
            self.side.send(own, bytes(20))
        while self.side.datagrams_to_send(self.now):
            self.now += 0.001
        self.out = self.side._sender.recovery.next_tsn - (1 << 32) - self.acknowledged - 1
        assert self.out >= QUEUED
        for first in range(2, self.out - 1, 500):
            self.give(sack(self, 1 << 20, range(first, min(first + 500, self.out - 1), 2)))
        for ahead in range(3, GAPS, 2):
            self.give(data_chunk(self.tsn + ahead, 0, 9, flags=0))
        self.work()
        assert self.side.established

    def next_tsn(self) -> int:
        self.tsn += 1
        return self.tsn

    def next_request(self) -> int:
        self.request += 1
        return self.request - 1

    def give(self, chunks: bytes) -> None:
        self.side.receive_datagram(wire.PacketCodec(5000, 22).encode(chunks), self.now)

    def work(self) -> None:
        while self.side.next_event() is not None:
            pass
        self.side.datagrams_to_send(self.now)


def sack(worst: Worst, window: int, runs: Sequence[int] = (), duplicates: int = 0) -> bytes:
    body = pack(">IIHH", worst.acknowledged, window, len(runs), duplicates)
    return wire.encode_chunk(
        wire.SACK, body + b"".join(pack(">HH", run, run) for run in runs) + bytes(4 * duplicates)
    )


def reset(worst: Worst, *streams: int, last_tsn: int = 1000, request: int | None = None) -> bytes:
    number = worst.next_request() if request is None else request
    return wire.encode_reset_request(wire.ResetRequest(number, 1999, last_tsn, streams))


def re_config(*parameters: bytes) -> bytes:
    return wire.encode_chunk(wire.RE_CONFIG, b"".join(parameters))


def advance(worst: Worst) -> bytes:
    worst.acknowledged += 1
    return sack(worst, 1 << 20)


def request(kind: int) -> Callable[[Worst, int], bytes]:
    return lambda w, n: re_config(wire.encode_parameter(kind, w.next_request().to_bytes(4, "big") + bytes(8)))


def bare(kind: int, body: bytes = b"") -> Callable[[Worst, int], bytes]:
    return lambda w, n: wire.encode_chunk(kind, body)


ROWS: dict[str, tuple[int, Callable[[Worst, int], bytes]]] = {
    "data in order": (wire.DATA, lambda w, n: data_chunk(w.next_tsn(), 9, n)),
    "data behind a gap": (wire.DATA, lambda w, n: data_chunk(w.tsn + GAPS + 2 * n, 0, 9, flags=0)),
    "data far behind": (wire.DATA, lambda w, n: data_chunk(w.tsn + 60_000 - 2 * n, 0, 9, flags=0)),
    "data that fills a gap": (
        wire.DATA,
        lambda w, n: data_chunk(w.tsn + 1100 - 2 * n, 0, 9, flags=0),
    ),
    "data once more": (wire.DATA, lambda w, n: data_chunk(w.tsn + 1101 - 2 * n, 0, 9, flags=0)),
    "unordered data": (wire.DATA, lambda w, n: data_chunk(w.tsn + 1100 - 2 * n, 0, flags=4)),
    "a channel": (
        wire.DATA,
        lambda w, n: data_chunk(w.next_tsn(), 2000 + 2 * n, 0, 50, encode_open("", "")),
    ),
    "a channel again": (
        wire.DATA,
        lambda w, n: data_chunk(w.next_tsn(), 4, 9 + n, 50, encode_open("", ""), flags=7),
    ),
    "an acknowledgement": (wire.SACK, lambda w, n: advance(w)),
    "an acknowledgement again": (wire.SACK, lambda w, n: sack(w, 1 << 20)),
    "one run": (wire.SACK, lambda w, n: sack(w, 1 << 20, [w.out - 3 - 2 * (n % 300)])),
    "runs": (wire.SACK, lambda w, n: sack(w, 1 << 20, range(2 + n % 2, 500, 2))),
    "runs of the end": (
        wire.SACK,
        lambda w, n: sack(w, 1 << 20, range(w.out - 100 - n % 50, w.out - 3, 3)),
    ),
    "duplicates": (wire.SACK, lambda w, n: sack(w, 1 << 20, [], 4)),
    "a window that closes and opens": (wire.SACK, lambda w, n: sack(w, n % 2)),
    "INIT ACK": (wire.INIT_ACK, bare(wire.INIT_ACK, bytes(20))),
    "COOKIE ECHO": (wire.COOKIE_ECHO, bare(wire.COOKIE_ECHO, bytes(68))),
    "COOKIE ACK": (wire.COOKIE_ACK, bare(wire.COOKIE_ACK)),
    "HEARTBEAT": (wire.HEARTBEAT, bare(wire.HEARTBEAT, bytes(4))),
    "HEARTBEAT ACK": (wire.HEARTBEAT_ACK, bare(wire.HEARTBEAT_ACK, bytes(4))),
    "ERROR": (wire.ERROR, bare(wire.ERROR, pack(">HH", 6, 4) * 8)),
    "ABORT": (wire.ABORT, bare(wire.ABORT, pack(">HH", 12, 8) + b"why?")),
    "SHUTDOWN": (wire.SHUTDOWN, bare(wire.SHUTDOWN, bytes(4))),
    "SHUTDOWN ACK": (wire.SHUTDOWN_ACK, bare(wire.SHUTDOWN_ACK)),
    "SHUTDOWN COMPLETE": (wire.SHUTDOWN_COMPLETE, bare(wire.SHUTDOWN_COMPLETE)),
    "PAD": (wire.PAD, bare(wire.PAD)),
    "unknown, to be reported": (0xC7, bare(0xC7)),
    "RE-CONFIG without parameters": (wire.RE_CONFIG, bare(wire.RE_CONFIG)),
    "a reset of all": (wire.RE_CONFIG, lambda w, n: re_config(reset(w))),
    "a reset of all, twice": (wire.RE_CONFIG, lambda w, n: re_config(reset(w), reset(w))),
    "a reset of all, again": (
        wire.RE_CONFIG,
        lambda w, n: re_config(reset(w, request=w.request - 1)),
    ),
    "a reset of all, later": (
        wire.RE_CONFIG,
        lambda w, n: re_config(reset(w, last_tsn=w.tsn + n // 2)),
    ),
    "a reset of one": (wire.RE_CONFIG, lambda w, n: re_config(reset(w, 2))),
    "a reset of many": (wire.RE_CONFIG, lambda w, n: re_config(reset(w, *range(0, 64, 2)))),
    "a reset of the same": (wire.RE_CONFIG, lambda w, n: re_config(reset(w, *[2] * 32))),
    "a reset of nothing there": (
        wire.RE_CONFIG,
        lambda w, n: re_config(reset(w, *range(9001, 9065, 2))),
    ),
    "many parameters": (
        wire.RE_CONFIG,
        lambda w, n: re_config(*[reset(w) for _ in range(8)]),
    ),
    "an answer": (
        wire.RE_CONFIG,
        lambda w, n: re_config(
            wire.encode_parameter(wire.PARAMETER_RESET_RESPONSE, pack(">II", 2000 + n // 8, n % 8))
        ),
    ),
    "a reset of our streams": (wire.RE_CONFIG, request(wire.PARAMETER_RESET_INCOMING)),
    "a reset of the TSNs": (wire.RE_CONFIG, request(wire.PARAMETER_RESET_TSN)),
    "more streams": (wire.RE_CONFIG, request(wire.PARAMETER_ADD_STREAMS)),
    "more streams here": (wire.RE_CONFIG, request(wire.PARAMETER_ADD_STREAMS + 1)),
    "an unknown parameter": (wire.RE_CONFIG, lambda w, n: re_config(wire.encode_parameter(99, b""))),
}


def packets(worst: Worst, row: Callable[[Worst, int], bytes], *, bundled: bool) -> Iterator[bytes]:
    number, codec = 0, wire.PacketCodec(5000, 22)
    for _ in range(BUNDLED_PACKETS if bundled else PACKETS):
        chunks = row(worst, number)
        number += 1
        while bundled and len(chunks) < 1100 - 2 * 132:
            chunks += row(worst, number)
            number += 1
        yield codec.encode(chunks)


def cost(worst: Worst, given: Sequence[bytes]) -> float:
    """Bytecodes for each byte of packets that come one by one."""

    def work() -> None:
        for packet in given:
            worst.side.receive_datagram(packet, worst.now)
            worst.work()

    return operations(work) / sum(map(len, given))


@pytest.fixture(scope="module", params=[True, False], ids=["early", "known"])
def early(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def plain() -> float:
    network = Network().connect()
    side, codec = network.server, wire.PacketCodec(5000, 22)
    given = [codec.encode(data_chunk(1000 + number, 0, number, data=b"data")) for number in range(PACKETS)]

    def work() -> None:
        for packet in given:
            side.receive_datagram(packet, network.now)
            side.datagrams_to_send(network.now)

    return operations(work) / sum(map(len, given))


def test_every_kind_of_chunk_and_parameter_has_its_row() -> None:
    measured = {kind for kind, _ in ROWS.values()}
    assert measured >= {wire.DATA, wire.SACK, wire.PAD, *association._HANDLERS}


@pytest.mark.parametrize("row", ROWS)
def test_a_byte_costs_no_more_than_some_of_a_plain_packet(row: str, early: bool, plain: float) -> None:
    worst = Worst(early=early)
    for bundled in (False, True):
        assert cost(worst, list(packets(worst, ROWS[row][1], bundled=bundled))) < TIMES * plain


def test_an_init_costs_no_more_either(early: bool, plain: float) -> None:
    worst = Worst(early=early)
    init = wire.encode_init(wire.INIT, wire.Init(11, 1 << 20, 100, 100, 1))
    given = [wire.PacketCodec(5000, 0).encode(init)] * PACKETS
    assert cost(worst, given) < TIMES * plain


def test_before_the_peer_is_known_few_channels_exist() -> None:
    worst = Worst(early=True)
    side = worst.side
    for stream in range(2000, 2100, 2):
        worst.give(data_chunk(worst.next_tsn(), stream, 0, 50, encode_open("", "")))
        assert len(side._channels.by_id) <= EARLY_CHANNELS
    assert not side.established
