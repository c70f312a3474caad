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
    "may_be_sent_to",
    "plain_host",
    "source_block",
    "source_of",
]

THIS_MACHINE = "this machine"
"""The source of all loopback addresses."""

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


def may_be_sent_to(host: str, port: int, *, because_of: str) -> bool:
    """Return whether packets may go where somebody else says that a peer is.

    Never to loopback, link-local or multicast addresses nor to ports of system services, and to private addresses
    only because of somebody who has one.

    Args:
        because_of: the address of who says so.

    Raises:
        ValueError: one of the addresses is none.
    """
    address = ipaddress.ip_address(plain_host(host))
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if port < 1024 or (address.is_reserved and address.version == 4):
        return False
    return not address.is_private or is_local(because_of)


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
