"""One vocabulary of settings: a name in the file, the environment and flags; its unit in Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kodo.cli.manage import _masked
from kodo.cli.nodes import node_config
from kodo.client.config import load_settings
from kodo.node.config import NodeConfig
from kodo.p2p.errors import UsageError
from kodo.registry.server import RegistryConfig
from kodo.settings.client import ClientSettings
from kodo.settings.fields import SECRETS, SettingsModel, setting_name, unit_of
from kodo.settings.home import ENVIRONMENT, NAMES, Settings
from kodo.settings.node import NodeSettings
from kodo.settings.registry import RegistrySettings

MODELS: list[type[SettingsModel]] = [ClientSettings, NodeSettings, RegistrySettings, NodeConfig, RegistryConfig]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_says_what_it_is_for(model: type[SettingsModel]) -> None:
    assert [
        name for name, field in model.model_fields.items() if not str(field.description).endswith((".", "`)."))
    ] == []


@pytest.mark.parametrize("model", MODELS)
def test_durations_and_sizes_end_with_their_unit(model: type[SettingsModel]) -> None:
    for name, field in model.model_fields.items():
        parsed = re.findall(r"parse_(seconds|bytes)", str(field))
        assert ["seconds" if unit_of(name) == "s" else "bytes"] == parsed or not parsed, name


@pytest.mark.parametrize("model", MODELS)
def test_a_model_cannot_be_changed(model: type[SettingsModel]) -> None:
    assert model.model_config["frozen"] is True


def test_no_two_fields_are_one_setting() -> None:
    assert len(NAMES) == len(Settings.model_fields)
    assert {setting_name(field) for field in Settings.model_fields} == set(NAMES) == set(ENVIRONMENT)


def test_a_config_takes_names_of_settings_and_of_fields(tmp_path: Path) -> None:
    assert NodeConfig.model_validate({"home": tmp_path, "retention": "2d"}).retention_s == 172_800
    assert NodeConfig.model_validate({"home": tmp_path, "retention_s": 60}).retention_s == 60


FORMER = {
    "hosts": ("127.0.0.1",),
    "registries": ("http://127.0.0.1:8360",),
    "announce_lan": False,
    "unread_s": 1.0,
    "upload_s": 2.0,
    "log_s": 3.0,
    "warm_s": 4.0,
}


@pytest.mark.parametrize("name", FORMER)
def test_names_of_earlier_releases_are_still_taken(name: str, tmp_path: Path) -> None:
    made = NodeConfig.model_validate({"home": tmp_path, name: FORMER[name]})
    assert getattr(made, NodeConfig.former_names[name]) == FORMER[name]
    assert FORMER.keys() == NodeConfig.former_names.keys()


def test_a_former_name_of_a_registry_is_still_taken(tmp_path: Path) -> None:
    assert RegistryConfig.model_validate({"home": tmp_path, "mesh_s": 0.5}).mesh_interval_s == 0.5


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_runs", "3", 3),
        ("max_live", "30", 30),
        ("max_live_each", "7", 7),
        ("adopt", "5m", 300.0),
        ("max_db", "2GB", 2_000_000_000),
        ("keep_unread", "90d", 7_776_000.0),
        ("quota", "50GB", 50_000_000_000),
    ],
)
def test_a_node_gets_what_is_set(name: str, text: str, value: object, tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, environment={f"KODO_{name.upper()}": text})
    made = node_config(loaded, scope=None, registries=())
    assert getattr(made, NAMES[name]) == value


def test_what_is_not_set_is_what_a_node_has_by_itself(tmp_path: Path) -> None:
    made = node_config(load_settings(tmp_path, environment={}), scope=None, registries=())
    assert made == NodeConfig(home=tmp_path)


@pytest.mark.parametrize(("text", "rate"), [("off", 0), ("10MB", 10_000_000), ("1KiB", 1024), ("0", 0)])
def test_a_rate_is_bytes_a_second_or_off(text: str, rate: int) -> None:
    assert RegistrySettings.model_validate({"relay": text}).relay_bytes == rate


@pytest.mark.parametrize(
    "urls", ["stun:a.example", "turn:a.example/x", "turn:a b", "turn:a.example:x", "turn:" + "a" * 260, "turn:a " * 5]
)
def test_a_url_of_no_turn_server_is_refused(urls: str) -> None:
    with pytest.raises(ValueError, match=r"write turn:HOST|at most 4"):
        RegistrySettings.model_validate({"turn": urls})


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("turns:turn.example.com:99", "port 80, 443 or from 1024 on"),
        ("turn:turn.example.com:70000", "port 80, 443 or from 1024 on"),
        ("turn:[1:2]:3478", "no address"),
        ("turn:127.1", "no address"),
        ("turn:0x7f000001", "no address"),
    ],
)
def test_a_turn_server_that_no_page_would_use_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RegistrySettings.model_validate({"turn": url})
    good = "turns:turn.example.com:443?transport=tcp turn:t.example:80 turn:192.0.2.7 turn:[2001:db8::7]:1024"
    assert RegistrySettings.model_validate({"turn": good}).turn == tuple(good.split())


def test_the_secret_of_a_turn_server_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hush-hush-0123456789"
    loaded = load_settings(tmp_path, environment={"KODO_TURN_SECRET": secret})
    assert loaded.settings.turn_secret == secret
    assert secret not in repr(loaded.settings)
    assert "turn_secret" in SECRETS
    assert _masked(secret) == "…"
    assert _masked("https://hooks.example.com/T0/secret") == "https:…"
    with pytest.raises(UsageError, match="write 16 to 512 characters") as caught:
        load_settings(tmp_path, environment={"KODO_TURN_SECRET": secret[:15]})
    assert secret[:4] not in str(caught.value)


@pytest.mark.parametrize("text", ["fast", "-1", "10MB/s", ""])
def test_a_rate_that_cannot_be_is_refused_with_what_could(text: str) -> None:
    with pytest.raises(ValueError, match="write off, or bytes a second such as 10MB"):
        RegistrySettings.model_validate({"relay": text})
