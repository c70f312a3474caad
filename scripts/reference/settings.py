"""The reference of the settings, from their models."""

from __future__ import annotations

from functools import partial

from kodo.cli.commands import load
from kodo.settings.access import AccessSettings
from kodo.settings.client import ClientSettings
from kodo.settings.fields import SettingsModel, setting_name, unit_of
from kodo.settings.network import NetworkSettings
from kodo.settings.node import NodeSettings
from kodo.settings.operating import OperatingSettings
from kodo.settings.outgoing import OutgoingSettings
from kodo.settings.registry import RegistrySettings

from .blocks import table

__all__ = ["BLOCKS", "MODELS", "of"]

MODELS: dict[str, tuple[type[SettingsModel], tuple[type[SettingsModel], ...]]] = {
    "all": (NetworkSettings, ()),
    "client": (ClientSettings, (NetworkSettings,)),
    "node": (NodeSettings, (NetworkSettings, AccessSettings, OperatingSettings)),
    "access": (AccessSettings, ()),
    "operating": (OperatingSettings, ()),
    "registry": (RegistrySettings, (OutgoingSettings, AccessSettings, OperatingSettings)),
}
"""The model of each table, and whose fields are in tables of their own."""

_FLAGS = {"oidc_issuer": "--issuer", "oidc_audience": "--audience", "oidc_client_id": "--client-id"}
"""Flags that are not called as their settings are."""

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (10**9, "GB"), (10**6, "MB"))


def of(name: str) -> str:
    """Return the settings of one program: key, flag, variable, default, and what each is for."""
    model, elsewhere = MODELS[name]
    known = {field for each in elsewhere for field in each.model_fields}
    rows = [
        [
            f"`{setting_name(field)}`",
            _flag(name, setting_name(field)),
            f"`KODO_{setting_name(field).upper()}`",
            _default(field, info.default),
            info.description or "",
        ]
        for field, info in model.model_fields.items()
        if field not in known
    ]
    return table(["`kodo.toml`", "Flag", "Environment", "Default", "What it is"], rows)


def _flag(model: str, setting: str) -> str:
    commands = {"all": ["nodes"], "client": ["nodes"], "registry": ["registry"]}.get(model, ["up"])
    wanted = (
        _FLAGS.get(setting, f"--{setting.replace('_', '-')}"),
        f"--{setting.replace('_', '-').removesuffix('s')}",
    )
    for parameter in (each for command in commands for each in load(command).params):
        if found := next((option for option in parameter.opts if option in wanted), None):
            return " / ".join(f"`{each}`" for each in [found, *parameter.secondary_opts])
    return ""


def _default(field: str, value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`"
    if isinstance(value, (int, float)) and (unit := unit_of(field)):
        return f"`{_duration(float(value)) if unit == 's' else _size(int(value))}`"
    return f"`{value}`"


def _duration(seconds: float) -> str:
    # 30s is easier to read than 0.5m, and a day than 24h.
    return (
        "0"
        if not seconds
        else next((f"{seconds / step:g}{unit}" for step, unit in _STEPS if seconds % step == 0), f"{seconds:g}s")
    )


def _size(size: int) -> str:
    return next((f"{size // step}{unit}" for step, unit in _SIZES if size % step == 0), str(size))


BLOCKS = {f"settings of {name}": partial(of, name) for name in MODELS}
"""A block for each table."""
