"""Nothing is launched twice because a call was cut; the secret of a home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kodo.mcp.launches import Launches
from kodo.mcp.state import load_secret
from kodo.p2p.errors import UsageError


def test_a_cut_call_made_again_is_the_same_launch(tmp_path: Path) -> None:
    launches = Launches(tmp_path / "launches.json", b"s" * 32)
    first = launches.begin("p/x", {"a": 1})
    beside = launches.begin("p/x", {"a": 1})
    assert beside != first  # two calls at once are two launches
    launches.cut(first)
    assert launches.begin("p/x", {"a": 2}) not in (first, beside)
    assert launches.begin("p/x", {"a": 1}) == first
    launches.end(first)
    assert launches.begin("p/x", {"a": 1}) not in (first, beside)


def test_a_bridge_that_died_leaves_its_launch_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "launches.json"
    key = Launches(path, b"s" * 32).begin("p/x", {"topic": "private"})
    assert "private" not in path.read_text()
    assert Launches(path, b"s" * 32).begin("p/x", {"topic": "private"}) != key  # this process lives
    rows = json.loads(path.read_text())
    for row in rows:
        row["owner"] = "999999999:1.0:x"
    path.write_text(json.dumps(rows))
    assert Launches(path, b"s" * 32).begin("p/x", {"topic": "private"}) == key


@pytest.mark.parametrize("text", ["", "no JSON", "3", '[{"digest": 1}]', "[null]", "[" * 100_000])
def test_a_damaged_file_of_launches_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "launches.json"
    path.write_text(text)
    launches = Launches(path, b"s" * 32)
    launches.end(launches.begin("p/x", {}))
    assert json.loads(path.read_text()) == []


def test_the_secret_of_a_home_stays(tmp_path: Path) -> None:
    first = load_secret(tmp_path / "home")
    assert len(first) == 32
    assert load_secret(tmp_path / "home") == first
    assert load_secret(tmp_path / "other") != first
    assert (tmp_path / "home" / "mcp.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "home" / "mcp.key").write_bytes(b"short")
    with pytest.raises(UsageError, match="damaged"):
        load_secret(tmp_path / "home")
