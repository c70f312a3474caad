"""Invitations: links by which whoever holds one launches a flow in the name of who made it, and sees those runs only.

As with links to runs, the secret is made here and told once, and only its SHA-256 is stored. A session opens the
link, and each of its calls that is made by the invitation is answered as by a principal of its own, `SID/MAKER`: the
runs are that one's, nobody else is shown them, and its grants are the maker's of that moment on this one flow.
"""

from __future__ import annotations

import asyncio
import glob
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import msgpack

from kodo.access.places import fair_share
from kodo.access.provider import Provider
from kodo.node.clock import Clock, wait_or_sleep
from kodo.node.runs.launch import ROW_BYTES, disk_full
from kodo.node.store import invitation_rows
from kodo.node.store.invitation_rows import InvitationRow
from kodo.node.store.share_rows import EXPIRED_KEPT_MS, gone
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.access import Grant, Principal
from kodo.protocol.link import SECRET_BYTES, digest_of_secret

__all__ = ["Invitations", "guest_id"]

MAX_EACH = 200
"""Invitations of one user."""

MAX_ALL = 10_000

_LOOK_S = 30.0
"""How often a call that takes long looks at what the maker may do, and at the clock, which may be set."""


def guest_id(row: InvitationRow) -> str:
    """Return the id of the principal to whom the runs of an invitation belong."""
    return f"{row.sid}/{row.principal}"


class Invitations:
    """The invitations of a node.

    Args:
        node: the node's name: whose maker may not deal with it any more, that invitation is over.
        new_id: makes sids.
        new_secret: makes links' secrets, `bytes[16]`, from the system's randomness.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        clock: Clock,
        node: str,
        new_id: Callable[[], str],
        new_secret: Callable[[], bytes] = lambda: secrets.token_bytes(SECRET_BYTES),
    ):
        self._store = store
        self._provider = provider
        self._clock = clock
        self._node = node
        self._new_id = new_id
        self._new_secret = new_secret
        self._revoked: dict[str, set[asyncio.Event]] = {}

    # --- made and ended ---

    async def add(self, row: InvitationRow, expires_s: float) -> tuple[InvitationRow, bytes]:
        """Keep an invitation; give it with its id, and the secret, which nobody can ask for again.

        Raises:
            CallError: 429 `busy`: there are too many; 507 `disk-full`.
        """
        secret, now = self._new_secret(), self._clock.now_ms()
        digest, expires = digest_of_secret(secret), now + int(expires_s * 1000)
        row = replace(row, sid=self._new_id(), digest=digest, created=now, expires=expires)

        def write(connection: sqlite3.Connection) -> None:
            invitation_rows.sweep(connection, now - EXPIRED_KEPT_MS)
            mine, total = invitation_rows.counts(connection, row.payer)
            if mine >= fair_share(MAX_ALL, total - mine, MAX_EACH):
                message = (
                    f"you have {mine} invitations on this node, which has {total} in all; wait until some expire"
                )
                raise CallError(429, "busy", message, {"retry_after_ms": 60_000})
            invitation_rows.add(connection, row)

        try:
            await self._store.change(write, ROW_BYTES + len(msgpack.packb(row.inputs)))
        except CapacityError as error:
            raise disk_full(error) from None
        return row, secret

    async def get(self, sid: str) -> InvitationRow | None:
        """Return one invitation."""
        return await self._store.ask(lambda connection: invitation_rows.by_sid(connection, sid))

    async def page(self, principal: str, p: int, pp: int) -> tuple[int, list[InvitationRow]]:
        """Return how many invitations a principal has made, and a page of them, the latest first."""
        return await self._store.ask(lambda connection: invitation_rows.page(connection, principal, p, pp))

    async def revoke(self, row: InvitationRow) -> None:
        """End an invitation: what goes on by it ends at once; its runs go on."""
        now = self._clock.now_ms()
        await self._store.change(lambda connection: invitation_rows.revoke(connection, row.sid, now))
        for event in self._revoked.get(row.sid, ()):
            event.set()

    def state(self, row: InvitationRow) -> Literal["live", "expired", "used-up", "revoked"]:
        """Return what an invitation is now."""
        return row.state(self._clock.now_ms())

    # --- used ---

    async def find(self, secret: bytes) -> InvitationRow | None:
        """Return the invitation of a link's secret, if there is one, dead ones too."""
        digest = digest_of_secret(secret)
        return await self._store.ask(lambda connection: invitation_rows.by_digest(connection, digest))

    async def guest(self, row: InvitationRow | None) -> Principal:
        """Return whom calls come from that are made by an invitation, with what its maker may do now.

        Raises:
            CallError: 410 `revoked` or `expired`; 503 `login-needed` while nobody can tell what its maker may do.
        """
        if row is None:
            raise gone("expired", "invitation")
        state = self.state(row)
        if state in ("revoked", "expired"):
            raise gone("revoked" if state == "revoked" else "expired", "invitation")
        maker = await self._provider.present(row.principal)
        if maker is None:
            message = "who made this invitation has not been here since the node was started"
            raise CallError(503, "login-needed", message, {"retry_after_ms": 60_000})
        seen = maker.flow_grant(row.path, "x")
        if not maker.enters(self._node) or seen is None:
            raise gone("revoked", "invitation")
        flow = Grant("flow", glob.escape(row.path), min(row.level, seen.level), "x")
        # No peer id: what is shared with the peer as such is not the invitation's.
        return Principal(guest_id(row), "", roles=frozenset(), grants=(flow,))

    def count(self, sid: str) -> Callable[[sqlite3.Connection, str], None]:
        """Return what counts a launch in the transaction that stores its run, or refuses it."""

        def also(connection: sqlite3.Connection, fid: str) -> None:
            if not invitation_rows.count(connection, sid, self._clock.now_ms()):
                raise CallError(
                    410, "used-up", "this invitation allows no more launches; its runs can still be opened"
                )

        return also

    async def watch(self, sid: str) -> None:
        """Wait until an invitation shows nothing any more, or less.

        Raises:
            CallError: 410 as `guest`, as soon as it is revoked or expires; 503 `access-changed`: made again the call
                shows less.
        """
        first, event = await self.guest(await self.get(sid)), asyncio.Event()
        self._revoked.setdefault(sid, set()).add(event)
        try:
            while True:
                row = await self.get(sid)
                if await self.guest(row) != first:
                    message = "what this invitation shows was changed; call again"
                    raise CallError(503, "access-changed", message, {"retry_after_ms": 0})
                assert row is not None
                left = (row.expires - self._clock.now_ms()) / 1000
                await wait_or_sleep(self._clock, event, max(min(left, _LOOK_S), 0.0))
                event.clear()
        finally:
            events = self._revoked[sid]
            events.discard(event)
            if not events:
                del self._revoked[sid]
