"""Which of the logs that Ray's processes write can go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["stale_logs"]


def stale_logs(sessions: Path, before_ms: float, alive: Iterable[int]) -> list[tuple[str, int]]:
    """Return what processes that have ended wrote, the oldest first: its path below `sessions`, its bytes. Blocks.

    Args:
        sessions: the folder of Ray's sessions.
        before_ms: since when nobody has written to them, ms UTC.
        alive: the ids of the processes of this machine.
    """
    living = {str(pid) for pid in alive}
    found: list[tuple[float, str, int]] = []
    for file in sessions.glob("session_*/logs/*"):
        pid = file.stem.replace("-", "_").rpartition("_")[2]
        with contextlib.suppress(OSError):
            said = file.lstat()
            old = said.st_mtime * 1000 <= before_ms
            if pid.isdigit() and pid not in living and old and not file.is_symlink() and file.is_file():
                found.append((said.st_mtime, str(file.relative_to(sessions)), said.st_size))
    return [(name, size) for _, name, size in sorted(found)]
