"""How many files and sockets this process may have open."""

from __future__ import annotations

__all__ = ["raise_descriptors"]

_WANTED = 65_536
"""What a node or a registry never needs; more would slow down whatever goes through all of them."""

_UNKNOWN = 256
"""What is assumed where the system does not tell: the least of those that kodo runs on."""


def raise_descriptors() -> int:
    """Raise the number of files and sockets that this process may have open to its hard limit; return it.

    Systems start processes with 1,024 or 256, a limit for programs that no longer exist (they used `select`).
    """
    try:
        import resource
    except ImportError:
        return _UNKNOWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _WANTED
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft  # macOS has a bound of its own that is below the hard limit
        soft = wanted
    return soft
