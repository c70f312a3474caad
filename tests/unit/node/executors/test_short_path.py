"""A short path to a long folder: used again only when it still is this user's, and leads where it led."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kodo.node.executors.short_path import MAX_PATH_BYTES, leads_to, make_short_path, remove_short_path


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / ("long-name-" * 8) / "sessions"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def path(real: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as base:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        yield Path(make_short_path(real))


def test_a_short_path_is_used_as_it_is(tmp_path: Path) -> None:
    assert make_short_path(Path("/short")) == "/short"
    assert leads_to(str(tmp_path), tmp_path)


def test_a_link_is_short_lies_in_a_folder_of_its_own_and_goes_with_it(path: Path, real: Path) -> None:
    assert len(os.fsencode(path)) <= MAX_PATH_BYTES
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.samefile(real)
    assert leads_to(str(path), real)
    remove_short_path(str(path), real)
    remove_short_path(str(path), real)
    assert not path.parent.exists()


@pytest.mark.parametrize("gone", ["link", "folder"])
def test_what_a_cleaner_removed_is_made_again(path: Path, real: Path, gone: str) -> None:
    path.unlink()
    if gone == "folder":
        path.parent.rmdir()
    assert leads_to(str(path), real)
    assert path.samefile(real)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_home_that_is_named_in_another_way_is_the_same(path: Path, real: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(real.parent)
    assert leads_to(str(path), tmp_path / "other" / "sessions")
    assert leads_to(str(tmp_path / "other" / "sessions"), real)


def _open_to_others(path: Path) -> None:
    path.parent.chmod(0o770)


def _readable(path: Path) -> None:
    path.parent.chmod(0o755)


def _folder_is_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(path.parent.with_name("moved"))


def _folder_is_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


def _another_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link_to_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/usr")


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    "replace",
    [
        _open_to_others,
        _readable,
        _folder_is_a_link,
        _folder_is_a_file,
        _another_folder,
        _link_to_elsewhere,
        _link_to_nothing,
    ],
)
def test_what_others_could_have_put_there_is_neither_used_nor_removed(
    path: Path, real: Path, replace: Callable[[Path], None]
) -> None:
    replace(path)
    there = os.path.lexists(path)
    assert not leads_to(str(path), real)
    remove_short_path(str(path), real)
    assert os.path.lexists(path) is there


def test_what_belongs_to_another_user_is_not_used(path: Path, real: Path) -> None:
    assert not leads_to(str(path), real, user=os.geteuid() + 1)
