"""Which port the page has: always the same, for a browser keeps the page's key under its address.

An origin on loopback is a port. Whoever listens there next gets what the browser keeps for it, so the port is
remembered, no other is taken silently, and one that another account holds is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket
from pathlib import Path

from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import whole_file

__all__ = ["ADDRESS", "holder_of", "last_port", "listen", "remember_port"]

ADDRESS = "127.0.0.1"
_FILE = "web.port"
_LISTENING = "0A"
"""In /proc/net/tcp (Linux, `include/net/tcp_states.h`)."""
_LOCAL = {"0100007F", "00000000", "00000000000000000000000001000000", "0" * 32, "0000000000000000FFFF00000100007F"}
"""Loopback and all addresses there, both families, as little-endian machines write them."""


def last_port(home: Path) -> int | None:
    """Return the port that this home's page had last, None when it never had one."""
    try:
        port = int((home / _FILE).read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def remember_port(home: Path, port: int) -> None:
    """Keep the port for the next start."""
    with contextlib.suppress(OSError), whole_file(home / _FILE) as file:
        file.write(f"{port}\n".encode())


def holder_of(port: int, *, tables: tuple[Path, ...] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> int | None:
    """Return the user id of whoever listens at a port on loopback; None when nobody does, or the system hides it."""
    for table in tables:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                words = line.split()
                if len(words) < 8 or words[3] != _LISTENING:
                    continue
                address, _, number = words[1].partition(":")
                if address in _LOCAL and int(number, 16) == port:
                    return int(words[7])
    return None


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Raises:
        UsageError: somebody else listens there; it says whose program that is.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(_refusal(port, error, holder_of(port))) from error
    return listener


def _refusal(port: int, error: OSError, holder: int | None) -> str:
    if error.errno != errno.EADDRINUSE:
        return f"the page cannot be served on port {port}: {error.strerror or error}; --port chooses another"
    if holder is not None and holder != os.getuid():
        try:
            name = pwd.getpwuid(holder).pw_name
        except KeyError:
            name = str(holder)
        return (
            f"port {port} is held by another account of this machine ({name}), which would get all that your browser "
            "keeps for the page; --port chooses another, and the page has a new peer id there"
        )
    return (
        f"port {port} is in use, perhaps by a `koco web` or `koco up --web` that runs already; "
        "--port (of `koco up`: --web-port) chooses another"
    )
