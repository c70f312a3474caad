"""Settings of how a node or registry is watched while it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kodo.settings.fields import SettingsModel

__all__ = ["OperatingSettings"]


class OperatingSettings(SettingsModel):
    """What a node or registry tells its operator. A node and a registry of one home have these in common."""

    metrics: str | None = Field(
        default=None,
        min_length=1,
        description="Address for `/healthz` and Prometheus `/metrics`, e.g. `127.0.0.1:9464`. Default: none.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How the log is written to stderr: `text`, or `json`, one object a line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged: `debug`, `info`, `warning` or `error`."
    )
