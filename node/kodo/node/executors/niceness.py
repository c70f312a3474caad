"""Runners give way to their node: a flow that computes takes what processor time the node leaves.

Linux shares the processor out among sessions first, where it groups processes by them (`sched_autogroup_enabled`),
and looks at what is nice only within each: a nice process that leads a session gets as much as the whole session of
its node. So the runners of a fork server stay in the server's session, which steps back as one. Where nothing is
grouped, or by control groups, each runner is nice by itself. Source: Linux sched(7), "The autogroup feature".
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["NICE", "nice_of_session", "step_back", "step_session_back"]

NICE = 5
"""How nice runners are. Where both want all of it, three quarters of a processor are the node's."""

_AUTOGROUP = Path("/proc/self/autogroup")
_ATTEMPTS = 20
_PAUSE_S = 0.05


def step_back() -> None:
    """Put this process, and those that it starts, behind others for the processor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def step_session_back(file: Path = _AUTOGROUP) -> None:
    """Put all processes of this session behind those of others for the processor; the caller leads it.

    Nothing is changed where sessions are not told apart. Linux lets one user's process in a tenth of a second do it.
    """
    for _ in range(_ATTEMPTS):
        try:
            _write(file)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:
            return
        else:
            return


def nice_of_session(pid: int) -> int | None:
    """Return how nice the session of a process is; None where sessions are not told apart."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return None


def _write(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, str(NICE).encode())
    finally:
        os.close(descriptor)
