"""The provider of a node that has none: everybody nearby may use all flows, each seeing its own runs only."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import ifaddr

from kodo.access.roles import is_peer_id
from kodo.p2p.errors import CallError
from kodo.protocol.access import Grant, Principal, Role

__all__ = ["NullProvider", "on_link_networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEAR: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",  # loopback, RFC 1122
        "169.254.0.0/16",  # link-local, RFC 3927
        "10.0.0.0/8",  # private, RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fe80::/10",  # link-local, RFC 4291
        "fc00::/7",  # unique local, RFC 4193
    )
)

_WIDEST = {4: 8, 6: 32}
"""A shorter prefix on an interface is a routing trick, no neighbourhood."""

_REFRESH_S = 15.0

_GRANTS = (Grant("node", "*"), Grant("flow", "*", 2, "x"), Grant("memory", "*", mode="w"))
"""Everybody's: all flows, and for their runs all shared memories."""


def on_link_networks() -> list[Network]:
    """Return the networks that this machine's interfaces are on."""
    found: list[Network] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            network = ipaddress.ip_network(f"{host}/{ip.network_prefix}", strict=False)
            if network.prefixlen >= _WIDEST[network.version]:
                found.append(network)
    return found


class NullProvider:
    """Knows no users: a principal is a peer id. The user key of the node's own home is its operator.

    Args:
        operator: the peer id of that user key.
        only: the one peer id whose calls are answered; None: everybody's.
        open: whether strangers from anywhere are answered; else loopback, link-local, private and on-link ones only.
        networks: gives the networks that this machine is on.
        now: a clock in seconds.
    """

    name = "null"

    def __init__(
        self,
        operator: str,
        *,
        only: str | None = None,
        open: bool = False,
        networks: Callable[[], Iterable[Network]] = on_link_networks,
        now: Callable[[], float] = time.monotonic,
    ):
        self.operator = operator
        self.only = only
        self.open = open
        self._networks = networks
        self._now = now
        self._on_link: tuple[Network, ...] = ()
        self._read_at: float | None = None

    def admits(self, address: str | None) -> bool:
        """Return whether packets from this IP address are answered at all; None: those that a relay passes on."""
        if self.open:
            return True
        if address is None:
            return False
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in _NEAR) or any(ip in network for network in self._neighbours())

    def info(self) -> dict[str, Any]:
        """Return the answer of `auth.info`: there is nothing to log in to."""
        return {
            "provider": self.name,
            "login": [],
            "message": "no login: a caller is known by its peer id and sees its own runs",
        }

    async def identify(self, peer_id: str, token: str | None = None) -> Principal:
        """Return who the holder of `peer_id` is.

        Raises:
            CallError: 403 `not-admitted`: others alone are answered; 401 `no-login`: there is a token, and
                nobody here could check it.
        """
        if self.only is not None and peer_id != self.only:
            raise CallError(
                403, "not-admitted", "this node runs one flow for the user who started it, and answers nobody else"
            )
        if token is not None:
            raise CallError(401, "no-login", "this node has no users; call without a token")
        return self._principal(peer_id)

    async def recall(self, principal: str) -> Principal:
        """Return what the holder of a peer id may do, without it being there."""
        return self._principal(principal)

    async def present(self, principal: str) -> Principal:
        """Return the same as `recall`, which always can."""
        return await self.recall(principal)

    async def knows(self, kind: Literal["user", "role"], name: str) -> bool:
        """Return whether it is a peer id, or one of the two roles that there are here."""
        return is_peer_id(name) if kind == "user" else name in (Role.USER, Role.OPERATOR)

    async def logout(self, token: str) -> None:
        """There is nothing to end."""

    def describe(self) -> str:
        """Return the line for the operator at start."""
        if self.only is not None:
            return f"only the user who started it, {self.only}"
        who = "everybody who can reach this node" if self.open else "everybody on this machine and its local networks"
        return f"no login: {who} may use all flows, and each sees only their own runs"

    def _principal(self, peer_id: str) -> Principal:
        roles = {Role.USER, Role.OPERATOR} if peer_id == self.operator else {Role.USER}
        return Principal(peer_id, peer_id, roles=frozenset(roles), grants=_GRANTS)

    def _neighbours(self) -> tuple[Network, ...]:
        # Asked for every packet: interfaces are looked at now and then only.
        now = self._now()
        if self._read_at is None or now - self._read_at >= _REFRESH_S:
            self._on_link = tuple(self._networks())
            self._read_at = now
        return self._on_link
