"""Users, roles and grants of the provider `local`: who there is, and what an operator changes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Literal

from kodo.access.rows import (
    Holder,
    check_holder,
    check_password,
    check_room,
    check_user_there,
    grants_held,
    grants_table,
    no_role,
    no_user,
    roles_of,
    there,
)
from kodo.access.tables import Database
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import ROLE_PATTERN, Grant, Role, check_role

__all__ = ["MAX_ROWS", "Accounts", "check_user"]

MAX_USERS = 100_000
MAX_ROLES = 1_000
MAX_ROLES_HELD = 32
"""Roles of a user."""
MAX_GRANTS_HELD = 64
"""Grants of a user or role."""
MAX_ROWS = 20
"""Rows of users or roles in one answer: with all that they may hold these fit a call's frame."""

_USER = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z")


def check_user(name: str) -> str:
    """Return back a name that a user may have.

    Raises:
        UsageError: it may not.
    """
    if not _USER.match(name):
        raise UsageError(
            f"{name[:80]!r} cannot be a user's name: use up to 64 lower-case letters, digits and . _ @ + -"
        )
    return name


class Accounts:
    """The users, roles and grants of one node.

    Args:
        now: ms UTC.
    """

    def __init__(self, database: Database, now: Callable[[], int]):
        self._database = database
        self._now = now

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
            check_room(database, "access_users", MAX_USERS)
            if there(database, "access_users", name):
                raise CallError(409, "user-exists", f"there is a user {name} already")
            database.execute("INSERT INTO access_users VALUES (?, ?, ?)", (name, password, now))
            for role in roles:
                _give_role(database, name, role)

        await self._database.change(add)

    async def remove_user(self, name: str) -> None:
        """Remove a user with all tokens, codes and grants; sessions that are open end with the next look.

        Raises:
            CallError: 404 `no-such-user`.
        """

        def remove(database: sqlite3.Connection) -> None:
            if not database.execute("DELETE FROM access_users WHERE name=?", (name,)).rowcount:
                raise no_user(name)

        await self._database.change(remove)

    async def set_password(self, name: str, password: str | None, *, known: str | None = None) -> None:
        """Set a password's hash, or None for no password; every token of the user ends.

        Args:
            known: the hash by which the user proved who it is, if it changes its own.

        Raises:
            CallError: 404 `no-such-user`; 401 `bad-login`: `known` is not that hash any more.
        """

        def put(database: sqlite3.Connection) -> None:
            if known is not None:
                check_password(database, name, known)
            if not database.execute("UPDATE access_users SET password=? WHERE name=?", (password, name)).rowcount:
                raise no_user(name)
            database.execute("DELETE FROM access_tokens WHERE user=?", (name,))

        await self._database.change(put)

    async def password_of(self, name: str) -> str | None:
        """Return the hash of a user's password; None when there is none, or no such user."""

        def ask(database: sqlite3.Connection) -> str | None:
            row = database.execute("SELECT password FROM access_users WHERE name=?", (name,)).fetchone()
            return None if row is None else row[0]

        return await self._database.ask(ask)

    async def users(self, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many users there are, and a page of them by name: `name, roles, grants, password, devices`."""
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
                    "roles": roles_of(database, name),
                    "grants": grants_held(database, Holder("user", name)),
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
            raise UsageError(
                f"{name[:80]!r} cannot be a role's name: use small letters, digits and . _ -, a letter first"
            )

        def add(database: sqlite3.Connection) -> None:
            check_room(database, "access_roles", MAX_ROLES)
            if there(database, "access_roles", name):
                raise CallError(409, "role-exists", f"there is a role {name} already")
            database.execute("INSERT INTO access_roles VALUES (?)", (name,))

        await self._database.change(add)

    async def remove_role(self, name: str) -> None:
        """Remove a role; nobody has it any more.

        Raises:
            CallError: 404 `no-such-role`, 409 `built-in`.
        """
        if name in (Role.OPERATOR, Role.DEVELOPER, Role.USER):
            raise CallError(
                409, "built-in", f"the role {name} is built in and cannot be removed; remove its grants instead"
            )

        def remove(database: sqlite3.Connection) -> None:
            if not database.execute("DELETE FROM access_roles WHERE name=?", (name,)).rowcount:
                raise no_role(name)
            database.execute("DELETE FROM access_user_roles WHERE role=?", (name,))

        await self._database.change(remove)

    async def roles(self, p: int, pp: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many roles there are, and a page of them by name: `name, grants, users`, the last a count."""

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
                {"name": name, "grants": grants_held(database, Holder("role", name)), "users": counts.get(name, 0)}
                for (name,) in rows
            ]

        return await self._database.ask(ask)

    async def assign(self, user: str, role: str) -> None:
        """Assign a role to a user; to one that has it, nothing happens.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`; 507 `full`.
            UsageError: it is not a role.
        """

        def give(database: sqlite3.Connection) -> None:
            check_user_there(database, user)
            _give_role(database, user, role)

        await self._database.change(give)

    async def unassign(self, user: str, role: str) -> None:
        """Take a role from a user.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`.
        """

        def take(database: sqlite3.Connection) -> None:
            check_user_there(database, user)
            done = database.execute("DELETE FROM access_user_roles WHERE user=? AND role=?", (user, role))
            if not done.rowcount:
                raise CallError(404, "no-such-role", f"{user} has no role {role[:80]!r}")

        await self._database.change(take)

    async def add_grant(self, holder: Holder, grant: Grant) -> None:
        """Add a grant; to one that has it, nothing happens.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`; 507 `full`.
        """
        permissions = grants_table(holder)

        def add(database: sqlite3.Connection) -> None:
            check_holder(database, holder)
            held = grants_held(database, holder)
            if len(held) >= MAX_GRANTS_HELD and str(grant) not in held:
                raise CallError(507, "full", f"{holder.name} has {MAX_GRANTS_HELD} grants and cannot have more")
            database.execute(f"INSERT OR IGNORE INTO {permissions} VALUES (?, ?)", (holder.name, str(grant)))

        await self._database.change(add)

    async def remove_grant(self, holder: Holder, grant: Grant) -> None:
        """Take a grant away.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`, `no-such-grant`.
        """
        permissions = grants_table(holder)

        def remove(database: sqlite3.Connection) -> None:
            check_holder(database, holder)
            done = database.execute(
                f"DELETE FROM {permissions} WHERE holder=? AND permission=?", (holder.name, str(grant))
            )
            if not done.rowcount:
                raise CallError(404, "no-such-grant", f"the {holder.kind} {holder.name} has no grant {grant}")

        await self._database.change(remove)

    async def grants(self, holder: Holder | None, p: int, pp: int) -> tuple[int, list[dict[str, str]]]:
        """Return how many grants all holders have, or one, and a page of them: `user` or `role`, and `grant`.

        Raises:
            CallError: 404 `no-such-user`, `no-such-role`.
        """

        def ask(database: sqlite3.Connection) -> tuple[int, list[dict[str, str]]]:
            if holder is not None:
                check_holder(database, holder)
                found = grants_held(database, holder)
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
        """Return whether there is a user or a role of this name."""
        names = "access_users" if kind == "user" else "access_roles"
        return await self._database.ask(lambda database: there(database, names, name))


def _give_role(database: sqlite3.Connection, user: str, role: str) -> None:
    check_role(role)
    if not there(database, "access_roles", role.partition(":")[0]):
        raise no_role(role)
    held = roles_of(database, user)
    if len(held) >= MAX_ROLES_HELD and role not in held:
        raise CallError(507, "full", f"{user} has {MAX_ROLES_HELD} roles and cannot have more")
    database.execute("INSERT OR IGNORE INTO access_user_roles VALUES (?, ?)", (user, role))
