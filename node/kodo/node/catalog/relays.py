"""The node waits at registries and attaches to their relays, so that peers reach it who cannot do so directly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

from kodo.node.clock import Clock
from kodo.p2p.core.hosts import is_link_local, is_own_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import for_others
from kodo.p2p.errors import KodoError
from kodo.registry.client.relaying import carriers_to
from kodo.registry.records.record import MAX_ADDRESSES
from kodo.registry.rendezvous import ReplacedError

if TYPE_CHECKING:
    from kodo.p2p.net.host import Host
    from kodo.p2p.net.leg import Carrier
    from kodo.registry.client.waiting import OfferedRelay

__all__ = ["Attaching", "Relays", "addresses_told"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_NO_RELAY_S = 600.0
"""How long until a registry without a relay is asked again."""

Address = tuple[str, int]


def addresses_told(host: Host) -> tuple[str, ...]:
    """Return the addresses that registries are told, those at relays last."""
    relayed = host.relay_addresses()[: MAX_ADDRESSES // 4]
    return tuple(map(str, [*for_others(host.addresses())[: MAX_ADDRESSES - len(relayed)], *relayed]))


async def _wait_at(url: str, identity: Identity, told: Callable[[OfferedRelay | None], None]) -> None:
    # Imported here: a node without registries elsewhere does without HTTP.
    from kodo.registry.client.waiting import wait_at

    await wait_at(url, identity, told)


class Attaching(Protocol):
    """What it needs of the host; `Host` has it."""

    def attach(
        self, relay: Address, token: str, changed: Callable[[], None], carrier: Carrier | None, carries: bool, /
    ) -> None: ...
    def detach(self, relay: Address, /) -> None: ...


class Relays:
    """Waits at registries while it is open; `async with`.

    A registry on this machine is left out: whoever reaches it reaches the node, too.

    Args:
        taken: waits until a registry has taken the node's record, without which nobody waits there.
        changed: called when the node has another relayed address than before, or one less.
        chance: gives a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        identity: Identity,
        urls: Iterable[str],
        host: Attaching,
        taken: Callable[[str], Awaitable[None]],
        changed: Callable[[], None],
        clock: Clock,
        *,
        chance: Callable[[], float] = random.random,
        wait: Callable[[str, Identity, Callable[[OfferedRelay | None], None]], Awaitable[None]] = _wait_at,
    ):
        self._identity = identity
        self._urls = [url for url in dict.fromkeys(urls) if not is_own_host(urlsplit(url).hostname or "")]
        self._host = host
        self._taken = taken
        self._changed = changed
        self._clock = clock
        self._chance = chance
        self._wait = wait
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [group.create_task(self._attend(url)) for url in self._urls]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()

    async def _attend(self, url: str) -> None:
        attached: list[Address] = []
        pause = _FIRST_PAUSE_S
        while True:
            await self._taken(url)
            offered: list[OfferedRelay | None] = []

            def told(relay: OfferedRelay | None, offered: list[OfferedRelay | None] = offered) -> None:
                offered.append(relay)
                self._attach(url, relay, attached)

            try:
                await self._wait(url, self._identity, told)
            except (KodoError, OSError, ValueError) as error:
                # What is attached stays so: the relay is another matter than this connection.
                logger.info("waiting at a registry ended: %s", error)
                if isinstance(error, ReplacedError):
                    # Another node has this key: whose record the registry has decides who waits there.
                    self._changed()
                    offered.clear()
            if offered:
                pause = _FIRST_PAUSE_S
            has_none = bool(offered) and offered[0] is None
            await self._clock.sleep(_NO_RELAY_S if has_none else pause * (0.5 + self._chance() / 2))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _attach(self, url: str, relay: OfferedRelay | None, attached: list[Address]) -> None:
        """Attach to what is offered, and to nothing else of this registry; `attached` is kept up to date."""
        places: Sequence[Address] = []
        if relay is not None:
            hosts = [host for host in relay.hosts if not is_own_host(host) and not is_link_local(host)]
            places = [(host, relay.port) for host in hosts]
        for gone in [place for place in attached if place not in places]:
            self._host.detach(gone)
            self._changed()
        attached[:] = places
        if relay is not None:
            # By a connection to where the registry has answered, if UDP does not get there.
            [carrier] = (carriers_to([url]) if relay.carries else ()) or [None]
            for place in places:
                by_tcp = carrier if place == places[0] else None
                self._host.attach(place, relay.token, self._changed, by_tcp, relay.carries)
