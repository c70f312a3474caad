"""What stands between this machine and others, told by what several servers see of one socket (RFC 4787, 4.1). Pure.

Each server answers a STUN binding request with the address that it came from. One that is in the same private network
tells nothing of what stands between that network and the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from kodo.p2p.core.hosts import is_local

__all__ = ["NatKind", "Seen", "nat_kind"]

Address = tuple[str, int]


class NatKind(StrEnum):
    """How the packets of a machine that has one socket look from outside."""

    OPEN = "open"
    """They come from its own address: nothing translates them."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """All come from one address and port, whomever they are for."""
    ADDRESS_DEPENDENT = "address-dependent"
    """Another address or port for each host that they are for; whether for each of its ports, too, nobody told."""
    PORT_DEPENDENT = "address- and port-dependent"
    """Another address or port for each port that they are for."""
    TRANSLATED = "translated"
    """They are translated; that one server alone answered does not tell how."""
    BLOCKED = "blocked"
    """Servers were asked, and nothing came back."""
    UNKNOWN = "unknown"
    """Nobody outside of the own network was asked, or the hosts are there and no server is."""


class Seen(NamedTuple):
    """What came of one question.

    Attributes:
        server: IP address and port that were asked.
        mapped: IP address and port from which the question came; None without an answer.
        refused: whether the network said that nobody listens there.
    """

    server: Address
    mapped: Address | None
    refused: bool = False


def nat_kind(seen: Iterable[Seen], own: Collection[str]) -> NatKind:
    """Return the kind of NAT, from what servers of one address family saw of one socket.

    Args:
        own: this machine's addresses.
    """
    asked = list(seen)
    answers = {
        each.server: each.mapped
        for each in asked
        if each.mapped is not None and not (each.mapped[0] in own and is_local(each.mapped[0]))
    }
    if not answers:
        silent = asked and all(each.mapped is None and not each.refused for each in asked)
        return NatKind.BLOCKED if silent else NatKind.UNKNOWN
    if all(mapped[0] in own for mapped in answers.values()):
        return NatKind.OPEN
    if len(answers) == 1:
        return NatKind.TRANSLATED
    if len(set(answers.values())) == 1:
        return NatKind.ENDPOINT_INDEPENDENT
    by_host: dict[str, set[Address]] = {}
    for (host, _), mapped in answers.items():
        by_host.setdefault(host, set()).add(mapped)
    return NatKind.PORT_DEPENDENT if any(len(of) > 1 for of in by_host.values()) else NatKind.ADDRESS_DEPENDENT
