"""Settings: flags over environment over `kodo.toml` over defaults, each with where it came from.

The file lies in the home, `$KODO_HOME/kodo.toml`. It is read once, at the edge, and checked whole: an unknown key is
an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kodo.p2p.errors import UsageError
from kodo.settings.defaults import CLIENT_DEFAULTS

if TYPE_CHECKING:
    from kodo.settings.home import Settings

__all__ = ["Loaded", "default_home", "load_settings"]


logger = logging.getLogger(__name__)


class _Unset:
    """Settings of which only `lan` and `node` were given: a client's are at hand, the model is made for all others.

    That spares commands what the model takes to import and build, a quarter of what `koco ps` took.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._values = {**CLIENT_DEFAULTS, **given}
        self._given = given
        self._model: Settings | None = None

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__["_values"]  # not there yet while it is copied
        return values[name] if name in values else getattr(self._whole(), name)

    def __eq__(self, other: object) -> bool:
        return self._whole() == (other._whole() if isinstance(other, _Unset) else other)

    def __hash__(self) -> int:
        return hash(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def _whole(self) -> Settings:
        if self._model is None:
            self._model = _validated(self._given, {})
        return self._model


class _Sources(Mapping[str, str]):
    """Where each setting came from; `default` where nothing was given."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)

    def __getitem__(self, name: str) -> str:
        return self._given.get(name, "default")

    def __iter__(self) -> Iterator[str]:
        from kodo.settings.home import NAMES

        return iter(dict.fromkeys([*self._given, *NAMES]))

    def __len__(self) -> int:
        return len([*self])


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
        from kodo.settings.home import NAMES

        given = {name: value for name, value in flags.items() if value is not None}
        values = {name: getattr(self.settings, field) for name, field in NAMES.items()} | given
        sources = {**self.sources, **dict.fromkeys(given, "flag")}
        return Loaded(self.home, _validated(values, sources), _Sources(sources))


def default_home() -> Path:
    """Return the platform's folder for kodo's state."""
    import platformdirs  # where a home is named it is not needed

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
    for name, (variable, word) in _words(environment).items():
        values[name], sources[name] = word, f"env {variable}"
    for name, flag in (flags or {}).items():
        if flag is not None:
            values[name], sources[name] = flag, "flag"
    settings = cast("Settings", _Unset(values)) if _is_plain(values) else _validated(values, sources)
    return Loaded(folder, settings, _Sources(sources))


def _is_plain(values: Mapping[str, Any]) -> bool:
    """Whether values are right as they are, without a model that checks them."""
    kinds = {"lan": bool, "node": str}
    return all(type(value) is kinds.get(name) and value != "" for name, value in values.items())


def _validated(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    from pydantic import ValidationError

    from kodo.settings.fields import SECRETS, setting_name
    from kodo.settings.home import Settings

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
    from kodo.settings.fields import unit_of
    from kodo.settings.home import NAMES

    kinds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    if error["type"] not in kinds:
        return ""
    key, words = kinds[error["type"]]
    bound, unit = error["ctx"][key], unit_of(NAMES.get(name, ""))
    if unit == "bytes":
        mib = f"{bound >> 20}MiB, " if bound and bound % (1 << 20) == 0 else ""
        return f"{words} {mib}{bound} bytes"
    return f"{words} {bound:g}{unit}"


def _words(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the variables of settings that have a value, by the setting's name; warn of those nearly called so."""
    own = [name for name in environment if name.startswith("KODO_") and name not in ("KODO_HOME", *_FOR_FLOWS)]
    if not own:
        return {}
    from kodo.settings.home import ENVIRONMENT

    known = [*ENVIRONMENT.values(), "KODO_HOME", *_FOR_FLOWS]
    for variable in own:
        if variable not in known:
            near = difflib.get_close_matches(variable, known, 1, 0.85)
            if near:
                logger.warning("%s is no setting and is ignored; %s is one", variable[:80], near[0])
    return {
        name: (variable, environment[variable]) for name, variable in ENVIRONMENT.items() if environment.get(variable)
    }


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise UsageError(f"{file.parent} is not a folder; set KODO_HOME to one") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}") from None
    import tomllib  # most homes have no such file

    from kodo.settings.home import NAMES

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}") from None
    for name in values:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1, 0.5)
            hint = f"did you mean {shlex.quote(near[0])}?" if near else f"known are: {', '.join(NAMES)}"
            raise UsageError(f"{file}: unknown key {name!r}; {hint}")
    return values
