"""Settings of a registry."""

from __future__ import annotations

from pydantic import Field

from kodo.settings.access import AccessSettings
from kodo.settings.fields import File, Rate, Seconds, TurnSecret, TurnUrls, Words
from kodo.settings.operating import OperatingSettings
from kodo.settings.outgoing import OutgoingSettings

__all__ = ["RegistrySettings"]


class RegistrySettings(OutgoingSettings, AccessSettings, OperatingSettings):
    """Which other registries it deals with, and how it is reached."""

    mesh_read: Words = Field(default=(), description="Registries whose nodes this registry lists too: URLs.")
    mesh_feed: Words = Field(default=(), description="Registries that this registry tells about its own nodes: URLs.")
    mesh_members: Words = Field(
        default=(), description="Peer ids of the registries that may tell this one about their nodes."
    )
    mesh_interval_s: Seconds = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long to wait before asking a registry again that did not answer.",
    )
    probe_s: Seconds | None = Field(default=None, ge=1, description="How often to dial each node. Default: never.")
    relay_bytes: Rate = Field(
        default=40_000_000,
        description="What it relays in one second at most, for nodes that are not reached directly, e.g. `10MB`, over"
        " the UDP port of the same number as its TCP port and, where UDP is blocked, by WebSocket. `off`: it only"
        " introduces callers to nodes.",
    )
    turn: TurnUrls = Field(
        default=(),
        description="TURN servers for pages in networks that let no UDP out: URLs, e.g."
        " `turns:turn.example.com:443?transport=tcp`, at most 4. `GET /turn` then gives readers credentials that hold"
        " for 10 minutes. Default: none.",
    )
    turn_secret: TurnSecret | None = Field(
        default=None,
        repr=False,
        description="What the registry shares with those servers (coturn: `static-auth-secret`): at least 16"
        " characters. Nobody is told it.",
    )
    tls_cert: File | None = Field(
        default=None, description="TLS certificate chain: a PEM file. With it, the registry speaks HTTPS."
    )
    tls_key: File | None = Field(default=None, description="Private key of that certificate: a PEM file.")
