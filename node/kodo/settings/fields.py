"""What the models of settings are made of: their root, and the types of their fields."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from kodo.settings.units import parse_bytes, parse_seconds

__all__ = [
    "SECRETS",
    "Bytes",
    "File",
    "HostPort",
    "Proxy",
    "Rate",
    "Seconds",
    "SettingsModel",
    "Truth",
    "TurnSecret",
    "TurnUrls",
    "Whole",
    "Words",
    "parse_words",
    "setting_name",
    "unit_of",
]

SECRETS = frozenset(["webhooks", "apprise", "proxy", "turn_secret"])
"""Settings whose values may hold passwords, and are not shown."""

_UNITS = {"_s": "s", "_bytes": "bytes"}
"""Ends of fields' names, and the units that they stand for."""

_MAX_TURNS = 4
_MAX_TURN_CHARACTERS = 256
_TURN_URL = re.compile(r"turns?:([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::([1-9]\d{0,4}))?(\?transport=(udp|tcp))?")
"""RFC 7065."""
_LOW_TURN_PORTS = frozenset([80, 443])
"""Below 1024 pages use these alone."""

_WITHOUT_UNIT = frozenset(["max_event_bytes"])
"""Settings whose own names end so."""


def setting_name(field: str) -> str:
    """Return the name of the setting that a field is: the field's without its unit."""
    if field in _WITHOUT_UNIT:
        return field
    return next((field.removesuffix(end) for end in _UNITS if field.endswith(end)), field)


def unit_of(field: str) -> str:
    """Return the unit of a field, `s` or `bytes`; empty when it has none."""
    return next((unit for end, unit in _UNITS.items() if field.endswith(end)), "")


def parse_words(value: object) -> object:
    """Read words that are separated by spaces as several; anything else is left for the model to refuse."""
    return tuple(value.split()) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _parse_whole(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip()) else value


def _parse_truth(value: object) -> object:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


def _parse_size(value: object) -> object:
    size = parse_bytes(value)
    if isinstance(size, str):
        raise ValueError("write a number of bytes, or a size such as 200MB, 256MiB or 50GB")
    return size


def _parse_rate(value: object) -> object:
    rate = 0 if value in ("off", False) else parse_bytes(value)
    if isinstance(rate, str):
        raise ValueError("write off, or bytes a second such as 10MB")
    return rate


def _parse_duration(value: object) -> object:
    seconds = parse_seconds(value)
    if isinstance(seconds, str):
        raise ValueError("write a number of seconds, or a duration such as 500ms, 30s, 5m, 12h or 7d")
    return seconds


def _parse_file(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


def _check_host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port[:6]) > 65535:
        raise ValueError("write an address and a port, such as 192.0.2.7:6379")
    return value


def _check_proxy(value: str) -> str:
    if value != "system" and not re.fullmatch(
        r"https?://([^/@\s]*@)?[^/@?#\s:]+(:\d{1,5})?/?|https?://([^/@\s]*@)?\[[0-9a-fA-F:.]+\](:\d{1,5})?/?", value
    ):
        raise ValueError("write http://HOST:PORT, http://USER:PASSWORD@HOST:PORT, or system")
    return value.rstrip("/")


def _check_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"{host} is no address that browsers take") from error


def _check_turn(value: tuple[str, ...]) -> tuple[str, ...]:
    for url in value:
        found = _TURN_URL.fullmatch(url)
        if len(url) > _MAX_TURN_CHARACTERS or not found:
            raise ValueError("write turn:HOST[:PORT][?transport=tcp] or turns:HOST[:PORT][?transport=tcp]")
        host, port = found[1], int(found[2] or 3478)
        if not 1024 <= port <= 65535 and port not in _LOW_TURN_PORTS:
            raise ValueError(f"browsers use TURN servers at port 80, 443 or from 1024 on, not at {port}")
        # Browsers read such a host as an address, in whatever spelling.
        if host.startswith("[") or re.search(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$", host):
            _check_address(host.strip("[]"))
    if len(value) > _MAX_TURNS:
        raise ValueError(f"browsers are told at most {_MAX_TURNS} TURN servers")
    return value


def _check_turn_secret(value: str) -> str:
    if not 16 <= len(value) <= 512 or not value.isprintable() or value != value.strip():
        raise ValueError("write 16 to 512 characters, as the TURN server has them: openssl rand -hex 32 makes some")
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(parse_words)]
"""Several words: separated by spaces, or a list."""
Bytes = Annotated[int, BeforeValidator(_parse_size)]
Rate = Annotated[int, Field(ge=0), BeforeValidator(_parse_rate)]
"""Bytes a second; 0, or `off`, for nothing."""
Seconds = Annotated[float, BeforeValidator(_parse_duration)]
Whole = Annotated[int, BeforeValidator(_parse_whole)]
Truth = Annotated[bool, BeforeValidator(_parse_truth)]
Proxy = Annotated[str, AfterValidator(_check_proxy)]
"""The URL of an HTTP proxy, or `system`."""
TurnUrls = Annotated[Words, AfterValidator(_check_turn)]
"""Several URLs of TURN servers."""
TurnSecret = Annotated[str, AfterValidator(_check_turn_secret)]
HostPort = Annotated[str, AfterValidator(_check_host_and_port)]
File = Annotated[Path, BeforeValidator(_parse_file)]


class SettingsModel(BaseModel):
    """The root of all models of settings: frozen, strict, and filled by the names of settings or of fields."""

    # Built at the first use: only the models whose values are read cost anything.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Names that fields had in earlier releases, which are still taken."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return the field of each setting, by the setting's name, in the order of the model."""
        return {setting_name(field): field for field in cls.model_fields}

    @model_validator(mode="before")
    @classmethod
    def _name_fields(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = {**cls.names(), **cls.former_names}
        return {fields.get(name, name): value for name, value in given.items()}
