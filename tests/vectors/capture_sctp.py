"""Take SCTP packets of other implementations, decrypted: `python -m tests.vectors.capture_sctp > sctp.json`.

Each partner dials us through a relay that loses and reorders a little, opens channels, sends, closes them, opens the
same ids again, and ends the connection. Of all packets that came, the shortest of each kind is kept; a kind is
the types of a packet's chunks, with what a DATA chunk carries and whether a SACK has gaps.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from kodo.p2p.core.sctp import Association, wire
from tests.support.lossy_relay import lossy_relay
from tests.support.partners import INTEROP, partner
from tests.support.raw_peer import answer_to_offer, echo_server

KINDS = [
    "DATA",
    "INIT",
    "INIT_ACK",
    "SACK",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "ERROR",
]
KINDS += ["COOKIE_ECHO", "COOKIE_ACK", "SHUTDOWN_COMPLETE", "RE_CONFIG"]
NAMES = {getattr(wire, name): name for name in KINDS}
PARAMETERS = {13: "request", 16: "response"}
PHASES = [[(12, 16_384, True), (30, 100, True), (10, 3000, False), (2, 10, True)], [(2, 10, True)] * 2]
MOST_BYTES = 600


def kind(packet: bytes) -> str:
    """Name what a packet carries."""
    position, names = wire.HEADER_BYTES, []
    while position + 4 <= len(packet):
        number, flags, length = wire.CHUNK_HEADER.unpack_from(packet, position)
        name = NAMES.get(number, f"0x{number:02x}")
        if number == wire.DATA:
            protocol = int.from_bytes(packet[position + 12 : position + 16], "big")
            fragment = "" if flags & 3 == 3 else " fragment"
            name += (" DCEP" if protocol == wire.PROTOCOL_DCEP else " message") + fragment
            name += " unordered" * bool(flags & wire.FLAG_UNORDERED)
        elif number == wire.SACK and packet[position + 12 : position + 14] != b"\0\0":
            name += " gaps"
        elif number == wire.RE_CONFIG:
            name += "".join(
                f" {PARAMETERS.get(each, each)}"
                for each, _ in wire.parse_parameters(packet[position + 4 : position + length])
            )
        names.append(name)
        position += length + (-length & 3)
    return ", ".join(names)


async def capture(name: str) -> list[dict[str, str]]:
    """Let one partner dial us and give what is worth keeping."""
    found: dict[str, bytes] = {}

    def receive(association: Association, data: bytes, now: float) -> None:
        known = found.setdefault(kind(data), data)
        if len(data) < len(known):
            found[kind(data)] = data
        original(association, data, now)

    original = Association.receive_datagram
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Association, "receive_datagram", receive)
        async with (
            asyncio.timeout(60),
            partner(name) as theirs,
            echo_server(patch) as (_, listener, certificate),
            lossy_relay(listener.address, seed=2, loss=0.03, duplicate=0.01, jitter_s=0.002) as relay,
        ):
            await theirs.ask("offer", name="a")
            await theirs.ask("answer", name="a", sdp=answer_to_offer(relay.port, certificate, client=False))
            await theirs.ask("echo", name="a", phases=PHASES)
            await theirs.ask("close", name="a")
            await asyncio.sleep(0.5)
    return [
        {"chunks": chunks, "packet": packet.hex()}
        for chunks, packet in sorted(found.items())
        if len(packet) <= MOST_BYTES and chunks.count(",") < 3
    ]


async def main() -> None:
    """Print the file."""
    version = json.loads((INTEROP / "node_modules" / "node-datachannel" / "package.json").read_text())["version"]
    partners = {
        f"usrsctp, in libdatachannel of node-datachannel {version}": "node-datachannel",
        f"dcsctp, in libwebrtc of wrtc {importlib.metadata.version('wrtc')}": "wrtc",
        f"aiortc {importlib.metadata.version('aiortc')}": "aiortc",
    }
    print(json.dumps({title: await capture(name) for title, name in partners.items()}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    asyncio.run(main())
