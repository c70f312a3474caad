"""Settings: flags over environment over `kodo.toml` over defaults, each with where it came from.

The file lies in the home, `$KODO_HOME/kodo.toml`. It is read once, at the edge, and checked whole: an unknown key is
an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import logging
import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import platformdirs
from pydantic import ValidationError

from kodo.p2p.errors import UsageError
from kodo.settings.client import ClientSettings
from kodo.settings.fields import SECRETS, setting_name, unit_of
from kodo.settings.node import NodeSettings
from kodo.settings.registry import RegistrySettings

__all__ = ["ENVIRONMENT", "NAMES", "Loaded", "Settings", "default_home", "load_settings"]


logger = logging.getLogger(__name__)


class Settings(ClientSettings, NodeSettings, RegistrySettings):
    """Everything that can be set: `kodo.toml` of a home is for client, node and registry together."""


NAMES: Mapping[str, str] = MappingProxyType(Settings.names())
"""The field of each setting, by the setting's name."""

ENVIRONMENT: Mapping[str, str] = MappingProxyType({name: f"KODO_{name.upper()}" for name in NAMES})
"""The environment variable of each setting; `KODO_HOME` besides."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force; `sources` says per name `flag`, `env KODO_…`, the file's path, or `default`."""

    home: Path
    settings: Settings
    sources: Mapping[str, str]

    def override(self, **flags: Any) -> Loaded:
        """Return the same with further flags; None values count as not given.

        Raises:
            UsageError: naming the flag and what is wrong with it.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        values = {name: getattr(self.settings, field) for name, field in NAMES.items()} | given
        sources = {**self.sources, **dict.fromkeys(given, "flag")}
        return Loaded(self.home, _validated(values, sources), MappingProxyType(sources))


def default_home() -> Path:
    """Return the platform's folder for kodo's state."""
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
    _warn_of_typos(environment)
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
    for name in NAMES:
        sources.setdefault(name, "default")
    return Loaded(folder, settings, MappingProxyType(sources))


def _validated(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = setting_name(str(first["loc"][0])) if first["loc"] else "?"
        what = _bound(name, error.errors()[0]) or first["msg"].removeprefix("Value error, ")
        shown = "" if name in SECRETS else f"; it is {first['input']!r}"
        raise UsageError(f"{name} ({sources.get(name, '?')}): {what}{shown}") from None


_FOR_FLOWS = ("KODO_RUNNER", "KODO_EVENTS")
"""Variables that a flow's process has, and with it whatever `koco` it starts."""


def _bound(name: str, error: Mapping[str, Any]) -> str:
    """Return what a value misses a bound of a setting by, in the units that people write; empty for other faults."""
    kinds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    if error["type"] not in kinds:
        return ""
    key, words = kinds[error["type"]]
    bound, unit = error["ctx"][key], unit_of(NAMES.get(name, ""))
    if unit == "bytes":
        mib = f"{bound >> 20}MiB, " if bound and bound % (1 << 20) == 0 else ""
        return f"{words} {mib}{bound} bytes"
    return f"{words} {bound:g}{unit}"


def _warn_of_typos(environment: Mapping[str, str]) -> None:
    """Warn of variables that are read by nobody and nearly called like a setting's."""
    known = [*ENVIRONMENT.values(), "KODO_HOME", *_FOR_FLOWS]
    for variable in environment:
        if variable.startswith("KODO_") and variable not in known:
            near = difflib.get_close_matches(variable, known, 1, 0.85)
            if near:
                logger.warning("%s is no setting and is ignored; %s is one", variable[:80], near[0])


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
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1, 0.5)
            hint = f"did you mean {shlex.quote(near[0])}?" if near else f"known are: {', '.join(NAMES)}"
            raise UsageError(f"{file}: unknown key {name!r}; {hint}")
    return values
