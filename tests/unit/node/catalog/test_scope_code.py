"""Which sources of a scope are looked at and kept."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kodo.node.catalog import scope_code
from kodo.node.catalog.scope_code import ScopeCode, packages_below


def files(code: ScopeCode, root: Path) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in code.look())


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1")


def test_python_and_yaml_files_are_sources_and_what_is_installed_or_hidden_is_not(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "scope.yaml", "b.yml", "data.csv", "pack/c.py", "pack/deep/d.py")
    made(tmp_path, ".hidden/e.py", "env/pyvenv.cfg", "env/lib/f.py", "node_modules/g.py", "__pycache__/h.py")
    assert files(ScopeCode([tmp_path], None), tmp_path) == [
        "a.py",
        "b.yml",
        "pack/c.py",
        "pack/deep/d.py",
        "scope.yaml",
    ]


def test_many_sources_are_bounded_and_the_nearest_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scope_code, "MAX_FILES", 3)
    made(tmp_path, "far/a.py", "far/b.py", "x.py", "y.py")
    code = ScopeCode([tmp_path], None)
    assert files(code, tmp_path) == ["far/a.py", "x.py", "y.py"]
    assert files(code, tmp_path) == ["far/a.py", "x.py", "y.py"]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["there are more than 3 sources"]


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    made(tmp_path, "a.py")
    (tmp_path / "again").symlink_to(tmp_path)
    assert files(ScopeCode([tmp_path], None), tmp_path) == ["a.py"]


def test_the_home_of_the_node_does_not_count(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "home/outputs/b.py")
    assert files(ScopeCode([tmp_path], None, without=tmp_path / "home"), tmp_path) == ["a.py"]


def test_edits_new_files_and_removals_show(tmp_path: Path) -> None:
    made(tmp_path, "a.py", "b.py")
    code = ScopeCode([tmp_path], None)
    before = code.look()
    (tmp_path / "a.py").write_text("x = 10")
    assert code.look() != before
    made(tmp_path, "a.py", "c.py")
    assert len(code.look()) == 3
    (tmp_path / "b.py").unlink()
    assert files(code, tmp_path) == ["a.py", "c.py"]


def test_the_same_sources_are_kept_once_and_gone_when_they_are_forgotten(tmp_path: Path) -> None:
    made(tmp_path / "scope", "a.py")
    code = ScopeCode([tmp_path / "scope"], tmp_path / "code")
    kept = asyncio.run(code.keep(code.look()))
    assert asyncio.run(code.keep(code.look())) == kept
    assert Path(kept).stat().st_mode & 0o777 == 0o600
    made(tmp_path / "scope", "b.py")
    other = asyncio.run(code.keep(code.look()))
    code.forget([kept])
    assert (Path(kept).exists(), Path(other).exists()) == (True, False)
    code.forget()
    assert not Path(kept).exists()


def test_what_stands_beside_the_code_counts_when_it_changes_and_is_not_kept(tmp_path: Path) -> None:
    made(tmp_path / "scope", "a.py")
    secrets = tmp_path / "scope" / ".env"
    code = ScopeCode([tmp_path / "scope"], tmp_path / "code", [secrets])
    before = asyncio.run(code.keep(code.look()))
    secrets.write_text("KEY=sk-1234567890")
    after = asyncio.run(code.keep(code.look()))
    assert after != before
    assert b"sk-1234567890" not in Path(after).read_bytes()
    (tmp_path / "lib").mkdir()
    made(tmp_path / "lib", "b.py")
    code.watch([tmp_path / "scope", tmp_path / "lib"])
    assert files(code, tmp_path) == ["lib/b.py", "scope/a.py"]


def test_a_disk_that_takes_nothing_is_told_and_no_code_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, "a.py", "file")
    assert asyncio.run(ScopeCode([tmp_path], tmp_path / "file" / "code").keep({})) == ""
    assert "cannot be kept" in caplog.text


def test_what_is_no_regular_file_is_no_source(tmp_path: Path) -> None:
    made(tmp_path, "a.py")
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / ".env")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert files(ScopeCode([tmp_path], None, [tmp_path / ".env"]), tmp_path) == ["a.py"]


def test_of_a_root_above_the_scopes_folder_only_the_package_that_leads_there_counts(tmp_path: Path):
    own = tmp_path / "app" / "flows"
    assert packages_below([own, tmp_path, tmp_path / "src"]) == [own, tmp_path / "app", tmp_path / "src"]
    assert packages_below([]) == []
