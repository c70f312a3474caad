"""A node as a client deals with it: dialled when needed, again when it was lost, found again when it moved."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol, Self

from kodo.client.known_addresses import KnownAddresses
from kodo.client.known_nodes import KnownNodes
from kodo.client.login import LoginKeeper
from kodo.client.resolve import Target
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import (
    CallError,
    DeadlineError,
    IdentityError,
    LocallyClosedError,
    NetworkError,
    PeerError,
    UnreachableError,
    UsageError,
)
from kodo.p2p.net.calls import Call, request
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.protocol.bounds import MAX_PAGE
from kodo.protocol.events import Event

__all__ = ["ATTEMPTS", "Backoff", "Places", "RemoteNode", "read_pages"]

logger = logging.getLogger(__name__)

DIAL_SECONDS = 10.0
ATTEMPTS = 3
"""How often one request is made when its session breaks; only requests that may be repeated are."""

MAX_ROWS = 100_000


class Backoff:
    """Waits before the next attempt: doubling from 0.1 s to 5 s, with jitter, until a deadline."""

    def __init__(self, patience: float, now: Callable[[], float]):
        self._patience = patience
        self._now = now
        self._attempt = 0
        self._until = now() + patience

    def succeeded(self) -> None:
        """Start from the beginning: something arrived."""
        self._attempt = 0
        self._until = self._now() + self._patience

    def delay(self) -> float | None:
        """Return the seconds to wait, or None when the deadline has passed."""
        left = self._until - self._now()
        if left <= 0:
            return None
        delay: float = min(0.1 * 2**self._attempt, 5.0) * (0.7 + 0.3 * random.random())
        self._attempt += 1
        return min(delay, left)


class Places(Protocol):
    """Where a node that moved is looked for: a `Resolver`, or what stands for one."""

    async def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses at which a peer is said to be now; none when it is not found."""
        ...


class RemoteNode:
    """One node; made by `Client`.

    Attributes:
        peer_id: who it has to be; every session proves it.
        name: the name it was asked for by, which is pinned once it proved its key.
        label: the name that it claims where it was found; for people to read.
        new: it was asked for by a name that was pinned to nobody before.
    """

    def __init__(
        self,
        target: Target,
        host: Host,
        resolver: Places,
        known: KnownNodes,
        *,
        timeout: float,
        logins: LoginKeeper | None = None,
        places: KnownAddresses | None = None,
    ):
        self.peer_id: PeerId = target.peer_id
        self.name = target.name
        self.label: str | None = None
        self._session: Session | None = None
        """The latest one."""
        self._addresses = target.addresses
        self._given = str(target.addresses[0]) if target.given else None
        self._pin = target.name
        self.new = target.name is not None and known.get(target.name) is None
        self._host = host
        self._resolver = resolver
        self._known = known
        self._timeout = timeout
        self._logins = logins
        self._last_places = places
        self._reached: tuple[Multiaddr, ...] | None = None
        self._logging_in = asyncio.Lock()
        self._behalf: str | None = None

    by_link = False
    """Whether it is reached by a link."""

    def __str__(self) -> str:
        return self.name or self.label or str(self.peer_id)

    def on_behalf(self, fid: str) -> Self:
        """Return this node as a node asks it about what it launched there for its own run `fid`."""
        other = copy.copy(self)
        other._behalf = fid
        return other

    def about(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the args of a call about a run, with on whose behalf it is made."""
        return dict(args) if self._behalf is None else {**args, "behalf": self._behalf}

    @property
    def reach(self) -> str:
        """What to write to mean this node another time: the address when that is how it was asked for."""
        return self._given or str(self)

    @property
    def route(self) -> str | None:
        """The way that the latest session's packets take now, or took last; None before the first."""
        return None if self._session is None else self._session.route

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that are dialled now."""
        return tuple(map(str, self._addresses))

    @property
    def connected(self) -> bool:
        """Whether a session to it is open."""
        return any(each.remote_peer == self.peer_id and not each.closed for each in self._host.sessions)

    async def session(self) -> Session:
        """Return the session to this node: the one that lives, or a new one. Cancelling is safe.

        Raises:
            UnreachableError: nobody answers, neither where it was nor where it is said to be now.
            IdentityError: somebody else answers.
            UsageError: this process was forked since the client was opened.
        """
        self._host.check_process()
        timeout = min(self._timeout, DIAL_SECONDS)
        try:
            session = await self._dial(timeout)
        except (NetworkError, DeadlineError, IdentityError) as error:
            if isinstance(error, LocallyClosedError):
                raise
            addresses = await self._resolver.addresses(self.peer_id)
            if not addresses or set(addresses) <= set(self._addresses):
                raise
            self._addresses = addresses
            session = await self._dial(timeout)
        if self._pin is not None:
            self._known.pin(self._pin, self.peer_id)
            self._pin = None
        self._session = session
        self._remember_place()
        if self._logins is not None:
            async with self._logging_in:
                await self._logins.resume(session)
        return session

    async def dial(self, timeout: float) -> bool:
        """Dial the known addresses alone; return whether the node is there. Cancelling is safe.

        Raises:
            LocallyClosedError: the client is closed.
        """
        try:
            await self._dial(timeout)
        except LocallyClosedError:
            raise
        except (NetworkError, DeadlineError, IdentityError) as error:
            logger.debug("%s is not where it was: %s", self, error)
            return False
        return True

    def move(self, addresses: tuple[Multiaddr, ...]) -> None:
        """Take note of where it was found now."""
        self._addresses = addresses

    def _remember_place(self) -> None:
        """Keep where a node was reached that is on the local network, and that this user knows by name."""
        if self._last_places is None or self.route != "lan" or self._reached == self._addresses:
            return
        self._reached = self._addresses
        try:
            if self.peer_id in self._known.all().values():
                self._last_places.remember(self.peer_id, self._addresses)
        except UsageError as error:
            logger.debug("where %s is is not remembered: %s", self, error)

    async def _dial(self, timeout: float) -> Session:
        if not self._addresses:
            raise UnreachableError(f"no address is known for {self}")
        session = await self._host.connect(self._addresses, timeout=timeout)
        if session.remote_peer != self.peer_id:
            raise IdentityError(f"{session.remote_peer} answered in the place of {self.peer_id}")
        return session

    async def request(
        self, op: str, args: Mapping[str, Any] | None = None, *, timeout: float | None = None, repeat: bool = True
    ) -> Any:
        """Make a call that has no items.

        Args:
            timeout: seconds, the client's own by default.
            repeat: make it again when the session breaks. Only for what may be done twice, or carries a key.
        """
        for attempt in range(1, ATTEMPTS + 1):
            session = await self.session()
            try:
                return await request(session, op, self.about(args or {}), timeout=timeout or self._timeout)
            except CallError as error:
                if error.code != 401 or attempt == ATTEMPTS or not await self._log_in_again(session):
                    raise
            except NetworkError as error:
                if isinstance(error, LocallyClosedError) and not session.closed:
                    raise
                if not repeat or attempt == ATTEMPTS:
                    raise
                logger.debug("%s is made again: %s", op, error)
        raise AssertionError("unreachable")

    async def pages(
        self, op: str, args: Mapping[str, Any] | None = None, *, size: int = MAX_PAGE
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the rows of a paged answer, page after page of `size`; smaller ones where rows are large."""
        async with aclosing(read_pages(self.request, op, args or {}, size)) as rows:
            async for row in rows:
                yield row

    async def events(self, fid: str, after: int, *, follow: bool, patience: float) -> AsyncGenerator[Event, None]:
        """Yield a run's events with `seq` > `after`, each once and in order, over as many sessions as it takes.

        Args:
            patience: seconds without any event or session after which a lost node is given up.
        """
        backoff = Backoff(patience, asyncio.get_running_loop().time)
        last = after
        while True:
            try:
                async with aclosing(self._stream(fid, last, follow)) as batches:
                    async for batch in batches:
                        backoff.succeeded()
                        for event in batch:
                            if event.seq > last:
                                last = event.seq
                                yield event
                return
            except (NetworkError, DeadlineError) as error:
                lost: Exception = error
            except CallError as error:
                if error.code == 401 and await self._log_in_again(await self.session()):
                    continue
                if error.code not in (429, 503):
                    raise
                lost = error
            delay = backoff.delay()
            if delay is None:
                raise lost
            logger.debug("%s: going on after event %d in %.1f s: %s", fid, last, delay, lost)
            await asyncio.sleep(delay)

    async def may_go_on(self, error: CallError) -> bool:
        """Return whether a call that a refusal ended may go on: its login was renewed, or its rights had changed."""
        if error.reason == "access-changed":
            return True
        return error.code == 401 and await self._log_in_again(await self.session())

    async def _log_in_again(self, session: Session) -> bool:
        """Log in anew when the node has let the login go; say whether that was possible."""
        if self._logins is None:
            return False
        async with self._logging_in:
            return await self._logins.again(session)

    async def _stream(self, fid: str, after: int, follow: bool) -> AsyncGenerator[list[Event], None]:
        session = await self.session()
        # No deadline per item: a run may be silent for hours. A session that is dead ends by itself within 15 s.
        args = self.about({"fid": fid, "after": after, "follow": follow})
        async with Call(session, "run.stream", args, timeout=None) as call:
            async for items in call.batches():
                try:
                    batch = [Event.from_wire(item) for item in items]
                except (ValueError, AttributeError):
                    raise PeerError(f"{self} sent something that is not an event of {fid}") from None
                yield batch
            done = await call.done()
        if follow and isinstance(done, Mapping) and done.get("state") not in ("done", "error"):
            raise UnreachableError(f"{self} ended the stream of a run that is not finished")


async def read_pages(
    ask: Callable[[str, Mapping[str, Any]], Awaitable[Any]], op: str, args: Mapping[str, Any], size: int = MAX_PAGE
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the rows of a paged answer, page after page of `size`; smaller ones where rows are large."""
    page, given = 1, 0
    while given < MAX_ROWS:
        try:
            answer = await ask(op, {**args, "p": page, "pp": size})
        except CallError as error:
            fit = error.data.get("pp")
            if error.reason != "page-too-large" or not isinstance(fit, int) or not 0 < fit < size:
                raise
            # Pages begin at multiples of their size: the next has to begin where the last one ended.
            size = next(each for each in range(fit, 0, -1) if given % each == 0)
            page = given // size + 1
            continue
        rows = list(read_rows(answer, op))
        for row in rows:
            given += 1
            yield row
        total = answer.get("total_pages")
        if not rows or page >= (total if isinstance(total, int) else 1):
            return
        page += 1


def read_rows(answer: Any, op: str) -> Iterator[dict[str, Any]]:
    """Return the rows of an answer that has a `result`.

    Raises:
        PeerError: it has none.
    """
    rows = answer.get("result") if isinstance(answer, Mapping) else None
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        raise PeerError(f"the answer to {op} has no rows")
    return (dict(row) for row in rows)
