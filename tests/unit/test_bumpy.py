"""`bumpy.py` changes the version in both files, or nothing at all."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import bumpy

PYPROJECT = """\
[build-system]
requires = ["hatchling"]

[tool.other]
version = "9.9.9"

[project]
name = "kodo"
version = "0.1.9"  # one place
dependencies = ["x==0.1.9"]

[tool.more]
version = "8.8.8"
"""

CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- Things.

## [0.1.9] - 2026-01-02

- Older things.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.mark.parametrize(("step", "expected"), [("major", "1.0.0"), ("minor", "0.2.0"), ("patch", "0.1.10")])
def test_each_step_counts_one_number_up_and_resets_those_after_it(root: Path, step: str, expected: str) -> None:
    assert bumpy.main([step], root=root) == 0
    assert (root / "pyproject.toml").read_text() == PYPROJECT.replace('"0.1.9"  #', f'"{expected}"  #')


def test_set_takes_any_version(root: Path) -> None:
    assert bumpy.main(["set", "12.0.3"], root=root) == 0
    assert '\nversion = "12.0.3"  # one place\n' in (root / "pyproject.toml").read_text()


def test_unreleased_becomes_the_version_of_today_below_an_empty_unreleased(root: Path) -> None:
    before = datetime.datetime.now().astimezone().date()
    assert bumpy.main(["minor"], root=root) == 0
    days = {before, datetime.datetime.now().astimezone().date()}
    assert (root / "CHANGELOG.md").read_text() in {
        CHANGELOG.replace("## [Unreleased]", f"## [Unreleased]\n\n## [0.2.0] - {day.isoformat()}") for day in days
    }


def test_line_ends_and_mode_stay_as_they_were(root: Path) -> None:
    (root / "CHANGELOG.md").write_bytes(CHANGELOG.replace("\n", "\r\n").encode())
    os.chmod(root / "CHANGELOG.md", 0o640)
    assert bumpy.main(["patch"], root=root) == 0
    changed = (root / "CHANGELOG.md").read_bytes()
    assert changed.count(b"\n") == changed.count(b"\r\n") == CHANGELOG.count("\n") + 2
    assert stat.S_IMODE((root / "CHANGELOG.md").stat().st_mode) == 0o640


def test_dry_run_says_what_it_would_do_and_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(root)
    assert bumpy.main(["patch", "--dry-run"], root=root) == 0
    assert "0.1.9 -> 0.1.10" in capsys.readouterr().out
    assert contents(root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["huge"],
        ["set"],
        ["set", "1.2"],
        ["set", "1.2.3.4"],
        ["set", "01.2.3"],
        ["set", "1.2.3rc1"],
        ["set", "1.2.3\n"],
        ["set", "١.2.3"],
        ["patch", "1.2.3"],
        ["patch", "--loud"],
        ["set", "0.1.9"],
    ],
)
def test_a_bad_argument_changes_nothing(root: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(root)
    try:
        code: object = bumpy.main(arguments, root=root)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert capsys.readouterr().err
    assert contents(root) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "[project\nversion = "),
        ("pyproject.toml", "[project]\nname = 'kodo'\n"),
        ("pyproject.toml", "[project]\nname = 'kodo'\ndynamic = ['version']\n[tool.x]\nversion = '0.1.9'\n"),
        ("pyproject.toml", "[project]\nversion = 'later'\n"),
        ("pyproject.toml", f"[project]\nversion = '1.2.{'9' * 5000}'\n"),
        ("pyproject.toml", 'project = "kodo"\n'),
        ("pyproject.toml", "[project]\ndescription = '''\nversion = '0'\n'''\nversion = '0.1.9'\n"),
        ("CHANGELOG.md", "# Changelog\n"),
        ("CHANGELOG.md", "## [Unreleased]\n\n## [Unreleased]\n"),
        ("CHANGELOG.md", "## [Unreleased]\n\n## [0.1.10] - 2026-01-01\n"),
    ],
)
def test_a_file_that_cannot_be_understood_changes_nothing(
    root: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / name).write_text(text)
    before = contents(root)
    assert bumpy.main(["patch"], root=root) == 2
    assert name in capsys.readouterr().err
    assert contents(root) == before


@pytest.mark.parametrize("name", ["pyproject.toml", "CHANGELOG.md"])
def test_a_missing_file_changes_nothing(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / name).unlink()
    before = contents(root)
    assert bumpy.main(["patch"], root=root) == 2
    assert name in capsys.readouterr().err
    assert contents(root) == before


def test_bytes_that_are_no_text_change_nothing(root: Path) -> None:
    (root / "CHANGELOG.md").write_bytes(b"## [Unreleased]\n\xff\n")
    before = contents(root)
    assert bumpy.main(["patch"], root=root) == 2
    assert contents(root) == before


def test_when_the_second_file_cannot_be_replaced_the_first_is_put_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, before = os.replace, contents(root)

    def failing(source: Path, target: Path) -> None:
        if Path(target).name == "CHANGELOG.md":
            raise PermissionError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    assert bumpy.main(["patch"], root=root) == 2
    assert contents(root) == before


def test_the_script_works_beside_its_files_with_the_standard_library_only(root: Path, tmp_path: Path) -> None:
    script = root / "bumpy.py"
    script.write_bytes(Path(bumpy.__file__).read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), "set", "3.2.1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 'version = "3.2.1"' in (root / "pyproject.toml").read_text()
