"""Processes that are known by a variable in their environment, which they give to whatever they start."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

__all__ = ["end_marked", "find_marked", "is_marked"]


def find_marked(variable: str, value: str, *, user: int | None = None) -> list[psutil.Process]:
    """Return a user's processes, but for this one, in whose environment `variable` is `value`.

    Args:
        user: the user's id; None: this process's.
    """
    mine = os.getuid() if user is None else user
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.pid != os.getpid()
                and process.uids().real == mine
                and process.environ().get(variable) == value
            ):
                found.append(process)
    return found


def end_marked(variable: str, value: str, *, user: int | None = None) -> None:
    """Kill processes that `find_marked` gives; blocks for at most 5 s."""
    deadline = time.monotonic() + 5.0
    while (found := find_marked(variable, value, user=user)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=0.5)


def is_marked(pid: int, variable: str, value: str) -> bool:
    """Return whether a process is this user's, and has `variable` as `value` in its environment."""
    try:
        process = psutil.Process(pid)
        return process.uids().real == os.getuid() and process.environ().get(variable) == value
    except (psutil.Error, ValueError, OverflowError):
        return False
