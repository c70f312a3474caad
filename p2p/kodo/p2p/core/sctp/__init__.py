"""An SCTP association with WebRTC data channels, without I/O, clock or randomness.

`association` is the whole, on `lifecycle` (handshake, heartbeats, the end). Beneath: `wire` (bytes), `states`
(tables), `handshake` (the cookie), `outbound` (what waits), `pathmtu` (how long a packet may be), `sender` (what goes
into a packet), `recovery` (what is out), `congestion` (how much may be out), `receiver` (what is taken and
acknowledged), `reassembly` (what arrived), `channels` (opening and closing), `events` (what the owner is told, and
the settings).
"""

from kodo.p2p.core.sctp.association import Association
from kodo.p2p.core.sctp.congestion import Controller, Cubic, RateController
from kodo.p2p.core.sctp.settings import (
    ChannelClosed,
    ChannelOpened,
    Drained,
    Ended,
    Established,
    Event,
    MessageReceived,
    PathProved,
    Settings,
)

__all__ = [
    "Association",
    "ChannelClosed",
    "ChannelOpened",
    "Controller",
    "Cubic",
    "Drained",
    "Ended",
    "Established",
    "Event",
    "MessageReceived",
    "PathProved",
    "RateController",
    "Settings",
]
