"""The secret of a home's bridges: it protects what a host carries from one round of a call to the next.

It lies in the home, so that a bridge that is started anew takes up the rounds of one that died.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import make_once
from kodo.p2p.net.keystore import make_home, read_private

__all__ = ["STATE_SECONDS", "load_secret"]

STATE_SECONDS = 24 * 3600.0
"""How long a round may take: as long as a node knows the key of a launch."""

_FILE = "mcp.key"
_BYTES = 32


def load_secret(home: Path) -> bytes:
    """Return the home's secret, bytes[32]; made when there is none.

    Raises:
        UsageError: it cannot be read or written, others may read it, or it is damaged.
    """
    path = make_home(home) / _FILE
    try:
        if not path.exists():
            make_once(path, secrets.token_bytes(_BYTES))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    found = read_private(path)
    if found is None or len(found) != _BYTES:
        raise UsageError(f"{path} is damaged; remove it, and a new one is made")
    return found
