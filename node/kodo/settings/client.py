"""Settings of the client: of `koco`, and of the library."""

from __future__ import annotations

from pydantic import Field

from kodo.settings.fields import Seconds, Truth
from kodo.settings.network import NetworkSettings

__all__ = ["ClientSettings"]


class ClientSettings(NetworkSettings):
    """How nodes are found and dialled, and what they are shown."""

    node: str | None = Field(
        default=None, min_length=1, description="The node that is meant where a command names none."
    )
    timeout_s: Seconds = Field(
        default=30.0, gt=0, le=86400, description="How long a call, a search or dialling a node may take."
    )
    browse_s: Seconds = Field(
        default=1.5,
        ge=0,
        le=60,
        description="How long to look for nodes on the local network; three times as long while none is found. Lists "
        "take less once all nodes are found that were reached here by name.",
    )
    patience_s: Seconds = Field(
        default=120.0, ge=0, le=86400, description="How long to redial a node that was lost before giving up."
    )
    keyring: Truth = Field(default=True, description="Keep login tokens in the system's keyring where there is one.")
    login_bound: Truth = Field(
        default=False, description="Show nodes and registries only tokens that are bound to this user's key (DPoP)."
    )
