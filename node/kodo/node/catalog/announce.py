"""The node tells registries that it is there: a signed record, heartbeats, a goodbye. Never who runs what.

Each registry is attended to by a task of its own; one that is away, refuses, or answers nonsense concerns no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from kodo.node.catalog.claims import Claim, Listing, foreign_record, is_online
from kodo.node.clock import Clock, wait_or_sleep
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, KodoError, NetworkError
from kodo.p2p.net.discovery import Advertisement, Advertiser
from kodo.registry.records.record import (
    FlowRecord,
    Goodbye,
    Heartbeat,
    NodeRecord,
    Ping,
    sign_goodbye,
    sign_heartbeat,
    sign_record,
)

__all__ = ["Announcer", "Goodbyes", "Registry", "Said", "advertised"]

if TYPE_CHECKING:
    from kodo.registry.client.client import StateAnswer, UpAnswer

logger = logging.getLogger(__name__)

_TTL_S = 3600
_HURRY_S = 0.5
"""Changes come in bursts, and registries take only so many records: one is made for all of so long."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 120.0
_GOODBYE_S = 0.25
"""How long the end of a node waits for goodbyes, which were begun when it began to end."""
_SILENT_S = 2.0
"""After how long without an answer people are told."""


class Registry(Listing, Protocol):
    """What the announcer needs of a registry; `RegistryClient` has it."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def up(self, signed: bytes) -> UpAnswer: ...
    async def down(self, signed: bytes) -> None: ...
    async def state(self, signed: bytes) -> StateAnswer: ...


@dataclass(frozen=True, slots=True)
class Said:
    """What the node says of itself now."""

    name: str
    addresses: tuple[str, ...]
    flows: tuple[FlowRecord, ...]


@dataclass(slots=True)
class _Attended:
    """One registry: whether it has taken our record, and which of the flows it does not list."""

    url: str
    online: bool = False
    ever: bool = False
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the registry has our record."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what the node says may have changed: it is said at once."""
    away: bool = False
    """Whether it does not answer, which has been told."""
    claim: Claim = field(default_factory=Claim)


@dataclass(frozen=True, slots=True)
class _Signed:
    said: Said
    seq: int
    data: bytes
    until_ms: int


def _connect(url: str) -> Registry:
    # Imported here: most nodes announce to nobody, and what speaks HTTP takes long to import.
    from kodo.registry.client.client import RegistryClient

    return RegistryClient(url)


class _LeftError(Exception):
    """Our record is left to another node's with our key."""


class Goodbyes:
    """Goodbyes that are said while the rest of a node ends; `async with`, whose end waits for them for a moment."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=_GOODBYE_S)
        if late:
            logger.info("not every registry heard the goodbye in time")
        for task in late:
            task.cancel()
        await asyncio.wait(self._tasks)

    def begin(self, goodbye: Coroutine[Any, Any, None]) -> None:
        """Begin to say a goodbye."""
        self._tasks.append(asyncio.create_task(goodbye))


class Announcer:
    """Announces while it is open; `async with`, whose end begins to say goodbye.

    Args:
        urls: the registries.
        said: gives what the node says of itself now; looked at before every heartbeat.
        ping: gives how it performs.
        next_seq: gives the next number of a record.
        chance: gives a number from 0 to 1, for jitter.
        met: told what a registry has of another node with this key, proved by its signature.
        goodbyes: opened before, and closed after, all that need not wait for them.
    """

    def __init__(
        self,
        identity: Identity,
        urls: Sequence[str],
        *,
        said: Callable[[], Said],
        ping: Callable[[], Ping],
        next_seq: Callable[[], Any],
        clock: Clock,
        chance: Callable[[], float],
        goodbyes: Goodbyes,
        met: Callable[[NodeRecord], None] = lambda record: None,
        connect: Callable[[str], Registry] | None = None,
    ):
        self._identity = identity
        self._registries = [_Attended(url) for url in dict.fromkeys(urls)]
        self._said = said
        self._ping = ping
        self._next_seq = next_seq
        self._clock = clock
        self._chance = chance
        self._goodbyes = goodbyes
        self._met = met
        self._connect = connect or _connect
        self._signed: _Signed | None = None
        self._signing = asyncio.Lock()
        self._last_at = 0
        self._stack = contextlib.AsyncExitStack()
        self._is_open = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._is_open = True
        self._tasks = [group.create_task(self._attend(registry)) for registry in self._registries]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_open, self._is_open = self._is_open, False
        if not is_open:
            return
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()
        self._goodbyes.begin(self._goodbye())

    def look_again(self) -> None:
        """Announce at once what has changed since the last record, for example after a change of networks."""
        for registry in self._registries:
            registry.hurry.set()

    async def taken(self, url: str) -> None:
        """Wait until a registry has our record; cancelling is safe."""
        await next(registry for registry in self._registries if registry.url == url).taken.wait()

    def state(self) -> list[dict[str, Any]]:
        """Return what `node.state` shows: each registry, without what a URL hides, and whether it has our record."""
        return [{"url": _shown(registry.url), "online": registry.online} for registry in self._registries]

    async def _attend(self, registry: _Attended) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with self._connect(registry.url) as client:
                    await self._look(registry, client)
                    while registry.claim.left_to is None:
                        seq, interval = await self._up(registry, client)
                        pause = _FIRST_PAUSE_S
                        await self._beat(registry, client, seq, interval)
                wait = _LONGEST_PAUSE_S
            except _LeftError:
                wait = _LONGEST_PAUSE_S
            except CallError as error:
                if error.code in (404, 406) and registry.online:
                    # It has lost or outlived our record: say it again, soon.
                    wait = self._chance()
                else:
                    logger.warning("the registry %s refuses: %s", _shown(registry.url), error)
                    wait, pause = self._backoff(pause)
                    wait = max(wait, _retry_after(error))
            except KodoError as error:
                _tell_away(registry, f": {error}")
                wait, pause = self._backoff(pause)
            except Exception as error:
                logger.error("announcing to %s failed: %s", _shown(registry.url), type(error).__name__)
                wait, pause = _LONGEST_PAUSE_S, _LONGEST_PAUSE_S
            registry.online = False
            registry.taken.clear()
            await self._pause(registry, wait)

    async def _pause(self, registry: _Attended, seconds: float) -> None:
        """Wait so long, or until just after `look_again`."""
        if await wait_or_sleep(self._clock, registry.hurry, seconds):
            await self._clock.sleep(_HURRY_S)
            registry.hurry.clear()

    def _backoff(self, pause: float) -> tuple[float, float]:
        """Return how long to wait (seconds, with jitter) and the next pause."""
        return pause * (0.5 + self._chance() / 2), min(pause * 2, _LONGEST_PAUSE_S)

    async def _up(self, registry: _Attended, client: Registry) -> tuple[int, float]:
        signed = await self._record()
        async with self._watched(registry):
            try:
                answer = await client.up(signed.data)
            except CallError as error:
                if error.reason != "old-seq" or not await self._lost(registry, client):
                    raise
                signed = await self._record()
                answer = await client.up(signed.data)
            registry.online = registry.ever = True
            registry.taken.set()
        refused = {flow.path: flow.missing for flow in answer.refused}
        if refused != registry.refused:
            registry.refused = refused
            for flow in answer.refused:
                logger.warning("%s does not list %s: %s", _shown(registry.url), flow.path, flow.reason)
        return signed.seq, float(answer.interval_s)

    async def _lost(self, registry: _Attended, client: Registry) -> bool:
        """Learn whose record a registry has in place of ours; say whether ours, signed anew, is to take its place.

        Raises:
            _LeftError: it is left to another node with our key.
        """
        known = self._signed
        least = 1 if known is None else known.seq + 1
        found = await foreign_record(client, self._identity.peer_id, least)
        if found is None:
            return False
        self._met(found)
        if not registry.claim.lost(found, self._clock.steady_ms()):
            raise _LeftError
        async with self._signing:
            if self._signed is known:
                self._signed = None
        return True

    async def _look(self, registry: _Attended, client: Registry) -> None:
        """Look whether the other node to which our record was left is still there."""
        left_to = registry.claim.left_to
        if left_to is None:
            return
        async with self._watched(registry):
            found = await foreign_record(client, self._identity.peer_id, left_to)
            online = found is not None and await is_online(client, self._identity.peer_id)
        if registry.claim.looked(found, online=online, now=self._clock.steady_ms()):
            async with self._signing:
                self._signed = None
        elif found is not None:
            self._met(found)

    @contextlib.asynccontextmanager
    async def _watched(self, registry: _Attended) -> AsyncIterator[None]:
        """Warn if a registry does not answer for long inside the block, well before the wait is given up."""

        async def tell() -> None:
            await self._clock.sleep(_SILENT_S)
            _tell_away(registry, f" within {_SILENT_S:g} s")

        watch = asyncio.create_task(tell())
        try:
            yield
            if registry.away:
                registry.away = False
                logger.warning("the registry %s answers now", _shown(registry.url))
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _beat(self, registry: _Attended, client: Registry, seq: int, interval: float) -> None:
        """Send heartbeats until there is a new record to send."""
        while True:
            await self._pause(registry, interval * (0.9 + self._chance() / 10))
            if (await self._record()).seq != seq:
                return
            self._last_at = max(self._clock.now_ms(), self._last_at + 1)
            beat = Heartbeat(peer_id=str(self._identity.peer_id), seq=seq, at=self._last_at, ping=self._ping())
            async with self._watched(registry):
                answer = await client.state(sign_heartbeat(beat, self._identity))
            interval = float(answer.interval_s)

    async def _record(self) -> _Signed:
        """Return the record for now: the last one while it says the same and has half its time before it."""
        async with self._signing:
            said, now = self._said(), self._clock.now_ms()
            kept = self._signed
            if kept is not None and kept.said == said and now < kept.until_ms:
                return kept
            record = NodeRecord(
                peer_id=str(self._identity.peer_id),
                name=said.name,
                addrs=said.addresses,
                flows=said.flows,
                seq=await self._next_seq(),
                issued_at=now,
                ttl_s=_TTL_S,
            )
            data = await asyncio.to_thread(sign_record, record, self._identity)
            self._signed = _Signed(said, record.seq, data, now + _TTL_S * 500)
            return self._signed

    async def _goodbye(self) -> None:
        """Send a goodbye to every registry that answers and has our record, all at once."""
        theirs = [each for each in self._registries if each.ever and each.claim.left_to is None]
        known = [registry for registry in theirs if not registry.away]
        if self._signed is None or not known:
            return
        at = max(self._clock.now_ms(), self._last_at + 1)
        goodbye = Goodbye(peer_id=str(self._identity.peer_id), seq=self._signed.seq, at=at)
        signed = sign_goodbye(goodbye, self._identity)

        async def tell(url: str) -> None:
            try:
                async with self._connect(url) as client:
                    await client.down(signed)
            except KodoError as error:
                logger.info("no goodbye to %s: %s", _shown(url), type(error).__name__)

        async with asyncio.TaskGroup() as group:
            for registry in known:
                registry.online = False
                group.create_task(tell(registry.url))


@contextlib.asynccontextmanager
async def advertised(current: Callable[[], Advertisement], after: asyncio.Event | None = None) -> AsyncIterator[None]:
    """Announce on the local network for as long as the block lasts; a machine without one does without.

    Args:
        current: gives what is announced.
        after: set when it may begin; None: at once.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def announce() -> None:
            if after is not None:
                await after.wait()
            try:
                await stack.enter_async_context(Advertiser(current))
            except NetworkError as error:
                logger.warning("the node is not announced on the local network: %s", error)

        announcing = asyncio.create_task(announce())
        try:
            yield
        finally:
            announcing.cancel()
            await asyncio.wait([announcing])


def _tell_away(registry: _Attended, how: str) -> None:
    """Warn once that a registry does not answer."""
    if not registry.away:
        registry.away = True
        told = "the registry %s does not answer%s; the node goes on without it, and asks it again"
        logger.warning(told, _shown(registry.url), how)
    else:
        logger.info("the registry %s still does not answer%s", _shown(registry.url), how)


def _retry_after(error: CallError) -> float:
    seconds = error.data.get("retry_after_s", 0)
    return min(float(seconds), 3600.0) if isinstance(seconds, int | float) else 0.0


def _shown(url: str) -> str:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
