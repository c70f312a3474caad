"""`koco mcp` before it serves: what it says where it cannot, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def koco(home: Path, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom kodo.cli.main import run\nsys.exit(run({['mcp', *words]!r}))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "KODO_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_the_package_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    done = koco(tmp_path, "--no-lan", before="sys.modules['mcp'] = None")
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "pip install -e '.[mcp]'" in line


def test_a_hosts_settings_are_printed_without_the_package(tmp_path: Path) -> None:
    done = koco(tmp_path, "--print-config", "vscode", "--read-only", before="sys.modules['mcp'] = None")
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)["servers"]["kodo"]
    assert server["type"] == "stdio"
    assert server["args"] == ["mcp", "--read-only"]
    assert server["env"] == {"KODO_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--print-config", "emacs"], "claude, vscode, cursor, codex"),
        (["--files", "/no/such/folder"], "is not a folder"),
        (["--wait", "soon"], "--wait takes seconds"),
        (["--wait", "0"], "--wait takes seconds"),
        (["--level", "3"], "--level"),
    ],
)
def test_misuse_is_said_on_stderr_alone(tmp_path: Path, words: list[str], said: str) -> None:
    done = koco(tmp_path, *words, "--no-lan")
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_closes_its_side_ends_the_bridge(tmp_path: Path) -> None:
    done = koco(tmp_path, "--no-lan")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
