"""The error of a call that was used before it was awaited."""

from __future__ import annotations

from kodo.p2p.errors import UsageError

__all__ = ["NotAwaitedError"]


class NotAwaitedError(UsageError):
    """What a call gives back was used before it was awaited."""
