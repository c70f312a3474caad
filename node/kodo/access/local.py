"""The provider `local`: users, roles, grants in the node's own database; login by password or enrolled device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

from kodo.access.accounts import Accounts, check_user
from kodo.access.devices import Devices, Token
from kodo.access.passwords import Passwords
from kodo.access.roles import ROLE_GRANTS, is_peer_id, without_login
from kodo.access.rows import bad_login
from kodo.access.tables import Database, Watched
from kodo.access.throttle import Throttle
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal, Role, split_roles

__all__ = ["LocalProvider"]

_MAX_KNOWN = 4096
"""Principals that are remembered for `cache_s`."""


class LocalProvider:
    """Knows the users of one node. The user key of the node's own home is operator, logged in or not.

    Args:
        operator: the peer id of that user key.
        node: the node's peer id.
        now: ms UTC.
        cache_s: how long what was read of a user is believed; a change here ends that at once.
    """

    name = "local"

    def __init__(
        self,
        operator: str,
        node: str,
        database: Database,
        now: Callable[[], int],
        *,
        cache_s: float = 30.0,
        passwords: Passwords | None = None,
    ):
        self.operator = operator
        self._database = Watched(database)
        self.accounts = Accounts(self._database, now)
        self.devices = Devices(self._database, node, now)
        self.passwords = passwords or Passwords()
        self._now = now
        self._cache_ms = int(cache_s * 1000)
        self._known: dict[tuple[str, bytes], tuple[Principal, int]] = {}
        self._as_of = 0
        # An attacker makes peers at will, so a user's own bound holds too, and one for each source, over all names.
        # They do not hold for the user's own devices: who tries all the time must not keep the user out.
        self._peers = Throttle(burst=5, every_ms=12_000)
        self._users = Throttle(burst=10, every_ms=6_000)
        # Names are made at will too. An office behind one address logs in within a minute.
        self._sources = Throttle(burst=60, every_ms=2_000)
        self._all = Throttle(burst=300, every_ms=200)

    async def open(self) -> None:
        """Make ready to check passwords."""
        await self.passwords.open()

    def admits(self, address: str | None) -> bool:
        """Everybody may knock; without a login nothing is answered but how to log in."""
        return True

    def info(self) -> dict[str, Any]:
        """Return the answer of `auth.info`."""
        return {
            "provider": self.name,
            "login": ["enrol", "password"],
            "message": "log in by a password, or by a code that an operator made for this device: koco login",
        }

    async def identify(self, peer_id: str, token: str | None = None) -> Principal:
        """Return who the holder of `peer_id` is.

        Raises:
            CallError: 401 `bad-token` when the token is not, or no longer, one of this peer's.
        """
        if token is None:
            return without_login(peer_id, self.operator)
        key = (peer_id, hashlib.sha256(token.encode()).digest())
        now, as_of = self._now(), self._database.changes
        if as_of != self._as_of:
            self._known.clear()
            self._as_of = as_of
        known = self._known.get(key)
        if known is not None and known[1] - self._cache_ms <= now < known[1]:
            return known[0]
        found = await self.devices.find(peer_id, token)
        if found is None:
            raise CallError(401, "bad-token", "this login has ended or never existed; log in again: koco login")
        roles, develops = split_roles(found.roles)
        grants = found.grants
        if peer_id == self.operator:
            roles, grants = roles | {Role.OPERATOR}, (*ROLE_GRANTS[Role.OPERATOR], *grants)
        principal = Principal(found.user, peer_id, found.user, roles=roles, grants=grants, develops=develops)
        if as_of == self._database.changes:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = (principal, min(found.expires_at, now + self._cache_ms))
        return principal

    async def recall(self, principal: str) -> Principal:
        """Return what a user may do now, without it being there; see `Provider.recall`."""
        found = await self.devices.recall(principal)
        if found is None:
            return without_login(principal, self.operator)
        roles, develops = split_roles(found.roles)
        return Principal(found.user, "", found.user, roles=roles, grants=found.grants, develops=develops)

    async def present(self, principal: str) -> Principal:
        """Return the same as `recall`, which always can."""
        return await self.recall(principal)

    async def knows(self, kind: Literal["user", "role"], name: str) -> bool:
        """Return whether there is such a user or role, or it is the peer id of a device."""
        return (kind == "user" and is_peer_id(name)) or await self.accounts.has(kind, name)

    async def password(self, peer_id: str, name: str, password: str, source: str = "") -> tuple[str, Token]:
        """Log in by password: give the user and a token for this device.

        A name that nobody has costs the same work and gets the same answer as a wrong password.

        Args:
            source: where it comes from: an IPv4 address, an IPv6 /64; empty: the peer alone is known.

        Raises:
            CallError: 401 `bad-login`; 429 `slow-down`, `busy`.
        """
        known = await self._slow_down(peer_id, name, source)
        kept = await self.accounts.password_of(name)
        passwords = self.passwords
        with passwords.line_of_known.hold(peer_id) if known else passwords.line.hold(source or peer_id):
            fits = await passwords.fits(kept, password, source=None if known else source or peer_id)
        if not fits or kept is None:
            raise bad_login()
        return name, await self.devices.make_token(name, peer_id, kept)

    async def enrol(self, peer_id: str, proof: bytes, source: str = "") -> tuple[str, Token]:
        """Log in by the proof of a code: give the user and a token for this device.

        Raises:
            CallError: 401 `bad-code`, 429 `slow-down`.
        """
        await self._slow_down(peer_id, None, source)
        enrolled = await self.devices.enrol(peer_id, proof)
        if enrolled is None:
            message = (
                "this code is not, or no longer, one for this device; an operator makes another: koco user enrol"
            )
            raise CallError(401, "bad-code", message)
        return enrolled

    async def change_password(self, peer_id: str, name: str, old: str, new: str) -> None:
        """Change one's own password; every login of the user ends.

        Raises:
            CallError: 401 `bad-login`; 429 `slow-down`, `busy`.
            UsageError: the new one is too short or too long.
        """
        await self._slow_down(peer_id, name)
        kept = await self.accounts.password_of(name)
        with self.passwords.line.hold(peer_id):
            fits = await self.passwords.fits(kept, old, source=peer_id)
        if not fits or kept is None:
            raise CallError(401, "bad-login", "the old password is wrong")
        await self.accounts.set_password(name, await self.passwords.hash(new), known=kept)

    async def set_password(self, name: str, password: str | None) -> None:
        """Set a user's password, or take it away; every login of the user ends.

        Raises:
            CallError: 404 `no-such-user`, 429 `busy`.
            UsageError: it is too short or too long.
        """
        await self.accounts.set_password(name, None if password is None else await self.passwords.hash(password))

    async def add_user(self, name: str, roles: tuple[str, ...], password: str | None) -> None:
        """Add a user; without a password it logs in by enrolled devices only.

        Raises:
            CallError, UsageError: as `Accounts.add_user`.
        """
        check_user(name)
        await self.accounts.add_user(name, roles, None if password is None else await self.passwords.hash(password))

    async def logout(self, token: str) -> None:
        """End a token."""
        await self.devices.forget_token(token)

    def describe(self) -> str:
        """Return the line for the operator at start."""
        return "users of this node only (auth local): koco user add, koco user enrol; this home's user is operator"

    async def _slow_down(self, peer_id: str, name: str | None, source: str = "") -> bool:
        """Count a try; return whether it comes from a device on which this user has logged in before."""
        now = self._now()
        wait = self._peers.wait_ms(peer_id, now)
        known = name is not None and await self.devices.has_device(name, peer_id)
        if not wait and not known:
            wait = self._sources.wait_ms(source, now) if source else 0
            wait = wait or (self._users.wait_ms(name, now) if name is not None else 0)
            wait = wait or self._all.wait_ms("", now)
        if wait:
            message = f"too many tries; wait {-(-wait // 1000)} s"
            raise CallError(429, "slow-down", message, {"retry_after_ms": wait})
        return known
