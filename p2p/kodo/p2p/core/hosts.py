"""Addresses of machines: which are this one, which are near, and which count as one source. Pure."""

from __future__ import annotations

import functools
import ipaddress

__all__ = [
    "THIS_MACHINE",
    "is_link_local",
    "is_local",
    "is_loopback",
    "is_own_host",
    "is_public",
    "may_be_sent_to",
    "plain_host",
    "source_block",
    "source_of",
]

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

THIS_MACHINE = "this machine"
"""The source of all loopback addresses."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052, section 2.1."""
_NOBODYS = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/3"),
        # Of ::/8 nothing but NAT64 is a peer's, which is IPv4 by then.
        *("::/8", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
]
"""Where no peer is: one machine, one link, many machines, or whom a protocol needs; the registries of IANA for
special-purpose addresses, which Python follows in each version to another degree."""

_REMEMBERED = 1024
"""Addresses whose reading is kept: each is asked for a dozen times while a session begins."""


@functools.lru_cache(_REMEMBERED)
def plain_host(host: str) -> str:
    """Return an address without its scope, an IPv4-mapped one as IPv4.

    Raises:
        ValueError: it is not an address.
    """
    address = ipaddress.ip_address(host.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@functools.lru_cache(_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own.

    Raises:
        ValueError: it is not an address.
    """
    return ipaddress.ip_address(plain_host(host)).is_loopback


@functools.lru_cache(_REMEMBERED)
def is_link_local(host: str) -> bool:
    """Return whether an address works within one network only.

    Raises:
        ValueError: it is not an address.
    """
    return ipaddress.ip_address(plain_host(host)).is_link_local


@functools.lru_cache(_REMEMBERED)
def is_local(host: str) -> bool:
    """Return whether an address is loopback, link-local or private.

    "All addresses" (`0.0.0.0`, `::`) and names are not.
    """
    try:
        address = ipaddress.ip_address(plain_host(host))
    except ValueError:
        return False
    return not address.is_unspecified and (address.is_loopback or address.is_link_local or address.is_private)


def may_be_sent_to(host: str, port: int, *, because_of: str | None) -> bool:
    """Return whether packets may go where somebody else says that a peer is.

    Never to loopback, link-local or multicast addresses nor to ports of system services, and to private and shared
    ones only because of somebody who has one. Of an IPv6 address that leads to an IPv4 one, that counts.

    Args:
        because_of: the address of who says so; None: it is not known, and counts as a public one.

    Raises:
        ValueError: one of the addresses is none.
    """
    address = _reached(ipaddress.ip_address(plain_host(host)))
    if port < 1024 or _is_nobodys(address):
        return False
    if address.is_global:
        return True
    if because_of is None:
        return False
    # What is neither global nor private is shared by the customers of a provider (RFC 6598).
    return is_local(because_of) if address.is_private else not _is_global(because_of)


def is_public(host: str) -> bool:
    """Return whether an address is a machine's on the internet; of an IPv6 one that leads to IPv4, that counts.

    Raises:
        ValueError: it is not an address.
    """
    address = _reached(ipaddress.ip_address(plain_host(host)))
    return address.is_global and not _is_nobodys(address)


def _is_nobodys(address: _IPAddress) -> bool:
    return any(address in network for network in _NOBODYS if network.version == address.version)


def _reached(address: _IPAddress) -> _IPAddress:
    """Return the IPv4 address to which packets for an IPv6 address go in the end, if it has one within."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def _is_global(host: str) -> bool:
    return ipaddress.ip_address(plain_host(host)).is_global


def is_own_host(host: str) -> bool:
    """Return whether a host of a URL is this machine: `localhost`, or a loopback address."""
    try:
        return is_loopback(host)
    except ValueError:
        return host == "localhost"


@functools.lru_cache(_REMEMBERED)
def source_block(host: str) -> str:
    """Return what counts as one source: the IPv4 address, or the IPv6 /64.

    Raises:
        ValueError: it is not an address.
    """
    address = ipaddress.ip_address(plain_host(host))
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def source_of(host: str | None) -> str:
    """Return whom bounds are for: an IPv4 address, an IPv6 /64, or this machine by whatever loopback address.

    What is no address, as behind a Unix socket, is one source too.
    """
    try:
        return THIS_MACHINE if is_loopback(host or "") else source_block(host or "")
    except ValueError:
        return host or "?"
