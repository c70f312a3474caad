"""Who calls a registry over HTTP: what a request shows, and what the provider says of it.

A request shows a key by a signed claim (`kodo.registry.records.claims`), and a login by the token beside it, as a
session with a node does. A claim counts only over TLS or from this machine itself: what is answered would else be
anybody's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import hdrs, web

from kodo.access.provider import Provider
from kodo.access.roles import check_operator
from kodo.p2p.core.hosts import THIS_MACHINE, source_of
from kodo.p2p.errors import CallError, PeerError
from kodo.protocol.access import Principal, Role
from kodo.registry.problems import problem
from kodo.registry.records.claims import TOKEN_HEADER, Claim, Seen, read_authorization

__all__ = ["Callers", "check_named_operator", "check_private", "shown_token"]

_BEARER = "bearer "


@dataclass(slots=True)
class Callers:
    """Distinguishes callers.

    Attributes:
        provider: says who they are and what they may do; with `null` everybody reads.
        enrolled: whether a peer id was made an operator by a code.
        name: of the registry, which grants speak of.
        members: peer ids of registries of the mesh, which read too.
        clock: gives ms UTC.
        seen: the claims that were used.
    """

    provider: Provider
    enrolled: Callable[[str], Awaitable[bool]]
    name: str
    members: frozenset[str]
    clock: Callable[[], int]
    seen: Seen

    @property
    def guarded(self) -> bool:
        """Whether reading takes a grant."""
        return self.provider.name != "null"

    async def principal(self, request: web.Request, body: bytes = b"") -> Principal:
        """Return who makes a request: an operator has that role, however it became one.

        Raises:
            CallError: 401 no claim, or none that holds; 403 not over TLS; 503 the issuer of the token is away.
        """
        check_private(request)
        headers = request.headers.getall(hdrs.AUTHORIZATION, [])
        if len(headers) != 1:
            raise problem(401, "no-claim", "this call must be signed with the user key; see the registry's API")
        if headers[0][: len(_BEARER)].lower() == _BEARER:
            # Without a key: a token that is bound to one is not taken so.
            return await self.provider.identify("", _plain(headers[0][len(_BEARER) :].strip()))
        try:
            host = request.headers[hdrs.HOST]
            claim = read_authorization(headers[0], host, request.method, request.raw_path, body)
        except PeerError as error:
            raise problem(401, "bad-claim", str(error)) from None
        if not self.seen.timely(claim, self.clock()):
            raise self._stale(claim)
        principal = await self.provider.identify(claim.peer_id, shown_token(request))
        if not principal.operator and await self.enrolled(claim.peer_id):
            principal = replace(principal, roles=principal.roles | {Role.OPERATOR})
        # Who has no business here does not get remembered: keys are made at will.
        known = principal.operator or principal.user is not None or claim.peer_id in self.members
        if known and not self.seen.fresh(claim, self.clock()):
            raise self._stale(claim)
        return principal

    async def operator(self, request: web.Request, body: bytes) -> Principal:
        """Return which operator makes a request.

        Raises:
            CallError: as `principal`; 403 not an operator.
        """
        principal = await self.principal(request, body)
        check_named_operator(principal)
        return principal

    async def reads_hidden(self, request: web.Request) -> bool:
        """Admit a reader of the contents; return whether it sees what is hidden, as an operator.

        Raises:
            CallError: 401 there is an authorization that does not hold, or none where one is needed; 403 no grant.
        """
        if hdrs.AUTHORIZATION not in request.headers:
            if self.guarded:
                check_private(request)
                raise _login_needed()
            return False
        principal = await self.principal(request)
        if not principal.operator:
            if not self.guarded:
                check_operator(principal)
            self._check_reader(principal)
        return principal.operator

    async def check_mesh_reader(self, request: web.Request) -> None:
        """Admit callers who may read all that changed: members of the mesh, and readers.

        Raises:
            CallError: as `reads_hidden`.
        """
        if not self.guarded:
            return
        check_private(request)
        if hdrs.AUTHORIZATION not in request.headers:
            raise _login_needed()
        principal = await self.principal(request)
        if not principal.operator and principal.peer_id not in self.members:
            self._check_reader(principal)

    def _check_reader(self, principal: Principal) -> None:
        if principal.registry_grant(self.name, "r") is not None:
            return
        if principal.user is None:
            raise _login_needed()
        raise problem(403, "not-granted", f"you have no grant registry://{self.name}/r; ask this registry's operator")

    def _stale(self, claim: Claim) -> CallError:
        told = self.seen.next_at(claim.peer_id, self.clock())
        return problem(401, "stale-claim", "this claim was used before, or the clocks differ too much", registry=told)


def shown_token(request: web.Request) -> str | None:
    """Return the token that a request shows beside its claim.

    Raises:
        CallError: 401, there are several.
    """
    tokens = request.headers.getall(TOKEN_HEADER, [])
    if len(tokens) > 1:
        raise problem(401, "bad-token", "a request may carry only one token")
    return _plain(tokens[0]) if tokens else None


def _plain(token: str) -> str:
    # Other bytes come as what cannot be encoded again.
    if not token.isascii():
        raise problem(401, "bad-token", "a token is plain ASCII")
    return token


def check_private(request: web.Request) -> None:
    """Refuse what came neither over TLS nor from this machine.

    Raises:
        CallError: 403 `tls-only`.
    """
    if not request.secure and source_of(request.remote) != THIS_MACHINE:
        raise problem(403, "tls-only", "such calls need TLS, or must come from this machine; see --tls-cert")


def check_named_operator(principal: Principal) -> None:
    """Refuse everybody but operators who signed what they ask.

    Raises:
        CallError: 401 `no-claim`, 403 `operator-only`.
    """
    if not principal.peer_id:
        raise problem(401, "no-claim", "an operator's calls are signed with the user key; a token is not enough")
    check_operator(principal)


def _login_needed() -> CallError:
    return problem(401, "login-needed", "this registry requires a login: koco login --registry URL")
