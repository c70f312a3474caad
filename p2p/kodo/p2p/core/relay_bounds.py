"""How much a relay does: its bounds, and the buckets by which it keeps to rates. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["Bucket", "RelayBounds"]


@dataclass(frozen=True, slots=True)
class RelayBounds:
    """How much a relay does.

    Attributes:
        nodes: that are admitted at once.
        channels: in all.
        channels_each: of one node. When it has them all, the source with most makes room for one with fewer.
        channels_per_source: of one IPv4 address, or IPv6 /64.
        new_per_s: channels that are opened to one node, a second, before their diallers have shown that they receive;
            as many at once.
        asked: diallers whose answer to that is awaited.
        idle_s: seconds without anything from its dialler after which a channel ends.
        rate: bytes a second in all, both directions together; None: nothing is relayed, and what introduces diallers
            to nodes is passed on at `introducing`.
        introducing: bytes a second in all where nothing is relayed.
        rate_per_node: the same of one node.
        rate_per_channel: the same of one dialler.
        burst: bytes that may come at once beyond each rate.
        streams: connections of diallers and nodes that have no UDP; from one source as many as it may have channels.
    """

    nodes: int = 10_000
    channels: int = 20_000
    channels_each: int = 64
    channels_per_source: int = 64
    new_per_s: int = 16
    asked: int = 4096
    idle_s: float = 30.0
    rate: int | None = 40_000_000
    introducing: int = 1_000_000
    rate_per_node: int = 8_000_000
    rate_per_channel: int = 2_000_000
    burst: int = 512 << 10
    streams: int = 2_000

    @classmethod
    def introducing_only(cls) -> Self:
        """Return those of a relay that carries nothing and only introduces: it needs little, and for a short time."""
        return cls(rate=None, rate_per_node=100_000, rate_per_channel=8_000, burst=64 << 10, idle_s=10.0)


class Bucket:
    """So much a second, and a burst at once."""

    __slots__ = ("at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.level, self.at = rate, burst, burst, now

    def has(self, amount: float, now: float) -> bool:
        """Return whether so much is there; it is not taken."""
        if now > self.at:
            self.level = min(self.burst, self.level + (now - self.at) * self.rate)
            self.at = now
        return self.level >= amount
