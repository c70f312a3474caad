"""The attack by "reset all streams", replayed over a real socket: a peer that never says a byte of Noise.

It opens channels, a thousand if it may, and sends 40 packets of RE-CONFIG chunks whose stream lists are empty, 43 KB,
each of which once made the listener walk all channels that it had. Work by received byte is compared, in bytecodes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.association import Association
from kodo.p2p.net.calls import request
from kodo.p2p.net.channels import EARLY_CHANNELS
from tests.chaos.attacking import Target, forge, raw_link
from tests.support.operations import operations
from tests.support.peers import make_pair

PACKETS = 40
PACKET_BYTES = 1075
"""Of each packet: 40 of them are 43 KB."""
RATIO = 3
"""How much more a byte of these packets may cost than one of small packets with data."""


class Counted:
    """What the listener's association with the attacker costs, by what is in a datagram."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.kind = ""
        self.steps: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.packets: Counter[str] = Counter()
        self.channels = 0
        self.others: list[Association] = []
        take = Association.receive_datagram

        def counting(association: Association, datagram: bytes, now: float) -> None:
            if not self.kind or association in self.others:
                take(association, datagram, now)
                return
            self.packets[self.kind] += 1
            self.bytes[self.kind] += len(datagram)
            try:
                self.steps[self.kind] += operations(lambda: take(association, datagram, now))
            finally:
                self.channels = max(self.channels, len(association._channels.by_id))

        patch.setattr(Association, "receive_datagram", counting)

    def each_byte(self, kind: str) -> float:
        return self.steps[kind] / max(self.bytes[kind], 1)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 (nothing tells of it)
        await asyncio.sleep(0.01)


ROWS = {
    "as it was": (1000, 50, False),
    "with as many channels as may be": (EARLY_CHANNELS, 50, True),
    "and as many parameters in a chunk": (EARLY_CHANNELS, 1, True),
}
"""Channels, parameters in a chunk, and whether the listener looks at any of it."""


@pytest.mark.parametrize(("channels", "each", "looks"), ROWS.values(), ids=ROWS)
async def test_resets_of_all_streams_cost_no_more_than_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, each: int, looks: bool
) -> None:
    counted = Counted(monkeypatch)
    async with asyncio.timeout(20), make_pair("webrtc") as pair:
        honest = await pair.client.connect(pair.addresses)
        link: Any = await raw_link(Target(pair.addresses[0], "", pair.addresses[0], "", tmp_path))
        try:
            sctp = link._sctp
            sessions: list[Any] = [honest, *pair.server.sessions]
            counted.others = [sctp, *(session._link._sctp for session in sessions)]
            sctp._channels._most = 1 << 16
            counted.kind = "data"
            for _ in range(channels):
                sctp.send(sctp.open_channel(), b"x")
            link._flush_soon()
            # Whoever opens too many is dealt with no longer, and need not be told.
            listener: Any = pair.server._listeners[0]
            await until(lambda: not sctp.queued or not listener._handshaking)
            counted.kind = "reset"
            sequence, last = sctp._resets.sequence, sctp._sender.recovery.next_tsn - 1
            for sent in range(PACKETS):
                chunks = b""
                while len(chunks) < PACKET_BYTES:
                    parameters = b""
                    for _ in range(each):
                        asked = wire.ResetRequest(sequence & 0xFFFFFFFF, 0, last, ())
                        parameters += wire.encode_reset_request(asked)
                        sequence += 1
                    chunks += wire.encode_chunk(wire.RE_CONFIG, parameters)
                forge(link, chunks)
                if each == 1:
                    await until(lambda sent=sent: counted.packets["reset"] > sent)
                # Else the first one ends the dealings: a chunk has two parameters at most (RFC 6525, 3.1).
            assert await request(honest, "echo", {"a": 1}) == {"a": 1}
            assert counted.channels <= 1 + EARLY_CHANNELS
            assert counted.each_byte("reset") <= RATIO * counted.each_byte("data")
            if looks:
                await until(lambda: counted.packets["reset"] > 0)
            assert (counted.packets["reset"] > 0) == looks
        finally:
            await link.aclose()
