"""How nodes answer: a registry that was told to dials them as a peer, pings, and keeps count.

A probe is a whole session: dial one of the record's addresses, prove keys, ping, end. `availability` is the share of
a node's last 100 probes that answered, `performance` the median of what these took, in seconds. Heartbeats say
that a node can reach the registry; a probe says that others can reach the node. What is found is this registry's own
view, and not passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

import msgpack

from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError, IdentityError, KodoError
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.identify import ping

__all__ = ["PROBES", "Due", "Prober", "Tally"]

PROBES = 100
"""Probes that count."""

_AT_ONCE = 8
_PROBE_S = 10.0
_LOOK_S = 5.0
"""Seconds between two looks at who is due, at most."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tally:
    """The latest probes of one node, oldest first: seconds each took, None where nobody answered."""

    results: tuple[float | None, ...] = ()

    def add(self, took_s: float | None) -> Tally:
        """Count one more; of more than `PROBES` the oldest go."""
        return Tally((*self.results, took_s)[-PROBES:])

    @property
    def availability(self) -> float | None:
        """Share of the probes that answered, 0 to 1; None without probes."""
        if not self.results:
            return None
        return sum(took is not None for took in self.results) / len(self.results)

    @property
    def performance(self) -> float | None:
        """Median of what the answered ones took, seconds; None without any."""
        answered = [took for took in self.results if took is not None]
        return round(statistics.median(answered), 6) if answered else None

    def to_bytes(self) -> bytes:
        """Write it for the store."""
        packed: bytes = msgpack.packb(self.results, use_single_float=True)
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Tally:
        """Read what `to_bytes` wrote."""
        return cls(tuple(msgpack.unpackb(data)))


@dataclass(frozen=True, slots=True)
class Due:
    """A node whose next probe is due, and its addresses as in its record."""

    peer_id: str
    addrs: tuple[str, ...]


class Prober:
    """Probes nodes for as long as it is open; `async with`.

    Args:
        due: gives at most so many nodes that were not probed for `every_s` seconds.
        measured: takes note of a probe: peer id, and its seconds or None.
        identity: the key that it dials with.
        every_s: seconds between two probes of one node.
        dial: probes one node and gives the seconds; sessions over WebRTC when not given.
    """

    def __init__(
        self,
        due: Callable[[int], Awaitable[Sequence[Due]]],
        measured: Callable[[str, float | None], Awaitable[None]],
        identity: Identity,
        every_s: float,
        *,
        dial: Callable[[Due], Awaitable[float]] | None = None,
    ) -> None:
        self._due = due
        self._measured = measured
        self._identity = identity
        self._every_s = every_s
        self._dial = dial or self._session
        self._stack = contextlib.AsyncExitStack()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._loop = group.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop; idempotent."""
        if self._loop is not None:
            self._loop.cancel()
        await self._stack.aclose()

    async def _run(self) -> None:
        while True:
            try:
                due = await self._due(_AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for node in due:
                        group.create_task(self._probe(node))
            except* (KodoError, CallError) as errors:
                logger.warning("a probe could not be noted: %s", errors.exceptions[0])
                due = ()
            if len(due) < _AT_ONCE:
                await asyncio.sleep(min(_LOOK_S, self._every_s) * random.uniform(0.5, 1.0))

    async def _probe(self, node: Due) -> None:
        took: float | None = None
        try:
            async with asyncio.timeout(_PROBE_S):
                took = await self._dial(node)
        except (KodoError, TimeoutError) as error:
            if isinstance(error, IdentityError):
                logger.warning("the node %s: somebody else answers at its address", node.peer_id)
        except Exception:
            # A node chooses what is dialled and what answers there: it is not to end the probes of the others.
            logger.exception("the node %s could not be probed", node.peer_id)
        await self._measured(node.peer_id, took)

    async def _session(self, node: Due) -> float:
        """Dial, ping, end; give the seconds that dialling and the ping took together."""
        addresses = [Multiaddr.parse(address) for address in node.addrs]
        # A host a probe: nothing of one is left to make the next one look better.
        async with Host(self._identity, WebRtcTransport()) as host:
            begun = time.perf_counter()
            session = await host.connect(addresses, timeout=_PROBE_S)
            if session.remote_peer != PeerId.parse(node.peer_id):
                raise IdentityError(f"asked for {node.peer_id}, {session.remote_peer} answered")
            await ping(session, timeout=_PROBE_S)
            return time.perf_counter() - begun
