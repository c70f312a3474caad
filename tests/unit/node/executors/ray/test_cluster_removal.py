"""What an embedded Ray has written is removed, and nobody waits for that longer than is said."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from kodo.node.executors.ray import cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sessions" / "session_1" / "logs").mkdir(parents=True)
    (tmp_path / "sessions" / "session_1" / "logs" / "a.log").write_text("a")
    (tmp_path / "removed-0123456789abcdef").mkdir()
    (tmp_path / "token").write_text("t")
    return tmp_path


def test_all_that_ray_has_written_goes_and_what_an_earlier_stop_left(folder: Path) -> None:
    cluster._remove_sessions(folder, time.monotonic() + 60)
    assert [path.name for path in folder.iterdir()] == ["token"]
    cluster._remove_sessions(folder, time.monotonic() + 60)


def test_what_takes_long_goes_on_beside_and_is_nobodys_session_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_REMOVE", "import time\ntime.sleep(600)")
    cluster._remove_sessions(folder, 0.0)
    left = str(folder / "removed-0123456789abcdef")
    (removing,) = [process for process in psutil.Process().children() if left in process.cmdline()]
    try:
        assert not (folder / "sessions").exists()
    finally:
        removing.kill()
        removing.wait()
