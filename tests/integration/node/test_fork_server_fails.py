"""A fork server that cannot be started: the one who asked becomes the worker itself, and nobody else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kodo.node.executors.ray.forking import setup_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def no_logs(session: Path) -> None:
    pass


def logs_are_a_file(session: Path) -> None:
    (session / "logs").touch()


def log_is_a_folder(session: Path) -> None:
    (session / "logs" / "fork_server.err").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [no_logs, logs_are_a_file, log_is_a_folder])
def test_one_worker_is_started_when_the_fork_server_is_not(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    spoil(tmp_path)
    # What Ray has of these names: the worker, and what starts it without a fork server.
    (tmp_path / "default_worker.py").touch()
    (tmp_path / "setup_worker.py").write_text("import sys; sys.stderr.write('a worker\\n')")
    words = [str(tmp_path / "default_worker.py"), f"--raylet-name={tmp_path}/sockets/raylet"]
    # The end of stderr comes once every process that has it is gone.
    done = subprocess.run(
        [sys.executable, setup_worker.__file__, *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.count("a worker\n") == 1
