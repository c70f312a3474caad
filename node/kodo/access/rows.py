"""What accounts and devices read of the tables of users, roles and grants, and how they refuse."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kodo.p2p.errors import CallError
from kodo.protocol.access import Grant, parse_grant

__all__ = [
    "Found",
    "Holder",
    "bad_login",
    "check_holder",
    "check_password",
    "check_room",
    "check_user_there",
    "grants_held",
    "grants_table",
    "no_role",
    "no_user",
    "read_user",
    "roles_of",
    "there",
]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a grant: the user or the role of this name."""

    kind: Literal["user", "role"]
    name: str


class Found(NamedTuple):
    """A user as a token shows it: `roles` as they were given, `grants` its own and those of its roles."""

    user: str
    roles: tuple[str, ...]
    grants: tuple[Grant, ...]
    expires_at: int


def grants_table(holder: Holder) -> str:
    """Return the table of the grants of users, or of roles."""
    return {"user": "access_user_grants", "role": "access_role_grants"}[holder.kind]


def there(database: sqlite3.Connection, table: str, name: str) -> bool:
    """Return whether a table has this name."""
    return database.execute(f"SELECT 1 FROM {table} WHERE name=?", (name,)).fetchone() is not None


def check_room(database: sqlite3.Connection, table: str, most: int) -> None:
    """Check that there is room for one more row.

    Raises:
        CallError: 507 `full`.
    """
    if database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= most:
        raise CallError(507, "full", f"there are already {most}, and no more are allowed")


def check_user_there(database: sqlite3.Connection, name: str) -> None:
    """Check that somebody is a user.

    Raises:
        CallError: 404 `no-such-user`.
    """
    if not there(database, "access_users", name):
        raise no_user(name)


def check_password(database: sqlite3.Connection, name: str, known: str) -> None:
    """Check that a user's password still has this hash.

    Raises:
        CallError: 401 `bad-login`.
    """
    row = database.execute("SELECT password FROM access_users WHERE name=?", (name,)).fetchone()
    if row is None or row[0] != known:
        raise bad_login()


def check_holder(database: sqlite3.Connection, holder: Holder) -> None:
    """Check that a user or role exists.

    Raises:
        CallError: 404 `no-such-user`, `no-such-role`.
    """
    if holder.kind == "user":
        check_user_there(database, holder.name)
    elif not there(database, "access_roles", holder.name):
        raise no_role(holder.name)


def grants_held(database: sqlite3.Connection, holder: Holder) -> list[str]:
    """Return the grants of one holder, as text."""
    rows = database.execute(
        f"SELECT permission FROM {grants_table(holder)} WHERE holder=? ORDER BY permission", (holder.name,)
    )
    return [text for (text,) in rows]


def read_user(database: sqlite3.Connection, user: str, expires: int) -> Found:
    """Return a user with its roles, and the grants of its own and of those."""
    roles = roles_of(database, user)
    texts = set(grants_held(database, Holder("user", user)))
    for role in {role.partition(":")[0] for role in roles}:
        texts.update(grants_held(database, Holder("role", role)))
    return Found(user, tuple(roles), tuple(parse_grant(text) for text in sorted(texts)), expires)


def roles_of(database: sqlite3.Connection, user: str) -> list[str]:
    """Return the roles of a user, as they were given."""
    rows = database.execute("SELECT role FROM access_user_roles WHERE user=? ORDER BY role", (user,))
    return [role for (role,) in rows]


def bad_login() -> CallError:
    """Return the refusal of a name and a password that do not belong together."""
    return CallError(401, "bad-login", "no user has this name and password here")


def no_user(name: str) -> CallError:
    """Return the refusal of a user that there is not."""
    return CallError(404, "no-such-user", f"there is no user {name[:80]!r}")


def no_role(name: str) -> CallError:
    """Return the refusal of a role that there is not."""
    return CallError(404, "no-such-role", f"there is no role {name[:80]!r}; koco role list shows them")
