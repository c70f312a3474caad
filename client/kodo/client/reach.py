"""How a node is reached from here: who tells of it, which of its addresses answer, and which way a session takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kodo.client.client import Client
from kodo.client.finders import HomeFinder, LanFinder, RegistryFinder
from kodo.client.resolve import Finder, Wanted
from kodo.p2p.core.hosts import is_link_local
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.nat import NatKind, Seen, nat_kind
from kodo.p2p.core.paths import Target
from kodo.p2p.errors import KodoError, UsageError
from kodo.p2p.net.checks import Check, Question, check, check_by_connection
from kodo.p2p.net.interfaces import link_local_interfaces, local_addresses
from kodo.p2p.net.names import look_up
from kodo.registry.client.relaying import carriers_to

__all__ = ["Family", "Place", "Reach", "Way", "nat_of", "reach"]

PLACE_SECONDS = 5.0
RESOLVE_SECONDS = 2.0
_RESOLVED = 4
"""Addresses of one name that are asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a place tells of a node: `addresses`, or in `error` why it tells nothing."""

    label: str
    addresses: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One address of a node and what came of asking there; several checks where it leads to several hosts."""

    address: str
    checks: tuple[Check, ...] = ()

    @property
    def answer(self) -> Check | None:
        """The first answer, if any came."""
        return next((each for each in self.checks if each.mapped is not None), None)


@dataclass(slots=True)
class Reach:
    """How a node is reached.

    Attributes:
        name: what was asked for.
        peer_id: who that is, where it is known.
        route: how the session's packets go: `lan`, `direct`, `punched` or `relay`; None when there is no session.
        at: IP address and port at which the session is.
        seconds: how long the session took to open.
        error: why there is no session.
    """

    name: str
    peer_id: PeerId | None = None
    places: list[Place] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    route: str | None = None
    at: tuple[str, int] | None = None
    seconds: float = 0.0
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON shows it; times are in milliseconds."""
        places = [
            {"place": each.label, "addresses": list(each.addresses), "ms": _ms(each.seconds), "error": each.error}
            for each in self.places
        ]
        session = None
        if self.at is not None:
            session = {"route": self.route, "address": list(self.at), "ms": _ms(self.seconds)}
        return {
            "node": self.name,
            "peer_id": None if self.peer_id is None else str(self.peer_id),
            "places": places,
            "ways": [_way_to_json(each) for each in self.ways],
            "session": session,
            "error": self.error,
        }


def _way_to_json(way: Way) -> dict[str, Any]:
    answer = way.answer
    refused = next((each.refused for each in way.checks if each.refused is not None), None)
    return {
        "address": way.address,
        "answered": answer is not None,
        "relayed": answer is not None and answer.relayed,
        "introduced": answer is not None and answer.introduced,
        "ms": None if answer is None or answer.seconds is None else _ms(answer.seconds),
        "seen_at": None if answer is None or answer.mapped is None else list(answer.mapped),
        "refused": None if answer is not None else refused if way.checks else "its name does not resolve",
    }


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


async def reach(client: Client, text: str) -> Reach:
    """Look for a node in every place, ask each of its addresses, and open a session to it. Cancelling is safe.

    Raises:
        UsageError: `text` is not a NODE.
    """
    found = Reach(text)
    loop = asyncio.get_running_loop()
    wanted, given = _wanted(client, text)
    found.peer_id = wanted.peer_id or wanted.pinned
    claims: dict[PeerId, dict[Multiaddr, None]] = {}
    if given is not None:
        claims[given.peer_id or PeerId.parse(text)] = {given: None}

    async def ask(finder: Finder) -> Place:
        began = loop.time()
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                rows = [each for each in await finder.find(wanted) if wanted.fits(each.name, each.peer_id)]
        except TimeoutError:
            return Place(finder.label, seconds=loop.time() - began, error=f"no answer within {PLACE_SECONDS:g} s")
        except KodoError as error:
            return Place(finder.label, seconds=loop.time() - began, error=str(error))
        for each in rows:
            claims.setdefault(each.peer_id, {}).update(dict.fromkeys(each.addresses))
        addresses = tuple(str(address) for each in rows for address in each.addresses)
        return Place(finder.label, addresses, loop.time() - began)

    lan = LanFinder(client.settings.browse_s)
    finders: list[Finder] = [HomeFinder(client.home), *([lan] if client.settings.lan else [])]
    finders += [RegistryFinder(url, PLACE_SECONDS) for url in client.settings.registry]
    try:
        found.places = list(await asyncio.gather(*map(ask, finders)))
    finally:
        await lan.aclose()
    if found.peer_id is None and len(claims) == 1:
        found.peer_id = next(iter(claims))
    if found.peer_id is not None:
        found.ways = await _ways(tuple(claims.get(found.peer_id, ())), found.peer_id)
        if not any(way.answer is not None and way.answer.relayed for way in found.ways):
            found.ways += await _ways_by_tcp(client.settings.registry, found.peer_id)
    await _open(client, found)
    return found


def _wanted(client: Client, text: str) -> tuple[Wanted, Multiaddr | None]:
    """Return who is looked for, and the address that was given."""
    if text.startswith("/"):
        with contextlib.suppress(ValueError):
            address = Multiaddr.parse(text)
            if address.peer_id is not None:
                return Wanted(peer_id=address.peer_id), address
    with contextlib.suppress(ValueError):
        return Wanted(peer_id=PeerId.parse(text)), None
    return Wanted(name=text, pinned=client.known.get(text)), None


async def _ways(addresses: Sequence[Multiaddr], peer_id: PeerId) -> list[Way]:
    """Ask every address whether a node's listener answers there."""
    targets = dict(zip(addresses, await asyncio.gather(*map(_targets, addresses)), strict=True))
    questions = [Question(each) for of in targets.values() for each in of]
    answers = {each.target: each for each in await check(questions, peer=peer_id)}
    ways = []
    for address, of in targets.items():
        shown = str(address).partition("/certhash/")[0]
        ways.append(Way(shown, tuple(answers.get(each, Check(each)) for each in of)))
    return ways


async def _ways_by_tcp(registries: Sequence[str], peer_id: PeerId) -> list[Way]:
    """Ask the relays of registries by connections, as sessions do where UDP gets to none."""
    carriers = carriers_to(registries)
    answers = await asyncio.gather(*(check_by_connection(each, peer_id) for each in carriers))
    return [
        Way(f"relay of {carrier.host}, by TCP", (answer,))
        for carrier, answer in zip(carriers, answers, strict=True)
        if answer is not None
    ]


async def _targets(address: Multiaddr) -> list[Target]:
    if address.family == "ip6" and is_link_local(address.host):
        return [Target(address.host, address.port, index) for index in link_local_interfaces()]
    if address.family != "dns4":
        return [Target(address.host, address.port)]
    return [Target(host, address.port) for host in await _resolved(address.host, socket.AF_INET)]


async def _resolved(host: str, family: int = socket.AF_UNSPEC) -> list[str]:
    """Return the addresses of a name; none when nobody tells them in time."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            rows = await look_up(host, 0, family=family, kind=socket.SOCK_DGRAM)
    except (OSError, TimeoutError):
        return []
    return list(dict.fromkeys(str(name[0]) for *_, name in rows))[:_RESOLVED]


async def _open(client: Client, found: Reach) -> None:
    """Open a session, as every command does.

    Raises:
        UsageError: what was asked for is not a NODE.
    """
    loop = asyncio.get_running_loop()
    try:
        remote = await client.node(found.name)
        began = loop.time()
        session = await remote.session()
    except UsageError:
        raise
    except (KodoError, TimeoutError) as error:
        found.error = str(error) or type(error).__name__
        return
    found.seconds = loop.time() - began
    found.peer_id = session.remote_peer
    found.route, found.at = session.route, session.remote_address


@dataclass(frozen=True, slots=True)
class Family:
    """What stands between this machine and the registries, for one family of addresses.

    Attributes:
        name: `IPv4` or `IPv6`.
        kind: the kind of NAT.
        seen_at: the addresses and ports at which this machine was seen.
    """

    name: str
    kind: NatKind
    seen_at: tuple[tuple[str, int], ...]


async def nat_of(registries: tuple[str, ...]) -> list[Family]:
    """Ask the registries over UDP from where this machine's packets come; a registry answers at its HTTP port."""
    hosts = []
    for url in registries:
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            hosts.append((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)))
    names = await asyncio.gather(*(_resolved(host) for host, _ in hosts))
    targets = [Target(each, port) for (_, port), of in zip(hosts, names, strict=True) for each in of]
    answers = await check(Question(target, server=True) for target in targets)
    own = set(local_addresses())
    families = []
    for name, mark in (("IPv4", False), ("IPv6", True)):
        seen = [
            Seen((each.target.host, each.target.port), each.mapped, each.refused is not None)
            for each in answers
            if (":" in each.target.host) is mark
        ]
        if seen:
            mapped = tuple(dict.fromkeys(each.mapped for each in seen if each.mapped is not None))
            families.append(Family(name, nat_kind(seen, own), mapped))
    return families
