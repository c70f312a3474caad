"""What an association tells its owner, and how it is set up."""

from __future__ import annotations

from dataclasses import dataclass

from kodo.p2p.errors import KodoError

__all__ = [
    "ChannelClosed",
    "ChannelOpened",
    "Drained",
    "Ended",
    "Established",
    "Event",
    "MessageReceived",
    "PathProved",
    "Settings",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """How an association behaves.

    Attributes:
        mtu: bytes of an SCTP packet, so of one DTLS record's content, that every path is taken to carry.
        most_mtu: the same of the longest packet that is looked for; see `pathmtu`.
        window: bytes that this side is ready to keep for the application.
        max_message: most bytes of a message that the application sends; more is refused.
        max_inbound_message: most bytes of a message that a peer may send; more ends the association.
        streams: streams each way that are asked for and accepted.
        sack_every: packets with data after which they are acknowledged at once.
        sack_delay: seconds after which they are acknowledged at the latest.
        max_channels: channels that may be open at once; more of the peer's are closed again.
        early_channels: channels that may exist until `Association.admit`; one more of the peer's ends the
            association. None for no such bound.
        rto_initial: retransmission timeout before a round trip is known, seconds.
        rto_min: what the timeout adds to the round trip time at least, seconds.
        rto_max: most that it grows to by doubling, seconds.
        max_retransmits: timeouts in a row after which the association ends.
        port: SCTP port of both sides.
    """

    mtu: int = 1200
    most_mtu: int = 16_328
    window: int = 4 << 20
    max_message: int = 262_144
    max_inbound_message: int = 262_144
    streams: int = 65_535
    sack_every: int = 4
    sack_delay: float = 0.02
    max_channels: int = 1024
    early_channels: int | None = None
    rto_initial: float = 1.0
    rto_min: float = 0.2
    rto_max: float = 10.0
    max_retransmits: int = 10
    port: int = 5000


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is over."""


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """The peer has opened a channel.

    Attributes:
        channel_id: its id.
        label: its name, often empty.
        protocol: its subprotocol, often empty.
    """

    channel_id: int
    label: str
    protocol: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message arrived whole.

    Attributes:
        channel_id: the channel.
        data: the message; call `Association.consumed(len(data))` once it was read.
        text: whether it was sent as text (UTF-8).
    """

    channel_id: int
    data: bytes
    text: bool


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """Both ways of a channel were reset; its id may be used again."""

    channel_id: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The peer has acknowledged something.

    Attributes:
        queued: bytes that are still queued or not acknowledged, of all channels.
    """

    queued: int


@dataclass(frozen=True, slots=True)
class PathProved:
    """The peer has echoed what went over the path that `Association.change_path` began: it receives there."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The association is over; nothing follows.

    Attributes:
        error: RemotelyClosedError when the peer ended it, LocallyClosedError after `shutdown`, BrokenSessionError
            when nothing came back any more, PeerError when the peer broke the protocol.
    """

    error: KodoError


Event = Established | ChannelOpened | MessageReceived | ChannelClosed | Drained | PathProved | Ended
