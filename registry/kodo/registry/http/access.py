"""Users of a registry over HTTP: `POST /access/{op}` takes the ops on users that nodes take, with the same args."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import hdrs, web

from kodo.access.answers import AccountAnswers, describe, log_in
from kodo.access.audit import ACCOUNT_CHANGES, AuditedTables, AuditLine
from kodo.access.throttle import Throttle
from kodo.p2p.core.hosts import source_of
from kodo.p2p.errors import PeerError
from kodo.protocol.access import Principal
from kodo.protocol.args.auth import EnrolArgs, LoginArgs, PasswordArgs
from kodo.protocol.calls import parse_args
from kodo.registry.http.callers import Callers, shown_token
from kodo.registry.problems import problem
from kodo.registry.records.signed import pack, unpack
from kodo.registry.store.operators import AdminStore

__all__ = ["ACCESS_OPS", "AccessRoutes"]

_MAX_BODY = 64 << 10
_MAX_VALUES = 1024
_MSGPACK = "application/msgpack"
_OWN = ("auth.info", "auth.login", "auth.password", "auth.enrol", "auth.logout", "auth.whoami")
_TRIES = frozenset({"auth.login", "auth.password", "auth.enrol"})
ACCESS_OPS = (*_OWN, *sorted(ACCOUNT_CHANGES), "user.list", "role.list", "grant.list")


@dataclass(slots=True)
class AccessRoutes:
    """The one route, and what it works with.

    Attributes:
        callers: says who calls.
        admin: knows which users list names.
        tables: keep a line in the audit with each change.
        clock: gives ms UTC.
        read_body: reads a body of at most so many bytes and of this content type, or raises `CallError`.
        tries: how often one source may try to log in.
    """

    callers: Callers
    admin: AdminStore
    tables: AuditedTables
    clock: Callable[[], int]
    read_body: Callable[[web.Request, int, str], Awaitable[bytes]]
    tries: Throttle = field(default_factory=lambda: Throttle(burst=20, every_ms=1000))

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post("/access/{op}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        op = request.match_info["op"]
        if op not in ACCESS_OPS:
            raise problem(404, "no-such-op", f"there is no op {op[:64]!r} here")
        body = await self.read_body(request, _MAX_BODY, _MSGPACK)
        principal = None if op == "auth.info" else await self._caller(request, op, body)
        try:
            given = unpack(body, most=_MAX_VALUES, lists=True)
        except PeerError as error:
            raise problem(400, "malformed", str(error)) from None
        if not isinstance(given, dict):
            raise problem(400, "malformed", "the args are a map")
        args = parse_args(op, given)
        if principal is None:
            answer: Any = self.callers.provider.info()
        elif op in _OWN:
            answer = await self._own(request, op, principal, args)
        elif op in ACCOUNT_CHANGES:
            with self.tables.told_by(AuditLine.of_op(principal.peer_id, op, given, self.clock())):
                answer = await self._account(op, principal, args)
        else:
            answer = await self._account(op, principal, args)
        return web.Response(body=pack(answer), content_type=_MSGPACK, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _account(self, op: str, principal: Principal, args: Any) -> Any:
        return await AccountAnswers(self.callers.provider, self.admin.lists_for).answers()[op](principal, args)

    async def _caller(self, request: web.Request, op: str, body: bytes) -> Principal:
        if op in _TRIES:
            self._slow_down(request)
        principal = await self.callers.principal(request, body)
        if not principal.peer_id:
            raise problem(401, "no-claim", "this call is signed with the user key; a token is not enough")
        return principal

    async def _own(self, request: web.Request, op: str, principal: Principal, args: Any) -> dict[str, Any]:
        provider = self.callers.provider
        if isinstance(args, LoginArgs):
            return describe(await provider.identify(principal.peer_id, args.token))
        if isinstance(args, (EnrolArgs, PasswordArgs)):
            token = await log_in(provider, principal.peer_id, args, source_of(request.remote))
            known = await provider.identify(principal.peer_id, token.token)
            return {**describe(known), "token": token.token, "expires_at": token.expires_at}
        return await self._log_out(request) if op == "auth.logout" else describe(principal)

    async def _log_out(self, request: web.Request) -> dict[str, Any]:
        token = shown_token(request)
        if token is not None:
            await self.callers.provider.logout(token)
        return {"logged_out": token is not None}

    def _slow_down(self, request: web.Request) -> None:
        wait = self.tries.wait_ms(source_of(request.remote), self.clock())
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many tries; wait {seconds} s", retry_after_s=seconds)
