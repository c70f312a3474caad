"""This machine's own addresses."""

from __future__ import annotations

import ipaddress

import ifaddr

__all__ = ["local_addresses", "multicast_interfaces"]


def local_addresses(family: int | None = None) -> list[str]:
    """Return this machine's addresses that others can dial, loopback last; link-local IPv6 ones are left out.

    Args:
        family: 4 or 6 for one kind only.
    """
    found: dict[str, bool] = {}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if (family in (None, address.version)) and not (address.version == 6 and address.is_link_local):
                found[str(address)] = address.is_loopback
    return sorted(found, key=lambda host: (found[host], ":" in host, host))


def multicast_interfaces() -> list[str | int]:
    """Return what multicast is to go by: every IPv4 address, and the number of each interface that has IPv6.

    IPv6 cannot multicast on loopback.
    """
    found: list[str | int] = [*local_addresses(4)]
    for adapter in ifaddr.get_adapters():
        six = [ipaddress.ip_address(ip.ip[0]) for ip in adapter.ips if not isinstance(ip.ip, str)]
        if adapter.index is not None and any(not address.is_loopback for address in six):
            found.append(adapter.index)
    return found
