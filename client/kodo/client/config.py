"""Settings: flags over environment over `kodo.toml` over defaults, each with where it came from.

The file lies in the home, `$KODO_HOME/kodo.toml`. It is read once, at the edge, and checked whole: an unknown key is
an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kodo.p2p.errors import UsageError

__all__ = ["ENVIRONMENT", "Loaded", "Settings", "default_home", "load_settings", "parse_bytes", "parse_seconds"]

_NUMBER = r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*"
_SIZE = re.compile(_NUMBER + r"([kmgt]?)(i?)b?\s*\Z", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(_NUMBER + r"(ms|s|m|h|d)?\s*\Z", re.ASCII | re.IGNORECASE)


def parse_bytes(value: object) -> object:
    """Read `200MB`, `1.5 GiB` or a number as bytes; anything else is left for the model to refuse."""
    if isinstance(value, str) and (match := _SIZE.match(value)):
        step = 1024 if match[3] else 1000
        return int(float(match[1]) * step ** " kmgt".index(match[2].lower() or " "))
    return value


def parse_seconds(value: object) -> object:
    """Read `60s`, `500 ms`, `1.5h`, `7d` or a number as seconds; anything else is left for the model to refuse."""
    if isinstance(value, str) and (match := _SECONDS.match(value)):
        unit = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[(match[2] or "s").lower()]
        return float(match[1]) * unit
    return value


def _parse_words(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _parse_whole(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip()) else value


def _parse_truth(value: object) -> object:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_parse_words)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Whole = Annotated[int, BeforeValidator(_parse_whole)]
Truth = Annotated[bool, BeforeValidator(_parse_truth)]


class Settings(BaseModel):
    """Everything that can be set. Names are those of `kodo.toml`; flags are spelt with dashes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    registry: Words = Field((), description="registries to announce to and to search, URLs separated by spaces")
    lan: Truth = Field(True, description="find nodes, and be found, on the local network (zeroconf)")
    node: str | None = Field(None, min_length=1, description="the node meant when a command names none")
    timeout: Seconds = Field(30.0, gt=0, le=86400, description="seconds that a call or a dial may take")
    browse: Seconds = Field(1.5, ge=0, le=60, description="seconds to look around on the local network")
    patience: Seconds = Field(120.0, ge=0, le=86400, description="seconds to redial a lost node before giving up")
    name: str | None = Field(None, min_length=1, description="this node's name")
    host: Words = Field(("0.0.0.0", "::"), description="addresses this node listens on, separated by spaces")
    port: Whole = Field(0, ge=0, le=65535, description="this node's UDP port; 0 takes a free one")
    open: Truth = Field(False, description="let in peers from everywhere, not from the local network only")
    auth: Literal["null", "local", "oidc"] = Field(
        "null", description="who says who a caller of this node or registry is"
    )
    oidc_issuer: str | None = Field(None, min_length=1, description="of auth oidc: who signs the tokens, a URL")
    oidc_audience: str | None = Field(None, min_length=1, description="of auth oidc: whom the tokens are for")
    oidc_client_id: str | None = Field(
        None, min_length=1, description="of auth oidc: with which tokens are asked for"
    )
    oidc_roles_claim: str = Field("roles", min_length=1, description="of auth oidc: the claim with a user's roles")
    oidc_roles: Words = Field(
        ("*=user", "operator=operator"),
        description="of auth oidc: what values of that claim give, VALUE=ROLE_OR_GRANT,… separated by spaces",
    )
    auth_oidc_bound: Truth = Field(
        False, description="of auth oidc: take only tokens that are bound to their holder's key (DPoP)"
    )
    login_bound: Truth = Field(
        False, description="show nodes and registries only tokens that are bound to this user's key (DPoP)"
    )
    contents_for: Words = Field((), description="roles that see what others' runs are about: developer, operator")
    access: Seconds = Field(30.0, gt=0, le=60, description="how long a lost login or grant may still be of use")
    keyring: Truth = Field(True, description="keep tokens in the system's keyring where there is one")
    ray_address: str | None = Field(None, min_length=1, description="an existing Ray cluster to join")
    num_cpus: Whole | None = Field(None, ge=1, description="CPUs of the embedded Ray; all by default")
    object_store: Bytes = Field(200_000_000, ge=80 << 20, description="bytes of the embedded Ray's object store")
    retention: Seconds = Field(7 * 86400.0, ge=0, description="how long this node keeps acknowledged runs, as 7d")
    keep_unread: Seconds | None = Field(
        None, ge=0, description="how long it keeps ended runs that nobody acknowledged, as 90d; for ever by default"
    )
    keep_uploads: Seconds | None = Field(None, ge=0, description="how long it keeps unused uploads; 24h by default")
    keep_logs: Seconds | None = Field(None, ge=0, description="how long it keeps logs of ended processes; 24h")
    keep_warm: Seconds | None = Field(None, gt=0, description="after how long an unused warm runner is replaced; 24h")
    housekeeping: Seconds | None = Field(None, gt=0, description="how often it cleans up by itself; 10m by default")
    quota: Bytes | None = Field(
        None,
        ge=1 << 20,
        description="what database, outputs, uploads and memories may take, as 50GB",
    )
    disk_reserve: Bytes | None = Field(None, ge=0, description="disk that its flows may not use; 256MiB by default")
    max_events: Whole | None = Field(None, ge=100, description="events that one run may make; 1000000 by default")
    max_event_bytes: Bytes | None = Field(None, ge=1 << 20, description="their bytes, as 1GB; 512MiB by default")
    keep_runs: Truth | None = Field(
        None, description="whether runs go on while this node is stopped; on a joined Ray cluster only by default"
    )
    runners: Whole | None = Field(None, ge=0, description="warm runners this node keeps")
    mesh_read: Words = Field((), description="registries whose nodes this registry lists too, URLs")
    mesh_feed: Words = Field((), description="registries that this registry tells of its own nodes, URLs")
    mesh_members: Words = Field((), description="peer ids of registries that may tell this one of their nodes")
    probe: Seconds | None = Field(None, ge=1, description="how often this registry dials each node; not at all")
    tls_cert: str | None = Field(None, min_length=1, description="this registry's TLS certificate, a PEM file")
    tls_key: str | None = Field(None, min_length=1, description="its key, a PEM file")
    mesh_interval: Seconds = Field(30.0, gt=0, le=3600, description="seconds until a failed registry is asked again")


ENVIRONMENT: Mapping[str, str] = MappingProxyType({name: f"KODO_{name.upper()}" for name in Settings.model_fields})
"""The environment variable of each setting; `KODO_HOME` besides."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force; `sources` says per name `flag`, `env KODO_…`, the file's path, or `default`."""

    home: Path
    settings: Settings
    sources: Mapping[str, str]

    def override(self, **flags: Any) -> Loaded:
        """Give the same with further flags; None values count as not given.

        Raises:
            UsageError: naming the flag and what is wrong with it.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        values = {**self.settings.model_dump(), **given}
        sources = {**self.sources, **dict.fromkeys(given, "flag")}
        return Loaded(self.home, _validated(values, sources), MappingProxyType(sources))


def default_home() -> Path:
    """Give the platform's folder for kodo's state."""
    return Path(platformdirs.user_data_dir("kodo"))


def load_settings(
    home: Path | str | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Put the settings together.

    Args:
        home: the `--home` flag, if given.
        flags: what was given explicitly; None values count as not given.
        environment: `os.environ` when not given.

    Raises:
        UsageError: naming the setting, where it came from and what is wrong.
    """
    environment = os.environ if environment is None else environment
    sources: dict[str, str] = {}
    if home is not None:
        sources["home"] = "flag"
    elif environment.get("KODO_HOME"):
        home, sources["home"] = environment["KODO_HOME"], "env KODO_HOME"
    else:
        home, sources["home"] = default_home(), "default"
    folder = Path(home).expanduser().absolute()
    values: dict[str, Any] = {}
    file = folder / "kodo.toml"
    for name, value in _read_file(file).items():
        values[name], sources[name] = value, str(file)
    for name, variable in ENVIRONMENT.items():
        if environment.get(variable):
            values[name], sources[name] = environment[variable], f"env {variable}"
    for name, value in (flags or {}).items():
        if value is not None:
            values[name], sources[name] = value, "flag"
    settings = _validated(values, sources)
    for name in Settings.model_fields:
        sources.setdefault(name, "default")
    return Loaded(folder, settings, MappingProxyType(sources))


def _validated(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        raise UsageError(f"{name} ({sources.get(name, '?')}): {first['msg']}; it is {first['input']!r}") from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise UsageError(f"{file.parent} is not a folder; set KODO_HOME to one") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from None
    for name in values:
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, 1, 0.5)
            hint = (
                f"did you mean {shlex.quote(near[0])}?" if near else f"known are: {', '.join(Settings.model_fields)}"
            )
            raise UsageError(f"{file}: unknown key {name!r}; {hint}")
    return values
