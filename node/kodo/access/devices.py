"""Devices of the users of the provider `local`: codes that enrol them, tokens that log them in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from kodo.access.rows import Found, check_password, check_room, check_user_there, read_user, there
from kodo.access.tables import Database
from kodo.protocol.enrol import make_code, make_proof

__all__ = ["Code", "Devices", "Token"]

CODE_MS = 10 * 60_000
CODE_TRIES = 5
DEVICE_MS = 30 * 86_400_000
"""How long an enrolled device stays so without being enrolled again."""
PASSWORD_MS = 12 * 3_600_000
"""How long a login by password lasts."""
MAX_TOKENS = 64
"""Devices of a user at once; a further one takes the place of the oldest."""
MAX_CODES = 1_000


class Code(NamedTuple):
    """A code for a device, `expires_at` in ms UTC."""

    code: str
    expires_at: int


class Token(NamedTuple):
    """A bearer token, good for one device at one node; `expires_at` in ms UTC."""

    token: str
    expires_at: int


class Devices:
    """The codes and tokens of one node or registry.

    Args:
        database: where they are kept.
        node: the node's peer id, part of every proof and token.
        now: ms UTC.
    """

    def __init__(self, database: Database, node: str, now: Callable[[], int]):
        self._database = database
        self._node = node
        self._now = now

    async def has_device(self, user: str, peer_id: str) -> bool:
        """Return whether this device is logged in as this user."""
        query = "SELECT 1 FROM access_tokens WHERE user=? AND peer_id=? AND expires>?"
        row = (user, peer_id, self._now())
        return await self._database.ask(lambda database: database.execute(query, row).fetchone() is not None)

    async def make_code(self, user: str, peer_id: str) -> Code:
        """Make a code with which the device `peer_id` enrols for `user`; an earlier one for it is void.

        Raises:
            CallError: 404 `no-such-user`, 507 `full`.
        """
        now = self._now()
        code = make_code(secrets.token_bytes(8))
        # The code itself is kept nowhere: what it has to prove is known already.
        kept = hashlib.sha256(make_proof(code, self._node, peer_id)).digest()

        def add(database: sqlite3.Connection) -> None:
            check_user_there(database, user)
            database.execute("DELETE FROM access_codes WHERE expires<=? OR peer_id=?", (now, peer_id))
            check_room(database, "access_codes", MAX_CODES)
            row = (peer_id, user, kept, CODE_TRIES, now + CODE_MS)
            database.execute("INSERT INTO access_codes VALUES (?, ?, ?, ?, ?)", row)

        await self._database.change(add)
        return Code(code, now + CODE_MS)

    async def enrol(self, peer_id: str, proof: bytes) -> tuple[str, Token] | None:
        """Enrol a device by its proof: give its user and token; None, after the same work, when it may not.

        A wrong proof costs one of the code's tries, a right one the code.
        """
        now = self._now()
        said = hashlib.sha256(proof).digest()
        token, kept = self._make_token()

        def try_(database: sqlite3.Connection) -> str | None:
            row = database.execute(
                "SELECT user, proof, tries FROM access_codes WHERE peer_id=? AND expires>?", (peer_id, now)
            ).fetchone()
            user, proven, tries = row or ("", b"\x00" * 32, 0)
            fits = hmac.compare_digest(said, proven) and tries > 0
            if fits or tries <= 1:
                database.execute("DELETE FROM access_codes WHERE peer_id=?", (peer_id,))
            else:
                database.execute("UPDATE access_codes SET tries=tries-1 WHERE peer_id=?", (peer_id,))
            if not fits:
                return None
            _keep_token(database, kept, user, peer_id, now, now + DEVICE_MS)
            return str(user)

        user = await self._database.change(try_)
        return None if user is None else (user, Token(token, now + DEVICE_MS))

    async def make_token(self, user: str, peer_id: str, known: str) -> Token:
        """Make a token for a user who proved who it is by the password of which `known` is the hash.

        Raises:
            CallError: 401 `bad-login`: it is not that any more. To check it took long enough for another to be set.
        """
        now = self._now()
        token, kept = self._make_token()

        def add(database: sqlite3.Connection) -> None:
            check_password(database, user, known)
            _keep_token(database, kept, user, peer_id, now, now + PASSWORD_MS)

        await self._database.change(add)
        return Token(token, now + PASSWORD_MS)

    async def find(self, peer_id: str, token: str) -> Found | None:
        """Return the user that a token stands for when it comes from its own device, if there is one."""
        kept, now = self._kept(token), self._now()

        def ask(database: sqlite3.Connection) -> Found | None:
            row = database.execute(
                "SELECT user, expires FROM access_tokens WHERE hash=? AND peer_id=? AND expires>?",
                (kept, peer_id, now),
            ).fetchone()
            if row is None:
                return None
            user, expires = row
            return read_user(database, user, expires)

        return await self._database.ask(ask)

    async def recall(self, user: str) -> Found | None:
        """Return what a user has now, if there is such a user; `expires_at` says nothing."""

        def ask(database: sqlite3.Connection) -> Found | None:
            return read_user(database, user, 0) if there(database, "access_users", user) else None

        return await self._database.ask(ask)

    async def forget_token(self, token: str) -> None:
        """End one token; that of a device that logs out."""
        kept = self._kept(token)
        await self._database.change(
            lambda database: database.execute("DELETE FROM access_tokens WHERE hash=?", (kept,)).rowcount
        )

    async def forget_devices(self, user: str, peer_id: str | None) -> int:
        """End all tokens of a user, or those of one of its devices; give how many there were.

        Raises:
            CallError: 404 `no-such-user`.
        """

        def forget(database: sqlite3.Connection) -> int:
            check_user_there(database, user)
            database.execute("DELETE FROM access_codes WHERE user=? AND ? IN (peer_id, '')", (user, peer_id or ""))
            done = database.execute(
                "DELETE FROM access_tokens WHERE user=? AND ? IN (peer_id, '')", (user, peer_id or "")
            )
            return done.rowcount

        ended: int = await self._database.change(forget)
        return ended

    # --- inside ---

    def _make_token(self) -> tuple[str, bytes]:
        token = "kodo_" + secrets.token_urlsafe(32)
        return token, self._kept(token)

    def _kept(self, token: str) -> bytes:
        # With the node's peer id: a database that is copied to another node brings no tokens along.
        return hashlib.sha256(self._node.encode() + b"\x00" + token.encode()).digest()


def _keep_token(database: sqlite3.Connection, kept: bytes, user: str, peer_id: str, now: int, expires: int) -> None:
    database.execute("DELETE FROM access_tokens WHERE expires<=?", (now,))
    database.execute(
        "DELETE FROM access_tokens WHERE hash IN"
        " (SELECT hash FROM access_tokens WHERE user=? ORDER BY created DESC LIMIT -1 OFFSET ?)",
        (user, MAX_TOKENS - 1),
    )
    database.execute("INSERT INTO access_tokens VALUES (?, ?, ?, ?, ?)", (kept, user, peer_id, now, expires))
