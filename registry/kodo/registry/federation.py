"""A registry among others: it reads the ones that it was told of, and feeds the ones that it was told to feed.

Reading is by cursor, and waits at the other side for news: what one registry learns the next has a moment later, also
through a firewall that lets nobody in. A registry that only contributes feeds others what nodes told it, and reads
nobody. Each other registry is dealt with by a task of its own; one that is away, lies or floods concerns no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, IdentityError, KodoError, PeerError
from kodo.p2p.net.turns import FairThreads, for_nobody
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.problems import problem
from kodo.registry.records.mesh import BROUGHT_S, Batch, Brought, Item, Ledger, MeshBounds, Tombstone
from kodo.registry.records.signed import open_envelope, read, sign, verify
from kodo.registry.store.mesh_store import Checked, Cursor, MeshStore, Page, check_item

__all__ = ["BESIDE", "LONGEST_WAIT_S", "Federation"]

BESIDE = 2
"""Batches, records and long answers that are worked on at once beside the loop."""

LONGEST_WAIT_S = 25.0
"""Seconds that one request may wait for news: under what proxies cut."""

_LONGEST_PAUSE_S = 3600
"""Seconds for which another registry may ask to be left alone."""

_GATHER_S = 0.05
"""Seconds after news in which more news joins it."""

_BREATH_S = 1.0
"""Seconds after an answer that came early and says nothing."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Federation:
    """The mesh as one registry sees it; `async with`.

    Attributes:
        store: the mesh's side of the store.
        identity: this registry's key.
        clock: gives ms UTC.
        read: URLs of registries to read.
        feed: URLs of registries to feed with what nodes told this one.
        members: peer ids of registries that may feed this one.
        interval_s: seconds after which a registry that failed is asked again.
        bounds: what is put up with.
        ledgers: how each member has behaved, by peer id.
        beside: checks and signs batches in threads, in turn.
    """

    store: MeshStore
    identity: Identity
    clock: Callable[[], int]
    read: tuple[str, ...] = ()
    feed: tuple[str, ...] = ()
    members: frozenset[str] = frozenset()
    interval_s: float = 30.0
    bounds: MeshBounds = field(default_factory=MeshBounds)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    beside: FairThreads = field(default_factory=lambda: FairThreads(BESIDE))
    _brought_at: int = 0
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _group: asyncio.TaskGroup | None = None
    _tasks: dict[tuple[str, bool], asyncio.Task[None]] = field(default_factory=dict)

    @property
    def own(self) -> str:
        """Peer id of this registry."""
        return str(self.identity.peer_id)

    async def __aenter__(self) -> Self:
        named = [*((url, False) for url in self.read), *((url, True) for url in self.feed)]
        dealings = {(RegistryClient(url).url, feed) for url, feed in named}
        await self.store.forget_cursors({_feed_key(url) if feed else url for url, feed in dealings})
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        for url, feed in sorted(dealings):
            self.deal_with(url, feed=feed)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop; idempotent."""
        self._group = None
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        await self._stack.aclose()

    def deal_with(self, url: str, *, feed: bool) -> None:
        """Read, or feed, the registry at `url` from now on."""
        if self._group is not None and (url, feed) not in self._tasks:
            deal = self._feed if feed else self._read
            # An operator who adds it by a call is not whom it is done for.
            self._tasks[url, feed] = self._group.create_task(self._keep(url, deal), context=for_nobody())

    async def leave(self, url: str) -> None:
        """Deal with the registry at `url` no more; what it told stays until it expires."""
        tasks = [self._tasks.pop((url, feed)) for feed in (False, True) if (url, feed) in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept = {_feed_key(other) if feed else other for other, feed in self._tasks}
        await self.store.forget_cursors(kept)

    def dealings(self) -> list[dict[str, Any]]:
        """Return the registries that are dealt with: `url`, and `feed` or `read`."""
        return [{"url": url, "does": "feed" if feed else "read"} for url, feed in sorted(self._tasks)]

    # --- asked by other registries ---

    async def batch(self, since: int, epoch: bytes | None, wait_s: float) -> bytes:
        """Return a signed batch of what changed after `since`; wait for news up to `wait_s` when there is none."""
        news = self.store.bell.listen()
        page = await self.store.page(self.own, since, epoch, self.clock())
        if not page.items and not page.more and wait_s > 0:
            await news.wait(min(wait_s, LONGEST_WAIT_S))
            await asyncio.sleep(_GATHER_S)
            page = await self.store.page(self.own, since, epoch, self.clock())
        return await self.beside.do(lambda: self._signed(page))

    async def take(self, signed: bytes) -> dict[str, Any]:
        """Take a batch that a member brings; give the counts of what became of its items, and this file's epoch.

        Raises:
            CallError: 400 malformed, forged or replayed, 403 not a member, 429 flooding, or cut off.
        """
        try:
            envelope = await self.beside.do(lambda: open_envelope(Brought, signed))
            if str(envelope.peer_id) not in self.members:
                raise problem(
                    403, "not-a-member", f"the registry {envelope.peer_id} is not a member of this mesh here"
                )
            batch = await self.beside.do(lambda: read(Brought, envelope))
        except PeerError as error:
            raise problem(400, "malformed", str(error)) from None
        ledger, now = self._ledger(batch.peer_id), self.clock()
        # Else whoever overheard a batch could use up what its sender may bring, or bring it once it has expired.
        if abs(batch.at - now) > BROUGHT_S * 1000 or batch.at <= ledger.brought_at:
            raise problem(400, "stale-batch", "this batch was sent before, or the clocks differ too much")
        ledger.brought_at = batch.at
        if not ledger.trusted(now):
            seconds = -(-(ledger.cut_off_until - now) // 1000)
            raise problem(
                429, "cut-off", "too many items of your batches were forged or expired", retry_after_s=seconds
            )
        wait = ledger.wait_s(now, len(batch.items), self.bounds)
        if wait > 0:
            seconds = max(1, -(-round(wait * 1000) // 1000))
            raise problem(429, "too-often", f"too many items; wait {seconds} s", retry_after_s=seconds)
        before = (ledger.taken, ledger.known, ledger.forged, ledger.stale, ledger.refused)
        await self._merge(batch.items, batch.peer_id, ledger, None)
        after = (ledger.taken, ledger.known, ledger.forged, ledger.stale, ledger.refused)
        names = ("taken", "known", "forged", "stale", "refused")
        counts = {name: new - old for name, old, new in zip(names, before, after, strict=True)}
        page = await self.store.page(self.own, 2**53 - 1, None, now)
        return {**counts, "epoch": page.epoch.hex()}

    async def bury(self, node: str, seq: int) -> bool:
        """Take back a node that was announced here, at every registry that knows it from here."""
        now = self.clock()
        tombstone = Tombstone(peer_id=self.own, node=node, seq=seq, at=now)
        return await self.store.bury(sign(tombstone, self.identity), tombstone, now)

    def report(self) -> list[dict[str, Any]]:
        """Return how each member has behaved."""
        now = self.clock()
        return [
            {
                "peer_id": peer_id,
                "taken": ledger.taken,
                "known": ledger.known,
                "forged": ledger.forged,
                "stale": ledger.stale,
                "refused": ledger.refused,
                "cut_off": not ledger.trusted(now),
            }
            for peer_id, ledger in sorted(self.ledgers.items())
        ]

    # --- asking ---

    async def _keep(self, url: str, deal: Callable[[RegistryClient], Coroutine[Any, Any, None]]) -> None:
        """Deal with one registry for as long as this one runs."""
        claimant = Claimant(self.identity, now=self.clock)
        async with RegistryClient(url, timeout=LONGEST_WAIT_S + 10.0, claimant=claimant) as client:
            while True:
                try:
                    await deal(client)
                    pause = 0.0
                except KodoError as error:
                    logger.warning("the registry %s: %s", url, error)
                    pause = self._pause(error)
                except Exception:
                    # What one registry can provoke here is not to end the dealings with the others.
                    logger.exception("the registry %s could not be dealt with", url)
                    pause = self._pause(None)
                await asyncio.sleep(pause)

    def _pause(self, error: KodoError | None) -> float:
        """Return the seconds to wait after `error`: as many as the other side asks for, within reason."""
        asked = error.data.get("retry_after_s", 0) if isinstance(error, CallError) else 0
        return max(self.interval_s * random.uniform(0.5, 1.0), min(asked, _LONGEST_PAUSE_S))

    async def _read(self, client: RegistryClient) -> None:
        cursor = await self.store.cursor(client.url)
        if cursor is not None:
            ledger = self._ledger(cursor.peer_id)
            if not ledger.trusted(self.clock()):
                await asyncio.sleep(self.interval_s)
                return
        since, epoch = (0, None) if cursor is None else (cursor.next, cursor.epoch)
        wait_s = min(self.interval_s, LONGEST_WAIT_S)
        begun = time.monotonic()
        signed = await client.records(since, None if epoch is None else epoch.hex(), wait_s)
        batch = await self.beside.do(lambda: verify(Batch, signed))
        if batch.peer_id == self.own:
            raise PeerError("this is the URL of this registry itself; remove it from the list")
        if cursor is not None and batch.peer_id != cursor.peer_id:
            raise IdentityError(
                f"its peer id was {cursor.peer_id} and now is {batch.peer_id}; if that is right, "
                "start once without this URL, then with it"
            )
        if batch.since != (since if batch.epoch == epoch else 0):
            raise PeerError("its answer is for another cursor")
        ledger = self._ledger(batch.peer_id)
        if wait := ledger.wait_s(self.clock(), len(batch.items), self.bounds):
            await asyncio.sleep(wait)
            ledger.wait_s(self.clock(), len(batch.items), self.bounds)
        at = Cursor(batch.peer_id, batch.epoch, batch.next)
        if batch.items or cursor != at:
            await self._merge(batch.items, batch.peer_id, ledger, (client.url, at))
        # One that answers at once with nothing, as if there were no waiting, is not asked in a circle.
        if not batch.items and time.monotonic() - begun < wait_s / 2:
            await asyncio.sleep(min(wait_s, _BREATH_S))

    async def _feed(self, client: RegistryClient) -> None:
        # What is pinned here is the other side's file: a new one knows nothing of what was told to the old one.
        url = _feed_key(client.url)
        cursor = await self.store.cursor(url)
        since, epoch = (0, None) if cursor is None else (cursor.next, cursor.epoch)
        news = self.store.bell.listen()
        page = await self.store.page(self.own, since, epoch, self.clock(), own_only=True)
        if not page.items and not page.more:
            await news.wait(self.interval_s)
            await asyncio.sleep(_GATHER_S)
            page = await self.store.page(self.own, since, epoch, self.clock(), own_only=True)
        # An empty batch asks whether the other side still has what it was told.
        told = await client.bring(await self.beside.do(lambda: self._signed(page, self._next_at())))
        if cursor is not None and cursor.peer_id != told:
            logger.warning("the registry %s has a new file and is told everything again", client.url)
            await self.store.set_cursor(url, Cursor(told, page.epoch, 0))
            await asyncio.sleep(self._pause(None))
        elif cursor is None or (page.epoch, page.next) != (cursor.epoch, cursor.next):
            await self.store.set_cursor(url, Cursor(told, page.epoch, page.next))

    # --- inside ---

    async def _merge(
        self, items: tuple[Item, ...], member: str, ledger: Ledger, cursor: tuple[str, Cursor] | None
    ) -> None:
        checked, forged = await self.beside.do(lambda: _checked(items))
        now = self.clock()
        merged = await self.store.merge(checked, member, self.own, now, most_nodes=self.bounds.nodes, cursor=cursor)
        ledger.taken += merged.taken
        ledger.known += merged.known
        ledger.refused += merged.refused
        if not ledger.judge(now, self.bounds, forged=forged, stale=merged.stale):
            logger.error("the registry %s lies, and is cut off for %.0f s", member, self.bounds.cutoff_s)

    def _ledger(self, peer_id: str) -> Ledger:
        return self.ledgers.setdefault(peer_id, Ledger())

    def _next_at(self) -> int:
        self._brought_at = max(self._brought_at + 1, self.clock())
        return self._brought_at

    def _signed(self, page: Page, at: int | None = None) -> bytes:
        """Sign a batch that is read here, or with `at` one to bring."""
        said: dict[str, Any] = {
            "peer_id": self.own,
            "epoch": page.epoch,
            "since": page.since,
            "next": page.next,
            "more": page.more,
            "items": page.items,
        }
        return sign(Batch(**said) if at is None else Brought(**said, at=at), self.identity)


def _feed_key(url: str) -> str:
    return f"feed {url}"


def _checked(items: tuple[Item, ...]) -> tuple[list[Checked], int]:
    checked: list[Checked] = []
    for item in items:
        with contextlib.suppress(PeerError):
            checked.append(check_item(item))
    return checked, len(items) - len(checked)
