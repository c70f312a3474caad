"""A driver that is between two Rays starts none of its own, which would write into the user's home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CALLS = """
import ray  # before kodo has set what Ray reads when it is imported
from kodo.node.executors.ray.connection import prepare

prepare("127.0.0.1:1")
try:
    ray.remote(lambda: 1).remote()
except Exception as error:
    print(type(error).__name__, ray.is_initialized())
"""


def test_a_call_without_a_connection_fails_and_starts_no_ray(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split()[-1:] == ["False"], done.stderr
    assert list(tmp_path.iterdir()) == []
