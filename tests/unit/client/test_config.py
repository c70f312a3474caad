"""Settings: which word counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client.config import load_settings
from kodo.p2p.errors import UsageError
from kodo.settings.client import ClientSettings
from kodo.settings.defaults import CLIENT_DEFAULTS
from kodo.settings.home import ENVIRONMENT, Settings
from kodo.settings.units import parse_bytes


def write(home: Path, text: str) -> None:
    (home / "kodo.toml").write_text(text)


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, environment={})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"flag", "default"}


def test_the_defaults_at_hand_are_those_of_the_model(tmp_path: Path) -> None:
    model = ClientSettings()
    assert {name: getattr(model, name) for name in ClientSettings.model_fields} == CLIENT_DEFAULTS
    given = load_settings(tmp_path, {"lan": False, "node": "alpha"}, environment={})
    assert given.settings == Settings(lan=False, node="alpha")
    assert (given.settings.lan, given.settings.node, given.settings.port) == (False, "alpha", 0)
    assert (given.sources["lan"], given.sources["port"]) == ("flag", "default")


@pytest.mark.parametrize("flags", [{"lan": "maybe"}, {"node": ""}, {"node": 5}])
def test_what_no_model_has_checked_is_right_as_it_is(tmp_path: Path, flags: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(flags))):
        load_settings(tmp_path, flags, environment={})


def test_the_file_wins_over_defaults(tmp_path: Path) -> None:
    write(tmp_path, "port = 4711\n")
    loaded = load_settings(tmp_path, environment={})
    assert loaded.settings.port == 4711
    assert loaded.sources["port"] == str(tmp_path / "kodo.toml")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "port = 4711\n")
    loaded = load_settings(tmp_path, environment={"KODO_PORT": "4712"})
    assert loaded.settings.port == 4712
    assert loaded.sources["port"] == "env KODO_PORT"


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, {"port": 4713}, {"KODO_PORT": "4712"})
    assert loaded.settings.port == 4713
    assert loaded.sources["port"] == "flag"


def test_a_flag_that_was_not_given_does_not_count(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"port": None}, {"KODO_PORT": "4712"}).settings.port == 4712


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    write(tmp_path, "name = 'n'\n")
    assert load_settings(tmp_path, environment={"KODO_NAME": ""}).settings.name == "n"


def test_the_home_comes_from_the_environment(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\n")
    loaded = load_settings(environment={"KODO_HOME": str(tmp_path)})
    assert (loaded.home, loaded.settings.port) == (tmp_path, 1)
    assert loaded.sources["home"] == "env KODO_HOME"


def test_an_unknown_key_is_an_error_with_the_nearest_known_name(tmp_path: Path) -> None:
    write(tmp_path, "ray_adress = 'x'\n")
    with pytest.raises(UsageError, match="ray_address"):
        load_settings(tmp_path, environment={})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "70000"),
        ("port", "x"),
        ("lan", "maybe"),
        ("timeout", "-1"),
        ("object_store", "1k"),
        ("timeout", "3ſ"),
        ("object_store", "9" * 400),
    ],
)
def test_a_bad_value_is_refused_with_its_place(tmp_path: Path, name: str, text: str) -> None:
    variable = ENVIRONMENT[name]
    with pytest.raises(UsageError, match=variable):
        load_settings(tmp_path, environment={variable: text})


def test_several_registries_stand_in_one_variable(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, environment={"KODO_REGISTRY": "http://a:1 http://b:2"})
    assert loaded.settings.registry == ("http://a:1", "http://b:2")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "port 4711")
    with pytest.raises(UsageError, match="not TOML"):
        load_settings(tmp_path, environment={})


@pytest.mark.parametrize(
    ("text", "size"), [("200MB", 200_000_000), ("1 GiB", 1 << 30), ("1.5k", 1500), ("7", 7), ("2kib", 2048)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_further_flags_are_told_as_flags(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, environment={"KODO_PORT": "1"}).override(port=2, name=None)
    assert (loaded.settings.port, loaded.sources["port"]) == (2, "flag")
    assert loaded.sources["name"] == "default"


def test_a_further_flag_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="port"):
        load_settings(tmp_path, environment={}).override(port=-1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("quota", "1MB", "at least 1MiB, 1048576 bytes"),
        ("object_store", "1k", "at least"),
        ("timeout", "9999d", "at most 86400s"),
        ("port", "70000", "at most 65535"),
    ],
)
def test_a_bound_is_told_as_people_write_it(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_settings(tmp_path, environment={ENVIRONMENT[name]: text})


def test_a_variable_with_a_typo_is_told_with_the_nearest_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("KODO_TIMEOT", "KODO_RUNNER", "KODO_EVENTS", "KODO_CREW_MODEL", "KODO_SOMETHING_ELSE", "OTHER")
    load_settings(tmp_path, environment=dict.fromkeys(names, "1"))
    [told] = caplog.messages
    assert ("KODO_TIMEOT" in told, "KODO_TIMEOUT" in told) == (True, True)


@pytest.mark.parametrize(
    "value", ["http://proxy.example:3128", "https://me:secret@proxy.example", "http://[2001:db8::1]:3128", "system"]
)
def test_a_proxy_is_a_url_or_the_systems(tmp_path: Path, value: str) -> None:
    assert load_settings(tmp_path, environment={"KODO_PROXY": value}).settings.proxy == value


@pytest.mark.parametrize(
    "value", ["proxy.example:3128", "socks5://proxy.example", "http://me:secret@proxy.example/path", "http:///path"]
)
def test_what_is_no_proxy_is_refused_without_being_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT") as refused:
        load_settings(tmp_path, environment={"KODO_PROXY": value})
    assert value not in str(refused.value)
