"""An SCTP association with WebRTC data channels, without I/O, clock or randomness.

`association` ties it together: `wire` (bytes), `states` (tables), `handshake` (the cookie), `outbound` (what waits),
`recovery` (what is out), `congestion` (how much may be out), `sender` (what goes into a packet), `reassembly` (what
arrived), `receiver` (what is taken and acknowledged), `channels` (opening and
closing), `events` (what the owner is told, and the settings).
"""

from kodo.p2p.core.sctp.association import Association
from kodo.p2p.core.sctp.congestion import Controller, Cubic, RateController
from kodo.p2p.core.sctp.events import (
    ChannelClosed,
    ChannelOpened,
    Drained,
    Ended,
    Established,
    Event,
    MessageReceived,
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
    "RateController",
    "Settings",
]
