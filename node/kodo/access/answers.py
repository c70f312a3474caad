"""The ops about users: logging in, and what an operator changes where the provider is `local`.

Nodes answer them in sessions, registries over HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kodo.access.accounts import MAX_ROWS, check_user
from kodo.access.devices import Token
from kodo.access.local import LocalProvider
from kodo.access.provider import Provider
from kodo.access.roles import check_operator
from kodo.access.rows import Holder
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import Principal, parse_grant
from kodo.protocol.args.auth import (
    AssignArgs,
    EnrolArgs,
    GrantArgs,
    GrantListArgs,
    PasswordArgs,
    RoleArgs,
    UserAddArgs,
    UserArgs,
    UserEnrolArgs,
    UserLogoutArgs,
    UserPasswordArgs,
)
from kodo.protocol.args.base import PageArgs
from kodo.protocol.pages import paged

__all__ = ["AccountAnswers", "Answer", "describe", "log_in"]

Answer = Callable[[Principal, Any], Awaitable[dict[str, Any]]]
"""Takes who asks, as the provider said for this call, and the op's parsed args."""

_Changing = Callable[[LocalProvider, Any], Awaitable[dict[str, Any]]]


def describe(principal: Principal) -> dict[str, Any]:
    """Return what is told of a principal to itself: the answer of `auth.whoami`."""
    return {
        "principal": principal.id,
        "peer_id": principal.peer_id,
        "user": principal.user,
        "roles": sorted(principal.roles),
        "develops": list(principal.develops),
        "grants": [str(grant) for grant in principal.grants],
    }


async def log_in(provider: Provider, peer_id: str, args: EnrolArgs | PasswordArgs, source: str = "") -> Token:
    """Log the holder of `peer_id` in, by a code's proof or a password; give the token for it.

    Args:
        source: where it comes from, as `LocalProvider.password`.

    Raises:
        CallError: 401 `no-login`, `bad-code`, `bad-login`; 429 `slow-down`, `busy`.
    """
    if not isinstance(provider, LocalProvider):
        raise CallError(401, "no-login", "this node has neither passwords nor codes; auth.info says how to log in")
    if isinstance(args, EnrolArgs):
        _, token = await provider.enrol(peer_id, args.proof, source)
    else:
        _, token = await provider.password(peer_id, args.name, args.password, source)
    return token


class AccountAnswers:
    """Answers what is about users, roles and grants.

    Args:
        provider: who keeps them.
        used: whether an earlier user of this name has left something that a new one would get.
    """

    def __init__(self, provider: Provider, used: Callable[[str], Awaitable[bool]]):
        self._provider = provider
        self._used = used

    def answers(self) -> Mapping[str, Answer]:
        """Return what answers these ops."""
        asked: dict[str, _Changing] = {
            "user.list": self._user_list,
            "user.add": self._user_add,
            "user.remove": self._user_remove,
            "user.enrol": self._user_enrol,
            "user.logout": self._user_logout,
            "role.list": self._role_list,
            "role.add": self._role_add,
            "role.remove": self._role_remove,
            "role.assign": self._role_assign,
            "role.unassign": self._role_unassign,
            "grant.list": self._grant_list,
            "grant.add": self._grant_add,
            "grant.remove": self._grant_remove,
        }
        answers = {op: functools.partial(self._answer, answer) for op, answer in asked.items()}
        return {**answers, "user.password": self._user_password}

    async def _answer(self, answer: _Changing, principal: Principal, args: Any) -> dict[str, Any]:
        check_operator(principal)
        try:
            return await answer(self._local(), args)
        except UsageError as error:
            raise CallError(400, "bad-args", str(error)) from None

    async def _user_password(self, principal: Principal, args: UserPasswordArgs) -> dict[str, Any]:
        own = principal.user == args.name and args.old is not None and args.password is not None
        if not own:
            check_operator(principal)
        local = self._local()
        try:
            if own and args.old is not None and args.password is not None:
                await local.change_password(principal.peer_id, args.name, args.old, args.password)
            else:
                await local.set_password(args.name, args.password)
        except UsageError as error:
            raise CallError(400, "bad-args", str(error), {"arg": "password"}) from None
        return {"name": args.name, "password": args.password is not None}

    async def _user_list(self, local: LocalProvider, args: PageArgs) -> dict[str, Any]:
        pp = min(args.pp, MAX_ROWS)
        total, rows = await local.accounts.users(args.p, pp)
        return paged(rows, total, total, args.p, pp)

    async def _user_add(self, local: LocalProvider, args: UserAddArgs) -> dict[str, Any]:
        # A principal is its name: whoever gets that of a user who is gone gets what that one left.
        if not args.again and await self._used(args.name):
            if await local.knows("user", args.name):
                raise CallError(409, "user-exists", f"there is a user {args.name} already")
            message = (
                f"data of an earlier user {args.name} is still here: if this is the same person, add the user with"
            )
            raise CallError(409, "name-used", f"{message} again (koco user add --again), else choose another name")
        await local.add_user(args.name, tuple(args.roles), args.password)
        return {"name": args.name, "roles": sorted(set(args.roles)), "password": args.password is not None}

    async def _user_remove(self, local: LocalProvider, args: UserArgs) -> dict[str, Any]:
        await local.accounts.remove_user(args.name)
        return {"name": args.name, "removed": True}

    async def _user_enrol(self, local: LocalProvider, args: UserEnrolArgs) -> dict[str, Any]:
        check_user(args.name)
        try:
            peer = str(PeerId.parse(args.peer_id))
        except ValueError:
            raise CallError(
                400, "bad-args", "user.enrol: peer_id: this is not a peer id; `koco id` shows it", {"arg": "peer_id"}
            ) from None
        code = await local.devices.make_code(args.name, peer)
        return {"name": args.name, "peer_id": peer, "code": code.code, "expires_at": code.expires_at}

    async def _user_logout(self, local: LocalProvider, args: UserLogoutArgs) -> dict[str, Any]:
        return {"name": args.name, "ended": await local.devices.forget_devices(args.name, args.peer_id)}

    async def _role_list(self, local: LocalProvider, args: PageArgs) -> dict[str, Any]:
        pp = min(args.pp, MAX_ROWS)
        total, rows = await local.accounts.roles(args.p, pp)
        return paged(rows, total, total, args.p, pp)

    async def _role_add(self, local: LocalProvider, args: RoleArgs) -> dict[str, Any]:
        await local.accounts.add_role(args.name)
        return {"name": args.name}

    async def _role_remove(self, local: LocalProvider, args: RoleArgs) -> dict[str, Any]:
        await local.accounts.remove_role(args.name)
        return {"name": args.name, "removed": True}

    async def _role_assign(self, local: LocalProvider, args: AssignArgs) -> dict[str, Any]:
        await local.accounts.assign(args.user, args.role)
        return {"user": args.user, "role": args.role}

    async def _role_unassign(self, local: LocalProvider, args: AssignArgs) -> dict[str, Any]:
        await local.accounts.unassign(args.user, args.role)
        return {"user": args.user, "role": args.role, "removed": True}

    async def _grant_list(self, local: LocalProvider, args: GrantListArgs) -> dict[str, Any]:
        holder = None if args.user is None and args.role is None else _holder(args)
        total, rows = await local.accounts.grants(holder, args.p, args.pp)
        return paged(rows, total, total, args.p, args.pp)

    async def _grant_add(self, local: LocalProvider, args: GrantArgs) -> dict[str, Any]:
        holder, grant = _holder(args), parse_grant(args.grant)
        await local.accounts.add_grant(holder, grant)
        return {holder.kind: holder.name, "grant": str(grant)}

    async def _grant_remove(self, local: LocalProvider, args: GrantArgs) -> dict[str, Any]:
        holder, grant = _holder(args), parse_grant(args.grant)
        await local.accounts.remove_grant(holder, grant)
        return {holder.kind: holder.name, "grant": str(grant), "removed": True}

    def _local(self) -> LocalProvider:
        if not isinstance(self._provider, LocalProvider):
            name = self._provider.name
            raise CallError(409, "no-users", f"there are no users here: the provider is {name}, not local")
        return self._provider


def _holder(args: GrantListArgs | GrantArgs) -> Holder:
    if args.user is not None and args.role is None:
        return Holder("user", args.user)
    if args.role is not None and args.user is None:
        return Holder("role", args.role)
    raise CallError(400, "bad-args", "user: pass either a user or a role", {"arg": "user"})
