"""Which files Code Atlas reads, from folders and from zips."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from kodo.p2p.errors import CapacityError, UsageError
from kodo.samples.atlas import sources
from kodo.samples.atlas.sources import Source, open_tree

FILES = {
    "a.py": "x",
    "p/__init__.py": "",
    "p/b.py": "y",
    "p/q/c.py": "z",
    "p/note.txt": "no",
    "p/__pycache__/b.py": "no",
    "site-packages/d.py": "no",
    ".hidden/e.py": "no",
}

EXPECTED = [
    Source("a.py", 1, "a", ""),
    Source("p/__init__.py", 0, "p", "p"),
    Source("p/b.py", 1, "p.b", "p"),
    Source("p/q/c.py", 1, "p.q.c", "p"),
]


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def archive(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path / "tree.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return path / "tree.zip"


@pytest.mark.parametrize("make", [folder, archive])
def test_python_files_are_found_and_what_is_not_the_projects_own_is_left_out(tmp_path: Path, make: object) -> None:
    root = make(tmp_path, FILES)  # type: ignore[operator]
    with open_tree(str(root)) as tree:
        assert tree.sources == EXPECTED
        assert [tree.read(source.path) for source in tree.sources] == [b"x", b"", b"y", b"z"]
        assert tree.skipped == []


def test_a_folder_src_is_not_part_of_a_modules_name(tmp_path: Path) -> None:
    with open_tree(str(folder(tmp_path, {"src/p/a.py": "", "tests/b.py": ""}))) as tree:
        assert [(source.module, source.package) for source in tree.sources] == [("p.a", "p"), ("tests.b", "tests")]


def test_where_all_is_in_one_folder_the_packages_are_below_it(tmp_path: Path) -> None:
    files = {"n/m/p/a.py": "", "n/m/q/r/b.py": "", "n/m/c.py": ""}
    with open_tree(str(folder(tmp_path, files))) as tree:
        assert {source.module: source.package for source in tree.sources} == {
            "n.m.c": "n.m",
            "n.m.p.a": "n.m.p",
            "n.m.q.r.b": "n.m.q",
        }


def test_a_root_that_is_a_package_names_its_modules(tmp_path: Path) -> None:
    with open_tree(str(folder(tmp_path / "pack", {"__init__.py": "", "a.py": "", "q/b.py": ""}))) as tree:
        assert [source.module for source in tree.sources] == ["pack", "pack.a", "pack.q.b"]


def test_the_one_folder_around_a_zipped_project_is_not_part_of_the_names(tmp_path: Path) -> None:
    with open_tree(str(archive(tmp_path, {"project-1.0/p/a.py": "x", "project-1.0/setup.py": ""}))) as tree:
        assert [(source.path, source.module) for source in tree.sources] == [("setup.py", "setup"), ("p/a.py", "p.a")]
        assert tree.read("p/a.py") == b"x"


def test_a_zipped_package_keeps_its_name(tmp_path: Path) -> None:
    with open_tree(str(archive(tmp_path, {"p/__init__.py": "", "p/a.py": ""}))) as tree:
        assert [source.module for source in tree.sources] == ["p", "p.a"]


@pytest.mark.parametrize("name", ["../a.py", "p/../../a.py", "/etc/a.py"])
def test_names_that_leave_a_zip_are_not_read(tmp_path: Path, name: str) -> None:
    with open_tree(str(archive(tmp_path, {name: "no", "ok.py": "", "p/ok.py": ""}))) as tree:
        assert [source.path for source in tree.sources] == ["ok.py", "p/ok.py"]
        assert tree.skipped == [(name, "its name leaves the archive")]


@pytest.mark.parametrize("make", [folder, archive])
def test_a_file_over_the_bound_is_listed_as_skipped(
    tmp_path: Path, make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 10)
    with open_tree(str(make(tmp_path, {"a.py": "x" * 10, "b.py": "x" * 11}))) as tree:  # type: ignore[operator]
        assert [source.path for source in tree.sources] == ["a.py"]
        assert tree.skipped == [("b.py", "11 bytes, more than 10")]
        assert tree.read("a.py") == b"x" * 10


def test_a_zip_that_lies_about_a_size_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, {"a.py": "x" * 100_000, "b.py": ""})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 10)
    with open_tree(str(path)) as tree:
        try:
            content = tree.read("a.py")
        except ValueError:
            content = b""
        assert len(content) <= 10


def test_a_damaged_member_is_an_error_of_that_file_only(tmp_path: Path) -> None:
    path = archive(tmp_path, {"a.py": "abcdefgh" * 100, "b.py": "y"})
    data = bytearray(path.read_bytes())
    at = data.index(b"a.py") + 4
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    with open_tree(str(path)) as tree:
        with pytest.raises(ValueError, match="damaged"):
            tree.read("a.py")
        assert tree.read("b.py") == b"y"


@pytest.mark.parametrize("make", [folder, archive])
@pytest.mark.parametrize(("name", "bound"), [("MAX_FILES", 3), ("MAX_TOTAL_BYTES", 2)])
def test_a_tree_over_the_bounds_is_refused(
    tmp_path: Path, make: object, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(sources, name, bound)
    root = make(tmp_path, FILES)  # type: ignore[operator]
    with pytest.raises(CapacityError), open_tree(str(root)):
        pass


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    folder(tmp_path, {"a.py": ""})
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.py")
    assert stat.S_ISFIFO((tmp_path / "pipe.py").stat().st_mode)
    with open_tree(str(tmp_path)) as tree:
        assert [source.path for source in tree.sources] == ["a.py"]
        assert sorted(tree.skipped) == [("link.py", "not a regular file"), ("pipe.py", "not a regular file")]


def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for root in (tmp_path / "a.txt", tmp_path / "gone", tmp_path):
        with pytest.raises(UsageError, match=root.name), open_tree(str(root)):
            pass


def test_without_a_root_it_is_the_standard_library() -> None:
    with open_tree(None) as tree:
        assert "standard library" in tree.label
        assert {"os", "json.decoder", "asyncio"} <= {source.module for source in tree.sources}
        assert len(tree.sources) > 500
