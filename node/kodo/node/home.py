"""A node's home folder belongs to one node at a time, and remembers its port."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kodo.p2p.errors import UsageError

__all__ = ["hold_home", "last_port", "remember_port"]


@contextlib.contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock ends with the process, however it ends.

    Raises:
        UsageError: another node has it.
    """
    path = home / "node.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"another node (process {holder}) runs in {home}; stop it, or use another KODO_HOME"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def last_port(home: Path) -> int:
    """Return the UDP port that this home's node used last, 0 for none."""
    try:
        port = int((home / "node.port").read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def remember_port(home: Path, port: int) -> None:
    """Keep the port for the next start: a node's address is worth keeping."""
    with contextlib.suppress(OSError):
        descriptor = os.open(home / "node.port", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(f"{port}\n")
