"""Shares: made, listed, ended; what runs by one ends with it.

A link's secret is made here and told once; only its SHA-256 is stored. Whoever uses a share does so inside `using`,
which ends at once when the share is revoked, expires, or its run is deleted. Places for downloads are taken before
the first byte is sent and noted ahead of what is sent, so that a crash at any moment gives nothing away.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from kodo.node.clock import Clock
from kodo.node.shares.share_limits import Makers
from kodo.node.store import share_changes, share_rows
from kodo.node.store.byte_ranges import Spans, add_span
from kodo.node.store.rows import NewEvent, RunRow
from kodo.node.store.share_changes import NewShare
from kodo.node.store.share_rows import Gone, ShareRow, gone
from kodo.node.store.store import Store
from kodo.node.store.transaction import Commit, Transaction
from kodo.p2p.errors import CallError, CapacityError, KodoError, NotFoundError
from kodo.protocol.access import Principal
from kodo.protocol.link import SECRET_BYTES, digest_of_secret

__all__ = ["Reading", "Shares"]

_AHEAD_BYTES = 16 << 20
"""How far ahead of what is sent a download is noted: one commit for so many bytes."""

_LOOK_S = 30.0
"""How often a wait for the end of a share looks at the clock, which may be set, and at what its maker may see."""


_MAX_OWED = 1000
"""Ends of reads that wait for room on the disk; the place of one beyond that lapses after a day."""


@dataclass(slots=True, eq=False)
class _Use:
    """Something that runs by a share: `timeout` ends it, `why` says the reason."""

    fid: str
    timeout: asyncio.Timeout
    why: Gone | Literal["changed"] | None = None

    def end(self, why: Gone | Literal["changed"]) -> None:
        if self.why is None:
            self.why = why
            self.timeout.reschedule(asyncio.get_running_loop().time())


@dataclass(slots=True, eq=False)
class _Download:
    """What one peer reads of one share at this moment, by however many calls; kept until the last end is written.

    Attributes:
        known: whether what was sent before was read from the database.
        lock: held while a place is taken, and while an end is written: a read that begins in between finds neither.
    """

    known: bool = False
    spans: dict[str, Spans] = field(default_factory=dict)
    noted: dict[str, Spans] = field(default_factory=dict)
    sent: int = 0
    readers: Counter[str] = field(default_factory=Counter)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Reading:
    """One read of an output by a share with a limit: say what is about to be sent, then what was."""

    def __init__(self, store: Store, share: ShareRow, peer: str, name: str, download: _Download):
        self._store = store
        self._sid = share.sid
        self._peer = peer
        self._name = name
        self._download = download
        self._ahead = 0

    async def before(self, start: int, end: int) -> None:
        """Note, durably, that bytes `[start, end)` may be sent from now on."""
        if end <= self._ahead:
            return
        self._ahead = max(end, start + _AHEAD_BYTES)
        download = self._download
        async with download.lock:
            noted = add_span(download.noted.get(self._name, ()), start, self._ahead)
            download.noted[self._name] = noted
            sent = download.sent + self._ahead - start
            await self._store.write(lambda tx: share_changes.mark(tx, self._sid, self._peer, self._name, noted, sent))

    def after(self, start: int, end: int) -> None:
        """Take what was sent."""
        download = self._download
        download.spans[self._name] = add_span(download.spans.get(self._name, ()), start, end)
        download.sent += end - start


class Shares:
    """The shares of a node's runs.

    Args:
        new_id: makes sids.
        new_secret: makes links' secrets, `bytes[16]`, from the system's randomness.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        new_secret: Callable[[], bytes] = lambda: secrets.token_bytes(SECRET_BYTES),
    ):
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._new_secret = new_secret
        self._makers: Makers | None = None
        self._uses: dict[str, set[_Use]] = {}
        self._downloads: dict[tuple[str, str], _Download] = {}
        # Ends of reads that a full disk did not take: by them places come back once it has room.
        self._owed: dict[tuple[str, str, str], Callable[[Transaction], None]] = {}
        store.subscribe(self._committed)

    def bounded_by(self, makers: Makers) -> None:
        """Limit shares to what their makers may see, from now on."""
        self._makers = makers

    async def _bounded(self, rows: Sequence[ShareRow]) -> list[ShareRow | None]:
        return list(rows) if self._makers is None else await self._makers.bound(rows)

    # --- made and ended ---

    async def add(
        self,
        run: RunRow,
        by: str,
        *,
        level: int,
        mode: str,
        expires_s: float,
        downloads: int | None,
        users: Sequence[str] = (),
        roles: Sequence[str] = (),
        link: bool,
    ) -> tuple[ShareRow, bytes | None]:
        """Share a run; give the share, and for a `link` its secret, which nobody can ask for again.

        Raises:
            CallError: 404 `no-such-run`.
            CapacityError: the run has too many shares, or the disk takes no more.
        """
        secret = self._new_secret() if link else None
        now = self._clock.now_ms()
        new = NewShare(
            sid=self._new_id(),
            fid=run.fid,
            level=level,
            mode="x" if mode == "x" else "r",
            expires=now + int(expires_s * 1000),
            downloads=downloads,
            digest=None if secret is None else digest_of_secret(secret),
            users=tuple(dict.fromkeys(users)),
            roles=tuple(dict.fromkeys(roles)),
        )
        await self._store_new(new, by)
        made = await self._store.ask(lambda connection: share_rows.by_sid(connection, new.sid, now))
        if made is None:
            raise gone("deleted")
        return made, secret

    def shown_to(self, user: str, by: str, *, level: int, expires_s: float) -> Callable[[Transaction, str], None]:
        """Return what lets a user read a run, in the transaction that stores it: see `Order.then`."""
        expires = self._clock.now_ms() + int(expires_s * 1000)

        def then(tx: Transaction, fid: str) -> None:
            _write(tx, NewShare(self._new_id(), fid, level, "r", expires, users=(user,)), by)

        return then

    async def _store_new(self, new: NewShare, by: str) -> None:
        try:
            await self._store.write(lambda tx: _write(tx, new, by))
        except NotFoundError:
            raise CallError(404, "no-such-run", "there is no such run here, or it is not yours") from None

    async def revoke(self, share: ShareRow, by: str) -> None:
        """End a share: whatever runs by it ends before this returns; a second time changes nothing."""
        event = NewEvent.make("unshare", {"sid": share.sid, "by": by})

        def write(tx: Transaction) -> None:
            if share_changes.revoke(tx, share.sid):
                tx.append(share.fid, [event], (), None)

        with contextlib.suppress(NotFoundError):
            await self._store.write(write)

    # --- found ---

    async def get(self, sid: str) -> ShareRow | None:
        """Return one share."""
        now = self._clock.now_ms()
        return await self._store.ask(lambda connection: share_rows.by_sid(connection, sid, now))

    async def of_run(self, fid: str) -> list[ShareRow]:
        """Return all shares of a run, the latest first."""
        now = self._clock.now_ms()
        return await self._shown(await self._store.ask(lambda connection: share_rows.of_run(connection, fid, now)))

    async def of_principal(self, principal: str, p: int, pp: int) -> tuple[int, list[ShareRow]]:
        """Return how many shares there are of a principal's runs, and a page of them, the latest first."""
        now = self._clock.now_ms()
        total, rows = await self._store.ask(
            lambda connection: share_rows.of_principal(connection, principal, now, p, pp)
        )
        return total, await self._shown(rows)

    async def _shown(self, rows: Sequence[ShareRow]) -> list[ShareRow]:
        """Return shares as they show their runs now, by what their makers may."""
        bounded = await self._bounded(rows)
        return [now or replace(row, suspended=True) for row, now in zip(rows, bounded, strict=True)]

    async def given(self, principal: Principal) -> dict[str, ShareRow]:
        """Return, by fid, the share by which a principal sees each run that is shared with it or a role of its."""
        now, users, roles = self._clock.now_ms(), _names(principal), sorted(principal.roles)
        peer = principal.peer_id
        rows = await self._store.ask(lambda connection: share_rows.given(connection, users, roles, now, peer))
        found: dict[str, ShareRow] = {}
        for row in await self._bounded(rows):
            if row is None:
                continue
            found[row.fid] = max(row, found.get(row.fid, row), key=_worth)
        return found

    async def best(
        self, fid: str, principal: Principal, peer: str, digests: Sequence[bytes]
    ) -> tuple[ShareRow | None, Gone | None]:
        """Return the share by which a caller sees the run; and why it does not, if it holds a link that is dead.

        Args:
            digests: of the links that the caller's session has opened.
        """
        now, users, roles = self._clock.now_ms(), _names(principal), sorted(principal.roles)
        rows, dead = await self._store.ask(
            lambda connection: share_rows.concerning(connection, fid, users, roles, digests, now, peer)
        )
        usable = [row for row in rows if row.usable]
        bounded = await self._bounded(usable)
        if any(now is None and row.link for row, now in zip(usable, bounded, strict=True)):
            dead = [*dead, "revoked"]
        return max((row for row in bounded if row is not None), key=_worth, default=None), (dead[0] if dead else None)

    async def open(self, secret: bytes, peer: str) -> tuple[ShareRow | None, Gone | None]:
        """Return the live share of a link's secret, or why the link is dead; neither when there is no such link."""
        digest, now = digest_of_secret(secret), self._clock.now_ms()
        row, dead = await self._store.ask(lambda connection: share_rows.by_digest(connection, digest, now, peer))
        if row is None:
            return None, dead
        if row.usable:
            [bounded] = await self._bounded([row])
            return bounded, (None if bounded is not None else "revoked")
        return None, (row.state if row.state != "live" else None)

    # --- used ---

    @contextlib.asynccontextmanager
    async def using(self, share: ShareRow | None, abort: Callable[[], None]) -> AsyncIterator[None]:
        """Do something by a share; without one there is nothing that could end.

        Args:
            abort: breaks the way to the caller off when the share ends: what was sent, and waits for a slow reader,
                is not to arrive either. Who asks again is told the reason.

        Raises:
            CallError: 410 `revoked`, `expired` or `deleted`, as soon as it is; within 30 s of its maker's losing
                grants 410 `revoked`, or 503 `access-changed`: made again the call shows less.
        """
        if share is None:
            yield
            return
        use = _Use(share.fid, asyncio.timeout(None))
        try:
            async with use.timeout:
                self._uses.setdefault(share.sid, set()).add(use)
                expiring = asyncio.create_task(self._expire(use, share))
                try:
                    # It may have ended between being found and being used.
                    now = await self.get(share.sid)
                    if now is None or now.state in ("revoked", "expired"):
                        raise gone("deleted" if now is None else now.state)
                    yield
                finally:
                    expiring.cancel()
                    uses = self._uses[share.sid]
                    uses.discard(use)
                    if not uses:
                        del self._uses[share.sid]
        except TimeoutError:
            if use.why is None:
                raise
            abort()
            if use.why == "changed":
                message = "what this share shows was changed; call again"
                raise CallError(503, "access-changed", message, {"retry_after_ms": 0}) from None
            raise gone(use.why) from None

    @contextlib.asynccontextmanager
    async def reading(self, share: ShareRow | None, peer: str, name: str) -> AsyncIterator[Reading | None]:
        """Read an output by a share: takes a place where downloads are limited, and gives it back or counts it.

        Raises:
            CallError: 410 `used-up`, or another end of the share; 429 `busy` while all places are taken.
            CapacityError: the disk takes no note, so nothing can be sent.
        """
        if share is None or share.downloads is None:
            yield None
            return
        download = self._downloads.setdefault((share.sid, peer), _Download())
        download.readers[name] += 1
        taken = False
        try:
            async with download.lock:
                await self._pay(share.sid)
                held = await self._store.write(lambda tx: share_changes.reserve(tx, share.sid, peer))
                taken = True
                if not download.known:
                    download.known = True
                    download.spans = dict(held.spans)
                    download.noted = dict(held.spans)
                    download.sent = held.sent
            yield Reading(self._store, share, peer, name, download)
        finally:
            download.readers[name] -= 1
            ending = asyncio.ensure_future(self._end_reading(share.sid, peer, name, download, taken=taken))
            # Nobody asks for its error when who read has gone away.
            ending.add_done_callback(lambda done: done.cancelled() or done.exception())
            with contextlib.suppress(CapacityError):
                await asyncio.shield(ending)

    async def _end_reading(self, sid: str, peer: str, name: str, download: _Download, *, taken: bool) -> None:
        """Return a place or count it, unless the peer has begun to read on; it goes on when nobody waits.

        Raises:
            KodoError: it is owed.
        """
        async with download.lock:
            last, alone = not download.readers.total(), not download.readers[name]
            spans, sent = download.spans.get(name, ()), download.sent

            def settle(tx: Transaction) -> None:
                if alone:
                    share_changes.mark(tx, sid, peer, name, spans, sent)
                share_changes.release(tx, sid, peer, last=last)

            try:
                if taken:
                    await self._settle((sid, peer, name), settle)
            finally:
                if not download.readers.total() and self._downloads.get((sid, peer)) is download:
                    del self._downloads[sid, peer]

    async def _pay(self, sid: str) -> None:
        """Write the ends of reads of this share that could not be written, each once, whoever else pays too.

        Raises:
            CapacityError: the disk is still full.
        """
        for owed in [each for each in self._owed if each[0] == sid]:
            # Taken out before it is written, as another peer of this share may be here at the same time.
            settle = self._owed.pop(owed, None)
            if settle is None:
                continue
            await self._settle(owed, settle)

    async def _settle(self, owed: tuple[str, str, str], settle: Callable[[Transaction], None]) -> None:
        """Write the end of a read. What cannot be written now is owed, also when nobody waits for it any more.

        Cancelling is safe: the writer has it by then.

        Raises:
            CapacityError: the disk is full.
            KodoError: it cannot be written for another reason.
        """

        def keep(written: asyncio.Future[None]) -> None:
            if (written.cancelled() or written.exception() is not None) and len(self._owed) < _MAX_OWED:
                self._owed.setdefault(owed, settle)

        writing = asyncio.ensure_future(self._store.write(settle))
        writing.add_done_callback(keep)
        await asyncio.shield(writing)

    async def _expire(self, use: _Use, share: ShareRow) -> None:
        while (left := share.expires - self._clock.now_ms()) > 0:
            await self._clock.sleep(min(left / 1000, _LOOK_S))
            with contextlib.suppress(KodoError):
                [bounded] = await self._bounded([share])
                if bounded != share:
                    use.end("revoked" if bounded is None else "changed")
                    return
        use.end("expired")

    def _committed(self, commit: Commit) -> None:
        for event in commit.events:
            if event.event == "unshare":
                for use in list(self._uses.get(str(event.data.get("sid")), ())):
                    use.end("revoked")
            elif event.event == "delete":
                for use in [use for uses in self._uses.values() for use in uses if use.fid == commit.fid]:
                    use.end("deleted")


def _names(principal: Principal) -> list[str]:
    """The names by which a run is shared with a principal: none for nobody."""
    return [principal.id, principal.peer_id] if principal.id else []


def _worth(share: ShareRow) -> tuple[int, bool, bool, bool, str]:
    """Which of several shares to use: the one that shows most, allows most, and costs no place."""
    return share.level, share.mode == "x", share.downloads is None, share.mine, share.sid


def _write(tx: Transaction, new: NewShare, by: str) -> None:
    """Store a share, and the event that tells of it."""
    to = {"users": list(new.users), "roles": list(new.roles)}
    terms = {"level": new.level, "mode": new.mode, "expires_at": new.expires, "downloads": new.downloads}
    event = NewEvent.make("share", {"sid": new.sid, "by": by, "link": new.digest is not None, "to": to, **terms})
    share_changes.add(tx, new)
    tx.append(new.fid, [event], (), None)
