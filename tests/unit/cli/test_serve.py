"""What the flags of `koco up` set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.settings.fields import setting_name
from kodo.settings.node import NodeSettings

GIVEN = {
    "--max-runs": ("3", "max_runs", 3),
    "--max-live": ("40", "max_live", 40),
    "--max-live-each": ("7", "max_live_each", 7),
    "--adopt": ("2m", "adopt_s", 120.0),
    "--max-db": ("2GB", "max_db_bytes", 2_000_000_000),
    "--runners": ("1", "runners", 1),
    "--retention": ("3d", "retention_s", 259_200.0),
    "--quota": ("5MiB", "quota_bytes", 5 << 20),
    "--disk-reserve": ("1MiB", "disk_reserve_bytes", 1 << 20),
    "--object-store": ("90MiB", "object_store_bytes", 90 << 20),
    "--num-cpus": ("2", "num_cpus", 2),
    "--port": ("4711", "port", 4711),
    "--name": ("here.example", "name", "here.example"),
}
"""Flags with a value, the setting of each, and what it is then."""


def up(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `koco up` up to where a node would be made; it prints the settings instead."""
    code = f"""
import sys
import kodo.cli.nodes
def stop(loaded, **given):
    print(loaded.settings.model_dump_json())
    raise SystemExit(0)
kodo.cli.nodes.node_config = stop
from kodo.cli.main import run
sys.exit(run({["up", "scope.yaml", *words]!r}))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    environment["KODO_HOME"] = str(home)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_each_flag_sets_its_setting(tmp_path: Path) -> None:
    done = up(tmp_path, *(word for flag, (text, *_) in GIVEN.items() for word in (flag, text)))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {flag: said[field] for flag, (_, field, _) in GIVEN.items()} == {
        flag: value for flag, (_, _, value) in GIVEN.items()
    }


@pytest.mark.parametrize(
    ("flag", "text", "advice"),
    [
        ("--max-runs", "0", "greater than or equal to 1"),
        ("--adopt", "soon", "a duration such as 500ms, 30s, 5m, 12h or 7d; it is 'soon'"),
        ("--max-db", "lots", "a size such as 200MB, 256MiB or 50GB; it is 'lots'"),
        ("--max-db", "1", "at least 1MiB"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_could(tmp_path: Path, flag: str, text: str, advice: str) -> None:
    done = up(tmp_path, flag, text)
    assert (done.returncode, done.stdout) == (2, "")
    assert flag.removeprefix("--").replace("-", "_") in done.stderr.replace("-", "_")
    assert advice in " ".join(done.stderr.split())


def test_what_limits_runs_has_a_flag() -> None:
    limits = {
        setting_name(field) for field in NodeSettings.model_fields if field.startswith(("max_live", "max_runs"))
    }
    assert {f"--{name.replace('_', '-')}" for name in limits} <= GIVEN.keys()


@pytest.mark.parametrize(
    "words",
    [["--issuer", "https://i.example"], ["--audience", "a"], ["--client-id", "c"], ["--auth-oidc-bound"]],
    ids=lambda words: words[0],
)
def test_an_issuer_without_its_provider_is_refused(tmp_path: Path, words: list[str]) -> None:
    done = up(tmp_path, *words)
    assert (done.returncode, "--auth oidc" in done.stderr) == (2, True)
    assert up(tmp_path, "--auth", "oidc", *words).returncode == 0
