"""Arguments of the ops on logins, users, roles and grants."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kodo.protocol.args.base import Args, Name, PageArgs, RoleText, Secret, UserName
from kodo.protocol.enrol import PROOF_BYTES

__all__ = [
    "AssignArgs",
    "EnrolArgs",
    "GrantArgs",
    "GrantListArgs",
    "LoginArgs",
    "PasswordArgs",
    "RoleArgs",
    "UserAddArgs",
    "UserArgs",
    "UserEnrolArgs",
    "UserLogoutArgs",
    "UserPasswordArgs",
]


class LoginArgs(Args):
    """`auth.login`: a bearer token, as `auth.password`, `auth.enrol` or an issuer gave it."""

    # Larger ones are refused by the provider, before anything is parsed.
    token: str = Field(min_length=1, max_length=1 << 20)


class PasswordArgs(Args):
    """`auth.password`."""

    name: UserName
    password: Secret


class EnrolArgs(Args):
    """`auth.enrol`: the proof that `kodo.protocol.enrol` makes of a code."""

    proof: bytes = Field(min_length=PROOF_BYTES, max_length=PROOF_BYTES)


class UserArgs(Args):
    """An op on one user."""

    name: UserName


class UserAddArgs(UserArgs):
    """`user.add`: without a password the user logs in by enrolled devices only.

    `again`: the name may be that of a user who is gone, and this one gets the runs and shares that are left of that.
    """

    roles: list[RoleText] = Field(default_factory=lambda: ["user"], max_length=64)
    password: Secret | None = None
    again: bool = False


class UserPasswordArgs(UserArgs):
    """`user.password`: None takes it away; with `old` a user changes its own."""

    password: Secret | None = None
    old: Secret | None = None


class UserEnrolArgs(UserArgs):
    """`user.enrol`: makes a code for the device with this peer id."""

    peer_id: Name


class UserLogoutArgs(UserArgs):
    """`user.logout`: ends the logins of all the user's devices, or of one."""

    peer_id: Name | None = None


class RoleArgs(Args):
    """An op on one role."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class AssignArgs(Args):
    """`role.assign`, `role.unassign`: a role, or `developer:GLOB`, of a user."""

    user: UserName
    role: RoleText


class GrantListArgs(PageArgs):
    """`grant.list`: those of a user or of a role; of all without either."""

    user: UserName | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class GrantArgs(Args):
    """`grant.add`, `grant.remove`: a grant of either a user or a role."""

    user: UserName | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    grant: Name
