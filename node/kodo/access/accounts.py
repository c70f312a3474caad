"""Users, roles and grants of the provider `local`: who there is, and what an operator changes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from kodo.access.tables import Database
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import ROLE_PATTERN, Grant, Role, check_role, parse_grant
from kodo.protocol.enrol import make_code, make_proof

__all__ = ["Accounts", "Code", "Found", "Holder", "Token", "bad_login", "check_user"]

CODE_MS = 10 * 60_000
CODE_TRIES = 5
DEVICE_MS = 30 * 86_400_000
"""How long an enrolled device stays so without being enrolled again."""
PASSWORD_MS = 12 * 3_600_000
"""How long a login by password lasts."""

MAX_USERS = 100_000
MAX_ROLES = 1_000
MAX_ROLES_HELD = 32
"""Roles of a user."""
MAX_GRANTS_HELD = 64
"""Grants of a user or role."""
MAX_ROWS = 20
"""Rows of users or roles in one answer: with all that they may hold these fit a call's frame."""
MAX_TOKENS = 64
"""Devices of a user at once; a further one takes the place of the oldest."""
MAX_CODES = 1_000

_USER = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a grant: the user or the role of this name."""

    kind: Literal["user", "role"]
    name: str


class Code(NamedTuple):
    """A code for a device, `expires_at` in ms UTC."""

    code: str
    expires_at: int


class Token(NamedTuple):
    """A bearer token, good for one device at one node; `expires_at` in ms UTC."""

    token: str
    expires_at: int


class Found(NamedTuple):
    """A user as a token shows it: `roles` as they were given, `grants` its own and those of its roles."""

    user: str
    roles: tuple[str, ...]
    grants: tuple[Grant, ...]
    expires_at: int


def check_user(name: str) -> str:
    """Give back a name that a user may have.

    Raises:
        UsageError: it may not.
    """
    if not _USER.match(name):
        raise UsageError(f"{name[:80]!r} is no user's name: up to 64 small letters, digits and . _ @ + -")
    return name


class Accounts:
    """The users, roles and grants of one node.

    Args:
        node: the node's peer id, part of every proof and token.
        now: ms UTC.
    """

    def __init__(self, database: Database, node: str, now: Callable[[], int]):
        self._database = database
        self._node = node
        self._now = now
        self.changes = 0
        """Grows with every change: what was read before is old then."""

    # --- users ---

    async def add_user(self, name: str, roles: Sequence[str], password: str | None) -> None:
        """Add a user; `password` is a hash.

        Raises:
            CallError: 409 `user-exists`, 404 `no-such-role`, 507 `full`.
            UsageError: the name or a role cannot be.
        """
        check_user(name)
        now = self._now()

        def add(database: sqlite3.Connection) -> None:
            _check_room(database, "access_users", MAX_USERS)
            if _there(database, "access_users", name):
                raise CallError(409, "user-exists", f"there is a user {name} already")
            database.execute("INSERT INTO access_users VALUES (?, ?, ?)", (name, password, now))
            for role in roles:
                _give_role(database, name, role)

        await self._change(add)

    async def remove_user(self, name: str) -> None:
        """Remove a user with all tokens, codes and grants; sessions that are open end with the next look.

        Raises:
            CallError: 404 `no-such-user`.
        """

        def remove(database: sqlite3.Connection) -> None:
            if not database.execute("DELETE FROM access_users WHERE name=?", (name,)).rowcount:
                raise _no_user(name)

        await self._change(remove)

    async def set_password(self, name: str, password: str | None, *, known: str | None = None) -> None:
        """Set a password's hash, or None for no password; every token of the user ends.

        Args:
            known: the hash by which the user proved who it is, if it changes its own.

        Raises:
            CallError: 404 `no-such-user`; 401 `bad-login`: `known` is not that hash any more.
        """

        def put(database: sqlite3.Connection) -> None:
            if known is not None:
                _check_password(database, name, known)
            if not database.execute("UPDATE access_users SET password=? WHERE name=?", (password, name)).rowcount:
                raise _no_user(name)
            database.execute("DELETE FROM access_tokens WHERE user=?", (name,))

        await self._change(put)

    async def password_of(self, name: str) -> str | None:
        """Give the hash of a user's password; None when there is none, or no such user."""

        def ask(database: sqlite3.Connection) -> str | None:
            row = database.execute("SELECT password FROM access_users WHERE name=?", (name,)).fetchone()
            return None if row is None else row[0]

        return await self._database.ask(ask)

    async def users(self, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
        """Give how many users there are, and a page of them by name: `name, roles, grants, password, devices`."""
        now = self._now()

        def ask(database: sqlite3.Connection) -> tuple[int, list[dict[str, Any]]]:
            total = database.execute("SELECT count(*) FROM access_users").fetchone()[0]
            rows = database.execute(
                "SELECT name, password IS NOT NULL, created FROM access_users ORDER BY name LIMIT ? OFFSET ?",
                (pp, (p - 1) * pp),
            ).fetchall()
            return total, [
                {
                    "name": name,
                    "roles": _roles_of(database, name),
                    "grants": _held(database, Holder("user", name)),
                    "password": bool(password),
                    "created": created,
                    "devices": [
                        {"peer_id": peer, "created": made, "expires_at": expires}
                        for peer, made, expires in database.execute(
                            "SELECT peer_id, created, expires FROM access_tokens WHERE user=? AND expires>?"
                            " ORDER BY created",
                            (name, now),
                        )
                    ],
                }
                for name, password, created in rows
            ]

        return await self._database.ask(ask)

    # --- roles and grants ---

    async def add_role(self, name: str) -> None:
        """Add a role of the operator's own making.

        Raises:
            CallError: 409 `role-exists`, 507 `full`.
            UsageError: the name cannot be.
        """
        if not re.fullmatch(ROLE_PATTERN, name):
            raise UsageError(f"{name[:80]!r} is no role's name: small letters, digits and . _ -, a letter first")

        def add(database: sqlite3.Connection) -> None:
            _check_room(database, "access_roles", MAX_ROLES)
            if _there(database, "access_roles", name):
                raise CallError(409, "role-exists", f"there is a role {name} already")
            database.execute("INSERT INTO access_roles VALUES (?)", (name,))

        await self._change(add)

    async def remove_role(self, name: str) -> None:
        """Remove a role; nobody has it any more.

        Raises:
            CallError: 404 `no-such-role`, 409 `built-in`.
        """
        if name in (Role.OPERATOR, Role.DEVELOPER, Role.USER):
            raise CallError(409, "built-in", f"the role {name} is part of kodo; take its grants away instead")

        def remove(database: sqlite3.Connection) -> None:
            if not database.execute("DELETE FROM access_roles WHERE name=?", (name,)).rowcount:
                raise _no_role(name)
            database.execute("DELETE FROM access_user_roles WHERE role=?", (name,))

        await self._change(remove)

    async def roles(self, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
        """Give how many roles there are, and a page of them by name: `name, grants, users`, the last a count."""

        def ask(database: sqlite3.Connection) -> tuple[int, list[dict[str, Any]]]:
            total = database.execute("SELECT count(*) FROM access_roles").fetchone()[0]
            counts: dict[str, int] = {}
            for role, count in database.execute("SELECT role, count(*) FROM access_user_roles GROUP BY role"):
                name = role.partition(":")[0]
                counts[name] = counts.get(name, 0) + count
            rows = database.execute(
                "SELECT name FROM access_roles ORDER BY name LIMIT ? OFFSET ?", (pp, (p - 1) * pp)
            ).fetchall()
            return total, [
                {"name": name, "grants": _held(database, Holder("role", name)), "users": counts.get(name, 0)}
                for (name,) in rows
            ]

        return await self._database.ask(ask)

    async def assign(self, user: str, role: str) -> None:
        """Give a role to a user; to one that has it, nothing happens.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`; 507 `full`.
            UsageError: it is no role.
        """

        def give(database: sqlite3.Connection) -> None:
            _check_user_there(database, user)
            _give_role(database, user, role)

        await self._change(give)

    async def unassign(self, user: str, role: str) -> None:
        """Take a role from a user.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`.
        """

        def take(database: sqlite3.Connection) -> None:
            _check_user_there(database, user)
            done = database.execute("DELETE FROM access_user_roles WHERE user=? AND role=?", (user, role))
            if not done.rowcount:
                raise CallError(404, "no-such-role", f"{user} has no role {role[:80]!r}")

        await self._change(take)

    async def add_grant(self, holder: Holder, grant: Grant) -> None:
        """Give a grant; to one that has it, nothing happens.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`; 507 `full`.
        """
        table = _table(holder)

        def add(database: sqlite3.Connection) -> None:
            _check_holder(database, holder)
            held = _held(database, holder)
            if len(held) >= MAX_GRANTS_HELD and str(grant) not in held:
                raise CallError(507, "full", f"{holder.name} has {MAX_GRANTS_HELD} grants, the bound")
            database.execute(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", (holder.name, str(grant)))

        await self._change(add)

    async def remove_grant(self, holder: Holder, grant: Grant) -> None:
        """Take a grant away.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`, `no-such-grant`.
        """
        table = _table(holder)

        def remove(database: sqlite3.Connection) -> None:
            _check_holder(database, holder)
            done = database.execute(f"DELETE FROM {table} WHERE holder=? AND permission=?", (holder.name, str(grant)))
            if not done.rowcount:
                raise CallError(404, "no-such-grant", f"the {holder.kind} {holder.name} has no grant {grant}")

        await self._change(remove)

    async def grants(self, holder: Holder | None, p: int, pp: int) -> tuple[int, list[dict[str, str]]]:
        """Give how many grants there are, of all or of one holder, and a page of them: `user` or `role`, and `grant`.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`.
        """

        def ask(database: sqlite3.Connection) -> tuple[int, list[dict[str, str]]]:
            if holder is not None:
                _check_holder(database, holder)
                found = _held(database, holder)
                return len(found), [
                    {holder.kind: holder.name, "grant": grant} for grant in found[(p - 1) * pp : p * pp]
                ]
            every = (
                "SELECT 'user' AS kind, holder, permission FROM access_user_grants"
                " UNION ALL SELECT 'role', holder, permission FROM access_role_grants"
            )
            total = database.execute(f"SELECT count(*) FROM ({every})").fetchone()[0]
            rows = database.execute(f"{every} ORDER BY kind, holder, permission LIMIT ? OFFSET ?", (pp, (p - 1) * pp))
            return total, [{kind: name, "grant": grant} for kind, name, grant in rows]

        return await self._database.ask(ask)

    async def has(self, kind: Literal["user", "role"], name: str) -> bool:
        """Say whether there is a user or a role of this name."""
        table = "access_users" if kind == "user" else "access_roles"
        return await self._database.ask(lambda database: _there(database, table, name))

    # --- devices ---

    async def has_device(self, user: str, peer_id: str) -> bool:
        """Say whether this device is logged in as this user."""
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
            _check_user_there(database, user)
            database.execute("DELETE FROM access_codes WHERE expires<=? OR peer_id=?", (now, peer_id))
            _check_room(database, "access_codes", MAX_CODES)
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

        user = await self._change(try_)
        return None if user is None else (user, Token(token, now + DEVICE_MS))

    async def make_token(self, user: str, peer_id: str, known: str) -> Token:
        """Make a token for a user who proved who it is by the password of which `known` is the hash.

        Raises:
            CallError: 401 `bad-login`: it is not that any more. To check it took long enough for another to be set.
        """
        now = self._now()
        token, kept = self._make_token()

        def add(database: sqlite3.Connection) -> None:
            _check_password(database, user, known)
            _keep_token(database, kept, user, peer_id, now, now + PASSWORD_MS)

        await self._change(add)
        return Token(token, now + PASSWORD_MS)

    async def find(self, peer_id: str, token: str) -> Found | None:
        """Give the user that a token stands for when it comes from its own device, if there is one."""
        kept, now = self._kept(token), self._now()

        def ask(database: sqlite3.Connection) -> Found | None:
            row = database.execute(
                "SELECT user, expires FROM access_tokens WHERE hash=? AND peer_id=? AND expires>?",
                (kept, peer_id, now),
            ).fetchone()
            if row is None:
                return None
            user, expires = row
            return _found(database, user, expires)

        return await self._database.ask(ask)

    async def recall(self, user: str) -> Found | None:
        """Give what a user has now, if there is such a user; `expires_at` says nothing."""

        def ask(database: sqlite3.Connection) -> Found | None:
            return _found(database, user, 0) if _there(database, "access_users", user) else None

        return await self._database.ask(ask)

    async def forget_token(self, token: str) -> None:
        """End one token; that of a device that logs out."""
        kept = self._kept(token)
        await self._change(
            lambda database: database.execute("DELETE FROM access_tokens WHERE hash=?", (kept,)).rowcount
        )

    async def forget_devices(self, user: str, peer_id: str | None) -> int:
        """End all tokens of a user, or those of one of its devices; give how many there were.

        Raises:
            CallError: 404 `no-such-user`.
        """

        def forget(database: sqlite3.Connection) -> int:
            _check_user_there(database, user)
            database.execute("DELETE FROM access_codes WHERE user=? AND ?2 IN (peer_id, '')", (user, peer_id or ""))
            done = database.execute(
                "DELETE FROM access_tokens WHERE user=?1 AND ?2 IN (peer_id, '')", (user, peer_id or "")
            )
            return done.rowcount

        ended: int = await self._change(forget)
        return ended

    # --- inside ---

    async def _change(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return await self._database.change(work)
        finally:
            # Also when it failed: what is known of it is not sure any more.
            self.changes += 1

    def _make_token(self) -> tuple[str, bytes]:
        token = "kodo_" + secrets.token_urlsafe(32)
        return token, self._kept(token)

    def _kept(self, token: str) -> bytes:
        # With the node's peer id: a database that is copied to another node brings no tokens along.
        return hashlib.sha256(self._node.encode() + b"\x00" + token.encode()).digest()


def _table(holder: Holder) -> str:
    return {"user": "access_user_grants", "role": "access_role_grants"}[holder.kind]


def _there(database: sqlite3.Connection, table: str, name: str) -> bool:
    return database.execute(f"SELECT 1 FROM {table} WHERE name=?", (name,)).fetchone() is not None


def _check_room(database: sqlite3.Connection, table: str, most: int) -> None:
    if database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= most:
        raise CallError(507, "full", f"there are {most} already, the bound")


def _check_user_there(database: sqlite3.Connection, name: str) -> None:
    if not _there(database, "access_users", name):
        raise _no_user(name)


def _check_password(database: sqlite3.Connection, name: str, known: str) -> None:
    row = database.execute("SELECT password FROM access_users WHERE name=?", (name,)).fetchone()
    if row is None or row[0] != known:
        raise bad_login()


def _check_holder(database: sqlite3.Connection, holder: Holder) -> None:
    if holder.kind == "user":
        _check_user_there(database, holder.name)
    elif not _there(database, "access_roles", holder.name):
        raise _no_role(holder.name)


def _held(database: sqlite3.Connection, holder: Holder) -> list[str]:
    rows = database.execute(
        f"SELECT permission FROM {_table(holder)} WHERE holder=? ORDER BY permission", (holder.name,)
    )
    return [text for (text,) in rows]


def _found(database: sqlite3.Connection, user: str, expires: int) -> Found:
    roles = _roles_of(database, user)
    texts = set(_held(database, Holder("user", user)))
    for role in {role.partition(":")[0] for role in roles}:
        texts.update(_held(database, Holder("role", role)))
    return Found(user, tuple(roles), tuple(parse_grant(text) for text in sorted(texts)), expires)


def _roles_of(database: sqlite3.Connection, user: str) -> list[str]:
    rows = database.execute("SELECT role FROM access_user_roles WHERE user=? ORDER BY role", (user,))
    return [role for (role,) in rows]


def _give_role(database: sqlite3.Connection, user: str, role: str) -> None:
    check_role(role)
    if not _there(database, "access_roles", role.partition(":")[0]):
        raise _no_role(role)
    held = _roles_of(database, user)
    if len(held) >= MAX_ROLES_HELD and role not in held:
        raise CallError(507, "full", f"{user} has {MAX_ROLES_HELD} roles, the bound")
    database.execute("INSERT OR IGNORE INTO access_user_roles VALUES (?, ?)", (user, role))


def _keep_token(database: sqlite3.Connection, kept: bytes, user: str, peer_id: str, now: int, expires: int) -> None:
    database.execute("DELETE FROM access_tokens WHERE expires<=?", (now,))
    database.execute(
        "DELETE FROM access_tokens WHERE hash IN"
        " (SELECT hash FROM access_tokens WHERE user=? ORDER BY created DESC LIMIT -1 OFFSET ?)",
        (user, MAX_TOKENS - 1),
    )
    database.execute("INSERT INTO access_tokens VALUES (?, ?, ?, ?, ?)", (kept, user, peer_id, now, expires))


def bad_login() -> CallError:
    """Give the refusal of a name and a password that do not belong together."""
    return CallError(401, "bad-login", "no user has this name and password here")


def _no_user(name: str) -> CallError:
    return CallError(404, "no-such-user", f"there is no user {name[:80]!r}")


def _no_role(name: str) -> CallError:
    return CallError(404, "no-such-role", f"there is no role {name[:80]!r}; koco role list shows them")
