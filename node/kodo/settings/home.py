"""Settings of a home: of client, node and registry together, as `kodo.toml` has them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kodo.settings.client import ClientSettings
from kodo.settings.node import NodeSettings
from kodo.settings.registry import RegistrySettings

__all__ = ["ENVIRONMENT", "NAMES", "Settings"]


class Settings(ClientSettings, NodeSettings, RegistrySettings):
    """Everything that can be set: `kodo.toml` of a home is for client, node and registry together."""


NAMES: Mapping[str, str] = MappingProxyType(Settings.names())
"""The field of each setting, by the setting's name."""

ENVIRONMENT: Mapping[str, str] = MappingProxyType({name: f"KODO_{name.upper()}" for name in NAMES})
"""The environment variable of each setting; `KODO_HOME` besides."""
