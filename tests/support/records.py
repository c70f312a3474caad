"""Node records for tests: complete ones, of peers that are always the same."""

from __future__ import annotations

from typing import Any

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.registry.records.record import (
    FlowRecord,
    Goodbye,
    Heartbeat,
    NodeRecord,
    Ping,
    sign_goodbye,
    sign_heartbeat,
    sign_record,
)
from kodo.registry.store.changes import Bounds

NOW = 1_800_000_000_000
"""Where test clocks stand, ms UTC."""

UNHURRIED = Bounds(read_s=60.0)
"""What a registry keeps, with so much work for each page that no busy machine comes near it."""


def identity(number: int = 1) -> Identity:
    """Give the key pair of test peer `number`."""
    return Identity.from_seed(number.to_bytes(32, "big"))


def address(of: Identity) -> str:
    """Give an address of the peer."""
    return str(Multiaddr.webrtc_direct("192.0.2.7", 4711, bytes(range(32)), of.peer_id))


def flow(path: str = "flows.market.Competitor", **fields: Any) -> FlowRecord:
    """Make a flow with everything that a registry needs."""
    given: dict[str, Any] = {
        "path": path,
        "name": "Competitor Analysis",
        "source": "flows/market.py",
        "description": "Looks at who else sells it",
        "author": "ana@example.com",
        "organization": "Example",
        "published": NOW - 1000,
        "release": "0.1.2",
        "tags": ("market",),
    }
    return FlowRecord(**{**given, **fields})


def record(of: Identity | None = None, *flows: FlowRecord, **fields: Any) -> NodeRecord:
    """Make a record of a peer, issued at `NOW`, for an hour."""
    of = of or identity()
    given: dict[str, Any] = {
        "peer_id": str(of.peer_id),
        "name": "flows.example.com",
        "addrs": (address(of),),
        "flows": flows,
        "seq": 1,
        "issued_at": NOW,
        "ttl_s": 3600,
    }
    return NodeRecord(**{**given, **fields})


def signed_record(of: Identity | None = None, *flows: FlowRecord, **fields: Any) -> bytes:
    """Make a signed record."""
    of = of or identity()
    return sign_record(record(of, *flows, **fields), of)


def signed_heartbeat(of: Identity | None = None, *, seq: int = 1, at: int = NOW, **ping: Any) -> bytes:
    """Make a signed heartbeat."""
    of = of or identity()
    return sign_heartbeat(Heartbeat(peer_id=str(of.peer_id), seq=seq, at=at, ping=Ping(**ping)), of)


def signed_goodbye(of: Identity | None = None, *, seq: int = 1, at: int = NOW) -> bytes:
    """Make a signed goodbye."""
    of = of or identity()
    return sign_goodbye(Goodbye(peer_id=str(of.peer_id), seq=seq, at=at), of)
