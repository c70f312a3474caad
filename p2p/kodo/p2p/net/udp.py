"""UDP sockets as the listener and the dialer want them: large buffers, one family a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

from kodo.p2p.core.hosts import is_local
from kodo.p2p.errors import UsageError

__all__ = [
    "bind",
    "connected",
    "fragmenting",
    "route_to",
]

BUFFER_BYTES = 4 << 20
"""The kernel's default loses thousands of datagrams in one burst."""
_FRAGMENTING = {
    # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: WANT, PROBE, DONT
    "linux": ((10, 1, 3, 0), (23, 1, 3, 0)),
    # IP_DONTFRAG and IPV6_DONTFRAG
    "darwin": ((28, 0, 1, 0), (62, 0, 1, 0)),
    # IP_DONTFRAGMENT and IPV6_DONTFRAG
    "win32": ((14, 0, 1, 0), (14, 0, 1, 0)),
}
"""By system, for IPv4 and IPv6: the socket option and its values as usual, for never and for always fragmenting."""


def _with_buffers(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    sock.setblocking(False)
    return sock


def bind(host: str, port: int) -> socket.socket:
    """Make a bound, non-blocking socket; port 0 takes a free one.

    Raises:
        UsageError: when the address is not one of this machine or is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        instead = "; take another port" if error.errno == errno.EADDRINUSE else ""
        raise UsageError(f"cannot listen on UDP {host} port {port}: {error.strerror or error}{instead}") from error
    return _with_buffers(sock)


def connected(host: str, port: int) -> socket.socket:
    """Make a non-blocking socket that talks to one address only.

    Raises:
        OSError: when the address cannot be reached.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return _with_buffers(sock)


@contextlib.contextmanager
def fragmenting(sock: socket.socket, *, allowed: bool) -> Iterator[None]:
    """Set, for what is sent inside the block, whether it may be fragmented, whatever is known of the path.

    Raises:
        OSError: this system does not let us say.
    """
    v6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    option, usual, *values = _FRAGMENTING.get(sys.platform, ((-1,) * 4,) * 2)[v6]
    sock.setsockopt(level, option, values[allowed])
    try:
        yield
    finally:
        sock.setsockopt(level, option, usual)


def route_to(host: str) -> str:
    """Name the route to an address: `lan` or `direct`."""
    return "lan" if is_local(host) else "direct"
