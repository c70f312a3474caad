"""UDP sockets as the listener and the dialer want them: large buffers, one family a socket."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator

from kodo.p2p.core.hosts import is_local
from kodo.p2p.errors import UsageError

__all__ = [
    "LOCAL_BYTES",
    "bind",
    "fragmenting",
    "from_local",
    "hops",
    "read_error",
    "read_local",
    "route_to",
    "tells_errors",
    "tells_local",
    "unconnected",
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


# Linux ip(7), ipv6(7); on macOS netinet/in.h and netinet6/in6.h (RFC 3542).
_PKTINFO = {"linux": (8, 8, 49, 50), "darwin": (26, 26, 61, 46)}
"""By system: IP_PKTINFO as an option and as a message, IPV6_RECVPKTINFO, IPV6_PKTINFO."""
LOCAL_BYTES = 20
"""struct in6_pktinfo; in_pktinfo is shorter."""
_RECVERR = {"linux": (11, 25)}
"""IP_RECVERR, IPV6_RECVERR."""
_MSG_ERRQUEUE = 0x2000
_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data."""
_FROM_ICMP = (2, 3)
"""SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6."""


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


def unconnected(family: socket.AddressFamily) -> socket.socket:
    """Make a non-blocking socket that talks to many addresses of one family.

    The route of each datagram says from which address it goes, so the socket outlives changes of the network. On
    Linux `read_error` tells what the network says of single datagrams.

    Raises:
        OSError: this machine does not have the family.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    v6 = family == socket.AF_INET6
    try:
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::" if v6 else "0.0.0.0", 0))
    except OSError:
        sock.close()
        raise
    if options := _RECVERR.get(sys.platform):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP, options[v6], 1)
    return _with_buffers(sock)


def tells_errors(sock: socket.socket) -> bool:
    """Return whether `read_error` tells what the network says of a socket's datagrams."""
    options = _RECVERR.get(sys.platform)
    v6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    return options is not None and sock.getsockopt(level, options[v6]) != 0


def read_error(sock: socket.socket) -> tuple[int, tuple[str, int, int]] | None:
    """Return the oldest error that the network reported of a datagram, and where that went; None if there is none.

    Returns:
        errno, and the host, port and interface. What only this machine says is not told: sending has raised it.
    """
    while True:
        try:
            _, control, _, name = sock.recvmsg(1, 512, _MSG_ERRQUEUE)
        except OSError:
            return None
        for level, _, value in control:
            if level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6) and len(value) >= _ERROR.size and name:
                number, origin, *_ = _ERROR.unpack_from(value)
                if origin in _FROM_ICMP:
                    return number, (name[0], name[1], name[3] if len(name) == 4 else 0)


def tells_local(sock: socket.socket) -> bool:
    """Make a socket that is bound to all addresses tell to which one each datagram came; return whether it does."""
    options = _PKTINFO.get(sys.platform)
    if options is None or not ipaddress.ip_address(sock.getsockname()[0]).is_unspecified:
        return False
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, options[2], 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, options[0], 1)
        return True
    return False


@functools.lru_cache(256)
def read_local(value: bytes) -> str:
    """Return the address of this machine in a control message of a received datagram."""
    if len(value) >= LOCAL_BYTES:
        return socket.inet_ntop(socket.AF_INET6, value[:16])
    return socket.inet_ntoa(value[4:8])


@functools.lru_cache(256)
def from_local(local: str, interface: int) -> tuple[tuple[int, int, bytes]]:
    """Return the control message by which a datagram goes from an address of this machine."""
    options = _PKTINFO[sys.platform]
    if ":" in local:
        packed = socket.inet_pton(socket.AF_INET6, local) + struct.pack("=I", interface)
        return ((socket.IPPROTO_IPV6, options[3], packed),)
    return ((socket.IPPROTO_IP, options[1], struct.pack("=I4s4s", 0, socket.inet_aton(local), bytes(4))),)


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


@contextlib.contextmanager
def hops(sock: socket.socket, count: int) -> Iterator[None]:
    """Limit how many routers packets pass that are sent inside the block.

    Raises:
        OSError: this system does not let us say.
    """
    v6 = sock.family == socket.AF_INET6
    option = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if v6 else (socket.IPPROTO_IP, socket.IP_TTL)
    usual = sock.getsockopt(*option)
    sock.setsockopt(*option, count)
    try:
        yield
    finally:
        sock.setsockopt(*option, usual)


def route_to(host: str) -> str:
    """Name the route to an address: `lan` or `direct`."""
    return "lan" if is_local(host) else "direct"
