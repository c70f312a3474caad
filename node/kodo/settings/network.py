"""Settings of every program that looks for peers."""

from __future__ import annotations

from pydantic import Field

from kodo.settings.fields import Truth, Words
from kodo.settings.outgoing import OutgoingSettings

__all__ = ["NetworkSettings"]


class NetworkSettings(OutgoingSettings):
    """Where peers are looked for, and where a node is found."""

    registry: Words = Field(default=(), description="Registries to search and to announce the node to: URLs.")
    lan: Truth = Field(default=True, description="Find nodes, and be found, on the local network (zeroconf).")
