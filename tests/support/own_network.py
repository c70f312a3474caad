"""A network of its own for a whole program: every address of a block is this machine's, and none is loopback's.

Callers from loopback are one source to a node, so whoever stands for many strangers needs other addresses. On Linux,
by root or where anybody may make a user namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["BLOCK", "HERE", "USER", "enter_own_network"]

BLOCK = "10.77"
"""The first two numbers of the block's addresses."""
HERE = f"{BLOCK}.0.1"
"""Where what is attacked listens, and what it dials comes from."""
USER = f"{BLOCK}.0.2"
"""Where its user comes from."""
_MARK = "OWN_NETWORK_OF_KODO"


def enter_own_network(command: Sequence[str]) -> None:
    """Become `command` in such a network, and with mounts of its own; return once that is so.

    Raises:
        OSError: this machine, or this user, cannot.
    """
    if _MARK not in os.environ:
        unshare = shutil.which("unshare")
        if unshare is None or not sys.platform.startswith("linux"):
            raise OSError("it takes Linux and the command unshare (util-linux)")
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        words = [unshare, "--net", "--mount", *as_root]
        tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            raise OSError(f"it takes root, or user namespaces: {tried.stderr.strip()}")
        os.environ[_MARK] = "1"
        os.execv(unshare, [*words, *command])
    for words in (["link", "set", "lo", "up"], ["addr", "replace", f"{HERE}/16", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
