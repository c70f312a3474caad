"""What a shell offers when Tab is pressed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.cli import complete

FID = "01jd2n8x4q5w6e7r8t9y0abcde"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KODO_HOME", str(tmp_path))
    return tmp_path


def test_states_nodes_flows_and_runs_are_offered_from_files(home: Path) -> None:
    (home / "known_nodes").write_text("flows.example 12D3a\nother.example 12D3b\n\n")
    complete.keep(home, "flows", ["flows.example/a.Report", "other.example/b"])
    complete.keep(home, "runs", [f"flows.example/{FID}"])
    assert complete.complete_state("r") == ["running"]
    assert complete.complete_node("f") == ["flows.example"]
    assert complete.complete_flow("flows") == ["flows.example/a.Report"]
    assert complete.complete_run("flows") == [f"flows.example/{FID}"]
    assert complete.complete_run(FID[:5]) == [FID]
    assert complete.complete_run("") == [f"flows.example/{FID}"]


def test_a_home_without_anything_offers_nothing(home: Path) -> None:
    complete.keep(home / "none", "flows", ["x"])
    assert not (home / "none").exists()
    assert (complete.complete_node(""), complete.complete_flow(""), complete.complete_run("")) == ([], [], [])


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"flows": 3, "runs": [1, null]}', "\x00", "[" * 100_000])
def test_a_damaged_file_offers_nothing(home: Path, text: str) -> None:
    (home / "completion.json").write_text(text)
    assert (complete.complete_flow(""), complete.complete_run("")) == ([], [])


def test_the_latest_are_kept_and_no_more_than_the_bound(home: Path) -> None:
    complete.keep(home, "flows", [f"n/{number}" for number in range(500)])
    complete.keep(home, "flows", ["n/new", "n/3"])
    found = complete.complete_flow("")
    assert (len(found), found[:3]) == (complete.MAX_KEPT, ["n/new", "n/3", "n/0"])


def test_nothing_that_acts_on_a_terminal_is_offered(home: Path) -> None:
    complete.keep(home, "flows", ["n/\x1b[2J", "n/\u202ex", "n/a\nb", "n/fine"])
    assert complete.complete_flow("") == ["n/fine"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("koco ps --state r", ["running"]),
        ("koco show fl", ["flows.example/a.Report"]),
        ("koco follow fl", [f"flows.example/{FID}"]),
        ("koco locks --node fl", ["flows.example"]),
        ("koco download fl", [f"flows.example/{FID}"]),
    ],
)
def test_the_shell_asks_for_them(home: Path, words: str, offered: list[str]) -> None:
    (home / "known_nodes").write_text("flows.example 12D3a\n")
    complete.keep(home, "flows", ["flows.example/a.Report"])
    complete.keep(home, "runs", [f"flows.example/{FID}"])
    code = """
import sys
from kodo.cli.main import app
try:
    app(prog_name="koco")
finally:
    heavy = ("kodo.client.client", "kodo.p2p.net.host", "rich", "aiohttp", "ray")
    print("|", *[name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    environment = {
        **os.environ,
        "_KOCO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == offered, done.stderr
    assert done.stderr.rpartition("|")[2].split() == []
