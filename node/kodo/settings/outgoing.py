"""Settings of every program that calls registries or issuers."""

from __future__ import annotations

from pydantic import Field

from kodo.settings.fields import Proxy, SettingsModel

__all__ = ["OutgoingSettings"]


class OutgoingSettings(SettingsModel):
    """How registries and issuers are reached."""

    proxy: Proxy | None = Field(
        default=None,
        description="HTTP proxy by which registries and issuers are reached, e.g. `http://proxy.example.com:3128`;"
        " `system` for what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say. Never used for this machine or private"
        " networks. Not the reverse proxy before a registry: that is `proxies`. Default: none.",
    )
