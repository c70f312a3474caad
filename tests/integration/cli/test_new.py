"""Projects that `koco new` writes: each passes its own test and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.conftest import User


@pytest.mark.parametrize(
    ("options", "final"),
    [([], "nothing was published"), (["--yaml"], "nothing was published"), (["--graph"], None)],
)
def test_a_new_project_passes_its_test_and_runs(
    user: User, tmp_path: Path, options: list[str], final: str | None
) -> None:
    made = user("new", "my-report", *options, "--json", cwd=tmp_path)
    assert made.code == 0, made.err
    folder = tmp_path / "my-report"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(made.row["files"])
    koco, *words = made.row["run"].split()
    assert koco == "koco"
    done = user(*words, "--yes", "--json", cwd=folder)
    if final is None:  # a graph's question has no default
        assert (done.code, "has no default" in done.rows[-1]["error"]["message"]) == (2, True)
    else:
        assert (done.code, done.rows[-1]["final"]["result"]) == (0, final), done.err


def test_a_project_is_of_one_kind(user: User, tmp_path: Path) -> None:
    done = user("new", "x", "--yaml", "--graph", cwd=tmp_path)
    assert (done.code, "one of --yaml, --graph" in done.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
