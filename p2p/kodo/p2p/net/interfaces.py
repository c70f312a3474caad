"""This machine's own addresses, and when they change."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable
from weakref import WeakKeyDictionary

from kodo.p2p.core.paths import Network

__all__ = [
    "link_local_interfaces",
    "local_addresses",
    "local_networks",
    "multicast_interfaces",
    "on_networks_changed",
]

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""How often addresses are looked at where the system does not tell that they change."""
SETTLE_SECONDS = 0.05
"""Changes come in bursts: how long the first one is waited with."""
USUAL_MEMBERSHIPS = 20
"""Multicast groups that a socket may be in where the system does not say: Linux' default."""
# Linux rtnetlink(7): RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
_GROUPS = 0x1 | 0x10 | 0x100
_NETLINK_BYTES = 1 << 16


def _interfaces() -> list[tuple[int, Network]]:
    """Return the number of each interface with each of its addresses; bridges of this machine's own come last."""
    import ifaddr  # with it comes ctypes, which most commands do not need

    found: list[tuple[int, Network]] = []
    for adapter in sorted(ifaddr.get_adapters(), key=lambda adapter: _is_bridge(str(adapter.name))):
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            found.append((adapter.index or 0, ipaddress.ip_interface(f"{host}/{ip.network_prefix}")))
    return found


def _is_bridge(name: str) -> bool:
    """Return whether an interface is a bridge, as container engines make them, or whatever else hangs on one."""
    return any(os.path.exists(f"/sys/class/net/{name}/{what}") for what in ("bridge", "brport"))


def _by_default() -> set[str]:
    """Return the addresses from which packets to far away go; none is sent to find out."""
    found = set()
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((far, 9))
            found.add(str(sock.getsockname()[0]))
    return found


def local_networks() -> list[Network]:
    """Return this machine's addresses, each with the network that it is in."""
    return [network for _, network in _interfaces()]


def link_local_interfaces() -> list[int]:
    """Return the numbers of the interfaces that have a link-local IPv6 address: such an address needs one of them."""
    return sorted({index for index, network in _interfaces() if network.version == 6 and network.ip.is_link_local})


def local_addresses(family: int | None = None) -> list[str]:
    """Return this machine's addresses that others can dial, the likeliest first and loopback last.

    That of the route to far away comes first, those of bridges to containers come after all others. Link-local IPv6
    addresses are left out unless there are only such.

    Args:
        family: 4 or 6 for one kind only.
    """
    networks = [network for _, network in _interfaces()]
    only = not any(not (network.ip.is_loopback or network.ip.is_link_local) for network in networks)
    place: dict[str, tuple[bool, bool]] = {}
    first = _by_default()
    for network in networks:
        left_out = network.version == 6 and network.ip.is_link_local and not only
        if family in (None, network.version) and not left_out:
            host = str(network.ip).split("%")[0]
            place.setdefault(host, (network.ip.is_loopback, host not in first))
    return sorted(place, key=place.__getitem__)


def multicast_interfaces() -> list[str | int]:
    """Return what multicast is to go by: IPv4 addresses, and the number of each interface that has IPv6.

    IPv6 cannot multicast on loopback. Of IPv4 as many as the system lets a socket have, loopback among them.
    """
    six = {index: None for index, network in _interfaces() if network.version == 6 and not network.ip.is_loopback}
    four = local_addresses(4)
    most = _most_memberships()
    return [*four[: most - 1], *four[max(len(four) - 1, most - 1) :], *(index for index in six if index)]


def _most_memberships() -> int:
    try:
        with open("/proc/sys/net/ipv4/igmp_max_memberships") as file:
            return max(int(file.read()), 1)
    except (OSError, ValueError):
        return USUAL_MEMBERSHIPS


def on_networks_changed(callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` on the running loop after each change of this machine's addresses; return what ends that."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = _Watch(loop)
    return watch.add(callback)


class _Watch:
    """Notifies those of one event loop who want to know; holds a socket only while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._known: set[tuple[int, Network]] = set()
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        if not self._callbacks:
            self._begin()
        key = object()
        self._callbacks[key] = callback

        def forget() -> None:
            if self._callbacks.pop(key, None) is not None and not self._callbacks:
                self._end()

        return forget

    def _begin(self) -> None:
        self._known = set(_interfaces())
        if sys.platform == "linux":
            try:
                self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                self._sock.setblocking(False)
                self._sock.bind((0, _GROUPS))
                self._loop.add_reader(self._sock, self._read)
                return
            except OSError as error:
                logger.debug("changes of the network are looked for: %s", error)
                if self._sock is not None:
                    self._sock.close()
                    self._sock = None
        self._timer = self._loop.call_later(POLL_SECONDS, self._look)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _read(self) -> None:
        """Something has changed; what, `_look` finds out."""
        try:
            while self._sock is not None and self._sock.recv(_NETLINK_BYTES):
                pass
        except OSError:
            pass  # there is no more, or more than the kernel kept
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None if self._sock is not None else self._loop.call_later(POLL_SECONDS, self._look)
        now = set(_interfaces())
        if now == self._known:
            return
        self._known = now
        for callback in list(self._callbacks.values()):
            try:
                callback()
            except Exception:
                logger.exception("a change of the network was not taken note of")


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
