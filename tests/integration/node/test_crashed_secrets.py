"""Files of keys and secrets after a crash while they were made: whole, or not there and made again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.crashes import MAKERS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", MAKERS)
def test_a_crash_at_any_step_or_a_full_disk_leaves_no_half_file(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.crashes", name, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
