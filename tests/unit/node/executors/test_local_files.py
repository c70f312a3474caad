"""Files of runners on this machine: opened where they lie, and nothing else that has their name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kodo.node.executors.local_files import open_below


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "charts").mkdir(parents=True)
    (folder / "charts" / "a.svg").write_text("<svg/>")
    (folder / "report.md").write_text("# Report")
    (tmp_path / "secret").write_text("of the node")
    return folder


@pytest.mark.parametrize(("name", "text"), [("report.md", b"# Report"), ("charts/a.svg", b"<svg/>")])
def test_a_file_is_opened_where_it_lies(files: Path, name: str, text: bytes) -> None:
    descriptor = open_below(files, name)
    assert descriptor is not None
    assert os.read(descriptor, 100) == text
    os.close(descriptor)


def test_neither_a_link_nor_what_is_no_file_is_opened(files: Path) -> None:
    (files / "link").symlink_to(files.parent / "secret")
    (files / "folder").symlink_to(files.parent)
    (files / "loop").symlink_to("loop")
    os.mkfifo(files / "pipe")
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    for name in ("link", "folder/secret", "loop", "pipe", "charts", "missing", "report.md/x", "missing/x"):
        assert open_below(files, name) is None
    assert open_below(files / "gone", "x") is None
    assert not before or sorted(os.listdir("/proc/self/fd")) == before  # nothing stays open
