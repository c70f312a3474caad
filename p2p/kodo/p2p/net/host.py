"""A host is one peer on the network: it listens, dials, and routes streams to handlers by their protocol."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import IdentityError, KodoError, LocallyClosedError, UnreachableError, UsageError
from kodo.p2p.net import identify, path
from kodo.p2p.net.interfaces import local_addresses
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.session import Session
from kodo.p2p.net.stream import StreamHandler
from kodo.p2p.net.transport import Attached, Limits, Link, Listener, Transport
from kodo.p2p.net.turns import for_nobody

__all__ = ["Host", "forked_error"]

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0


def forked_error(pid: int) -> UsageError:
    """Return what to raise where a process uses what process `pid` had opened when it forked this one."""
    return UsageError(
        f"this was opened by the process {pid}, which has forked this one ({os.getpid()}), and only works there:"
        " open another one here"
    )


class Host:
    """One peer; `async with`. All its sessions end with it.

    Args:
        identity: the key that every session proves.
        transport: dials and listens; `WebRtcTransport`, or `MemoryTransport` in tests.
        agent: what `identify` tells others.
        limits: bounds of each session and listener.
        welcome: called with each session that a peer began; until it sets `Session.admitted` that peer may do
            little. None: whoever comes is welcome.
    """

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        *,
        agent: str | None = None,
        limits: Limits | None = None,
        welcome: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        self.identity = identity
        self.peer_id = identity.peer_id
        self._agent = agent
        self.limits = limits or Limits()
        self._transport = transport
        self._welcome = welcome
        self._handlers: dict[str, StreamHandler] = {}
        self._listeners: list[Listener] = []
        self._sessions: set[Session] = set()
        self._by_peer: dict[PeerId, Session] = {}
        self._attached: dict[tuple[str, int], Attached] = {}
        self._dialling: dict[PeerId | Multiaddr, asyncio.Lock] = {}
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._pid = os.getpid()
        self.handle(identify.PING, identify.answer_ping)
        self.handle(path.PATH, path.answer_path)
        self.handle(identify.IDENTIFY, lambda stream: identify.answer_identify(stream, self._told()))

    async def __aenter__(self) -> Self:
        self._pid = os.getpid()
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    def check_process(self) -> None:
        """Check that this process is the one that opened the host.

        Raises:
            UsageError: it was forked since: the sessions' packets are read by the other one.
        """
        if not self.is_own:
            raise forked_error(self._pid)

    @property
    def is_own(self) -> bool:
        """Whether this process is the one that opened the host."""
        return self._pid == os.getpid()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group = None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(session.aclose() for session in list(self._sessions)))
                for listener in self._listeners:
                    await listener.aclose()
        except TimeoutError:
            logger.debug("%d sessions did not close in time", len(self._sessions))
        finally:
            for session in self._sessions:
                session.cancel()
            # Not the block's error: sessions ended above, the group has only to see their tasks end.
            await self._stack.aclose()

    @property
    def agent(self) -> str:
        """What `identify` tells others; kodo's version by default."""
        if self._agent is None:
            self._agent = f"kodo/{installed_version()}"
        return self._agent

    def _told(self) -> identify.Identification:
        return identify.Identification(self.peer_id, self.agent, tuple(self.protocols), tuple(self.addresses()))

    @property
    def protocols(self) -> list[str]:
        """The protocols that this host speaks."""
        return list(self._handlers)

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return list(self._sessions)

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Pass every stream that a peer opens with `protocol` to `handler`; it may return before the stream ends."""
        self._handlers[protocol] = handler

    # listening

    async def listen(self, hosts: Sequence[str] = ("0.0.0.0", "::"), port: int = 0) -> list[Multiaddr]:
        """Listen on one UDP port of each host address; 0 takes a free one, the same for all.

        A wildcard IPv6 address is left out on machines without IPv6.

        Returns:
            The addresses as `addresses` gives them.

        Raises:
            UsageError: when an address cannot be bound.
        """
        for host in hosts:
            try:
                listener = await self._transport.listen(host, port, self.identity, self.limits, self._accept)
            except UsageError:
                if host == "::" and self._listeners:
                    continue
                raise
            self._listeners.append(listener)
            port = port or listener.address[1]
        return self.addresses()

    def addresses(self) -> list[Multiaddr]:
        """Return the full addresses of this host now; those that other machines can use come first."""
        found: dict[Multiaddr, None] = {}
        for listener in self._listeners:
            host, port = listener.address
            try:
                wildcard = ipaddress.ip_address(host).is_unspecified
            except ValueError:
                wildcard = False
            for each in local_addresses(6 if ":" in host else 4) if wildcard else [host]:
                found[self._transport.address_for(each, port).with_peer(self.peer_id)] = None
        return sorted(found, key=lambda address: is_own_host(address.host))

    # relays

    def attach(
        self,
        relay: tuple[str, int],
        token: str,
        changed: Callable[[], None],
        carrier: Carrier | None = None,
        carries: bool = True,
    ) -> None:
        """Be reached through a relay too; one listener of each address family is.

        Args:
            relay: IP address and UDP port.
            token: that the relay gave to this peer; one given later replaces it.
            changed: called when `relay_addresses` has changed.
            carrier: connects to the relay where UDP does not get there.
            carries: whether the relay carries sessions; else it only introduces diallers.
        """
        for listener in self._listeners:
            attached = listener.attach(relay, token, changed, carrier, carries)
            if attached is not None:
                self._attached[relay] = attached
                return
        before = self._attached.pop(relay, None)
        if before is not None:  # it was left
            changed()

    def detach(self, relay: tuple[str, int]) -> None:
        """Undo `attach`; idempotent."""
        self._attached.pop(relay, None)
        for listener in self._listeners:
            listener.detach(relay)

    def all_addresses(self) -> list[Multiaddr]:
        """Return the full addresses of this host now, those at relays included."""
        return [*self.addresses(), *self.relay_addresses()]

    def relay_addresses(self) -> list[Multiaddr]:
        """Return the full addresses at which relays pass on what is for this host."""
        return [
            self._transport.address_for(*relay).with_peer(self.peer_id)
            for relay, attached in self._attached.items()
            if attached.is_attached
        ]

    def _accept(self, link: Link) -> None:
        session = self._adopt(link)
        if self._welcome is not None and self._group is not None:
            session.admitted = False
            self._group.create_task(self._greet(session, self._welcome))

    async def _greet(self, session: Session, welcome: Callable[[Session], Awaitable[None]]) -> None:
        try:
            await welcome(session)
        except KodoError as error:
            logger.debug("%s is not admitted yet: %s", session.remote_peer, error)
        except Exception:
            logger.exception("it could not be found out whether %s may come in", session.remote_peer)

    def _adopt(self, link: Link) -> Session:
        if self._group is None:
            raise LocallyClosedError("this host is closed")
        session = Session(link, self._handlers, self.limits, self._forget)
        self._sessions.add(session)
        session.start(self._group)
        return session

    def _forget(self, session: Session) -> None:
        self._sessions.discard(session)
        if self._by_peer.get(session.remote_peer) is session:
            del self._by_peer[session.remote_peer]

    # dialling

    async def connect(self, addresses: Sequence[Multiaddr], *, timeout: float = 10.0) -> Session:
        """Return a session to the peer at `addresses`: one that lives, or a new one; cancelling is safe.

        The addresses are tried together; the first that answers wins, and a nearer one may replace it later.

        Args:
            addresses: all of one peer.
            timeout: seconds for all of them together.

        Raises:
            UsageError: the addresses name no peer, or several.
            IdentityError: somebody else answers there.
            UnreachableError: nobody answers in time.
        """
        if not addresses:
            raise UsageError("no address to dial")
        peers = {address.peer_id for address in addresses}
        if len(peers) > 1:
            raise UsageError("the addresses are not all of one peer")
        peer = peers.pop()
        lock = self._dialling.setdefault(peer or addresses[0], asyncio.Lock())
        try:
            async with lock:
                if peer is not None and (session := self._by_peer.get(peer)) is not None and not session.closed:
                    return session
                session = self._adopt(await self._race(addresses, timeout))
                self._by_peer[session.remote_peer] = session
                return session
        finally:
            if not lock.locked():
                self._dialling.pop(peer or addresses[0], None)

    async def _race(self, addresses: Sequence[Multiaddr], timeout: float) -> Link:
        """Dial the listeners that the addresses lead to; the first link wins.

        The addresses of one listener are dialled together. A peer has several listeners where some of its addresses
        are from before it made itself another certificate.
        """
        listeners: dict[bytes, list[Multiaddr]] = {}
        for address in addresses:
            listeners.setdefault(address.certhash, []).append(address)
        won: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        errors: list[KodoError] = []

        async def attempt(each: list[Multiaddr]) -> None:
            try:
                link = await self._transport.dial(each, self.identity, self.limits)
            except KodoError as error:
                errors.append(error)
                return
            if won.done():
                await link.aclose()
            else:
                won.set_result(link)

        # The session may be used for others, too.
        attempts = [asyncio.create_task(attempt(each), context=for_nobody()) for each in listeners.values()]
        try:
            async with asyncio.timeout(timeout):
                pending = set(attempts)
                while pending and not won.done():
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if won.done():
                await won.result().aclose()
            raise
        finally:
            for task in attempts:
                task.cancel()
            await asyncio.wait(attempts)
        if won.done():
            return won.result()
        for error in errors:
            if isinstance(error, IdentityError):
                raise error
        if len(errors) == len(attempts):
            raise errors[-1]
        where = ", ".join(f"{address.host} port {address.port}" for address in addresses[:4])
        raise UnreachableError(f"nobody answered within {timeout:g} s at {where}")
