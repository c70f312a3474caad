"""What a node has done on a machine of a joined cluster, as a Ray task: looking at it, and clearing it up."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence

from kodo.node.executors.marked_processes import end_marked
from kodo.node.executors.runner.service import kodo_version
from kodo.node.executors.runner.storage import place_of_runner

__all__ = ["clear_up", "versions"]


def versions() -> dict[str, str]:
    """Return what this machine has: `python` and `kodo`."""
    return {"python": platform.python_version(), "kodo": kodo_version()}


def clear_up(runners: Sequence[str]) -> None:
    """End what is left of runners that were given up while their machine was away, and remove their files."""
    for name in runners:
        end_marked("KODO_RUNNER", name)
        shutil.rmtree(place_of_runner(name), ignore_errors=True)
