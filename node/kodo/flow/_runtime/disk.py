"""What files take of the disk."""

from __future__ import annotations

from pathlib import Path

__all__ = ["database_bytes", "unfolded_bytes"]


def database_bytes(path: Path) -> int:
    """Return the bytes of a SQLite database and its write-ahead log."""
    return _file_bytes(path) + unfolded_bytes(path)


def unfolded_bytes(path: Path) -> int:
    """Return the bytes of a SQLite database's write-ahead log, which will be folded into the database."""
    return _file_bytes(path.with_name(f"{path.name}-wal"))


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
