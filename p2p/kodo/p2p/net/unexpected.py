"""Errors that nobody expects, a library's over what a peer sent: how they are told, and kept where they belong."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kodo.p2p.errors import BrokenSessionError, KodoError

__all__ = ["as_ours", "note", "tell"]

logger = logging.getLogger(__name__)


def note(what: str, error: Exception) -> None:
    """Log that `what` happened because of `error`: its type only, for its text may hold what somebody sent."""
    logger.warning(
        "%s: %s was not expected; please report it",
        what,
        type(error).__name__,
        exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
    )


def as_ours(error: Exception, host: str) -> KodoError:
    """Return the error by which the link to `host` ends: `error`, or one of ours in place of a foreign one."""
    if isinstance(error, KodoError):
        return error
    note(f"a link to {host} ends", error)
    ours = BrokenSessionError("the session ended because of an unexpected error")
    ours.__cause__ = error
    return ours


def tell(listener: Callable[[], None], host: str) -> None:
    """Inform a listener of the end of the link to `host`; what fails there keeps no other from learning of it."""
    try:
        listener()
    except Exception as error:
        note(f"the end of a link to {host} was not taken", error)
