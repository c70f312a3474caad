"""Whether another node has the same key: a copy of a home that runs, too. Both must know, for callers reach either.

A node that starts looks where others would find it, and dials what is there under its own peer id. The handshake
proves that whoever answers has the key, to one as to the other: who is dialled by its own peer id has a twin, too.
It may be this node itself that answers, behind an address that somebody else announced or a router forwards: the
handshake tells that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from types import TracebackType
from typing import Self

from kodo.client.client import Client
from kodo.node.clock import Clock
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import KodoError, NetworkError
from kodo.p2p.net.discovery import browse
from kodo.p2p.net.session import Session

__all__ = ["Twins", "addresses_of", "reached"]

logger = logging.getLogger(__name__)

AGAIN_S = 600.0
"""How often it is looked again: a home may be copied at any time."""
_LOOK_S = 1.5
_DIAL_S = 10.0
_MAX_DIALS = 8
_MAX_KEPT = 8
_TELL_AGAIN_MS = 3_600_000


class Twins:
    """Looks for other nodes with this key while it is open; `async with`.

    Args:
        find: gives the addresses under which this peer id is found.
        own: gives the addresses of this node.
        reach: dials an address, and gives the IP address and port of whoever proved the key there.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Sequence[Multiaddr]]],
        own: Callable[[], Collection[Multiaddr]],
        reach: Callable[[Multiaddr], Awaitable[tuple[str, int]]],
        clock: Clock,
    ):
        self._find = find
        self._own = own
        self._reach = reach
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self.found = asyncio.Event()
        """Set once it is known what is found under this peer id: from then on this node may announce itself."""
        self.seen: dict[str, int] = {}
        """By IP address and port of another node with this key: when it was met last, ms UTC."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Look once."""
        try:
            found = await self._find()
        finally:
            self.found.set()
        own = {(address.host, address.port) for address in self._own()}
        others = [address for address in found if (address.host, address.port) not in own]
        for address in others[:_MAX_DIALS]:
            try:
                self.met(*await self._reach(address))
                return  # the others are its addresses, too
            except (KodoError, TimeoutError, OSError) as error:
                logger.debug("nobody with this node's key answers at %s: %s", address, error)

    def greeted(self, session: Session) -> None:
        """Take note of who began a session, if that is another node with this key."""
        # A run may delegate to its own node, and a relay does not tell whose address is at its other end.
        if session.remote_peer == session.local_peer and not session.same_process and session.route != "relay":
            self.met(*session.remote_address[:2])

    def listed(self, addresses: Sequence[str]) -> None:
        """Take note of where a newer record of this key, which a registry has and this node has not signed, leads."""
        for text in addresses:
            with contextlib.suppress(ValueError):
                address = Multiaddr.parse(text)
                self.met(address.host, address.port)
                return
        self._note("an address that it does not tell")

    def met(self, host: str, port: int) -> None:
        """Take note of somebody else who has proved to have this node's key."""
        self._note(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _note(self, place: str) -> None:
        now = self._clock.now_ms()
        if max(self.seen.values(), default=0) < now - _TELL_AGAIN_MS:
            logger.error(
                "another node with the same key runs at %s, and callers reach either: stop one of them. "
                "A second node needs a home of its own",
                place,
            )
        if place in self.seen or len(self.seen) < _MAX_KEPT:
            self.seen[place] = now

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self.look()
            except (KodoError, OSError) as error:
                logger.debug("other nodes with this key could not be looked for: %s", error)
            await self._clock.sleep(AGAIN_S)


async def addresses_of(peer_id: PeerId, registries: Iterable[str], *, lan: bool) -> list[Multiaddr]:
    """Return the addresses under which others find a peer, on the local network and in registries."""
    # Imported here: a node without registries does without HTTP.
    from kodo.registry.client.client import RegistryClient

    own = str(peer_id)

    async def nearby() -> list[Multiaddr]:
        with contextlib.suppress(NetworkError):
            return [each for seen in await browse(_LOOK_S) if seen.peer_id == own for each in seen.addresses]
        return []

    async def listed(url: str) -> list[Multiaddr]:
        with contextlib.suppress(KodoError, TimeoutError, ValueError):
            async with asyncio.timeout(_LOOK_S), RegistryClient(url) as registry:
                return [Multiaddr.parse(text) for text in (await registry.record(own)).addrs]
        return []

    # At once: what a registry has of this peer is soon this node's own record.
    found = await asyncio.gather(*map(listed, registries), *([nearby()] if lan else []))
    return [address for each in found for address in each]


async def reached(client: Callable[[], Client], address: Multiaddr) -> tuple[str, int]:
    """Dial an address with a new client of this key; give the IP address and port of whoever has proved it, too.

    Raises:
        NetworkError: nobody answers there, or this process itself.
    """
    async with asyncio.timeout(_DIAL_S), client() as opened:
        session = await (await opened.node(str(address))).session()
        if session.same_process:
            raise NetworkError("this is this node itself")
        if session.route == "relay":
            # Through a relay that this node was attached to before its start, that is most likely itself.
            raise NetworkError("a relay does not tell whose address is at its other end")
        return session.remote_address[0], session.remote_address[1]
