"""What hosts are told to start the bridge."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.client.config import load_settings
from kodo.mcp.config import HOSTS, config_for, configs_of_flow
from kodo.mcp.options import BridgeOptions
from kodo.p2p.errors import UsageError


@pytest.mark.parametrize("host", HOSTS)
def test_a_hosts_settings_start_the_same_bridge(host: str, tmp_path: Path) -> None:
    options = BridgeOptions("a.example", ("flows.*",), ("flows.x",), True, 2, (tmp_path,), 20.0)
    loaded = load_settings(tmp_path, {"registry": ["http://127.0.0.1:1"], "lan": False}, {})
    text = config_for(host, options, loaded, "/opt/koco")
    read = tomllib.loads(text) if host == "codex" else json.loads(text)
    server = read[HOSTS[host]]["kodo"]
    assert server["command"] == "/opt/koco"
    assert server["args"] == [
        *("mcp", "--node", "a.example", "--flow", "flows.*", "--allow", "flows.x", "--read-only"),
        *("--level", "2", "--wait", "20", "--files", str(tmp_path)),
    ]
    assert server["env"] == {
        "KODO_HOME": str(tmp_path),
        "KODO_REGISTRY": "http://127.0.0.1:1",
        "KODO_LAN": "false",
    }


def test_settings_of_an_unknown_host_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="claude, vscode, cursor, codex"):
        config_for("emacs", BridgeOptions(), load_settings(tmp_path, {}, {}))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_one_flow_becomes_a_tool_whatever_its_path(path: str) -> None:
    loaded = load_settings(Path("/home/ana/kodo"), {}, {})
    for host, text in configs_of_flow("12D3KooWpeer", path, loaded).items():
        assert text.isascii()
        server = (tomllib.loads(text) if host == "codex" else json.loads(text))[HOSTS[host]]["kodo"]
        words = server["args"]
        assert words[:4] == ["mcp", "--node", "12D3KooWpeer", "--flow"]
        options = BridgeOptions(flows=(words[4],))
        assert options.shows("a.example", "12D3KooWpeer", path)
        assert not options.shows("a.example", "12D3KooWpeer", path + "x")


def test_defaults_are_not_written_out(tmp_path: Path) -> None:
    read = json.loads(config_for("claude", BridgeOptions(), load_settings(None, {}, {}), "koco"))
    assert read == {"mcpServers": {"kodo": {"command": "koco", "args": ["mcp"]}}}
