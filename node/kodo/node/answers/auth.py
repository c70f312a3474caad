"""`auth.*`, and the ops on users: who is calling, and logging in.

A token binds a session to a user, and is judged at every call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kodo.access.answers import AccountAnswers, Answer, describe, log_in
from kodo.access.devices import Token
from kodo.access.provider import Provider
from kodo.node.answers.caller import Caller, Handler, Handlers
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal
from kodo.protocol.args.auth import EnrolArgs, LoginArgs, PasswordArgs
from kodo.protocol.args.base import NoArgs

__all__ = ["AuthAnswers", "bound_token", "check_still", "unbind"]

_TOKEN = "token"


def bound_token(session: Any) -> str | None:
    """Return the token that a session is bound by."""
    token = session.bindings.get(_TOKEN)
    return token if isinstance(token, str) else None


def unbind(session: Any) -> None:
    """Make a session nobody's again."""
    session.bindings.pop(_TOKEN, None)
    session.account = None


class AuthAnswers:
    """Answers what is about the caller, and about the users that the node keeps."""

    def __init__(self, provider: Provider, used: Callable[[str], Awaitable[bool]]):
        self._provider = provider
        self._accounts = AccountAnswers(provider, used)

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "auth.info": self._info,
            "auth.login": self._login,
            "auth.password": self._password,
            "auth.enrol": self._enrol,
            "auth.logout": self._logout,
            "auth.whoami": self._whoami,
            **{op: _by_principal(answer) for op, answer in self._accounts.answers().items()},
        }

    async def _info(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        return self._provider.info()

    async def _login(self, caller: Caller, args: LoginArgs) -> dict[str, Any]:
        return await self._bind(caller, args.token)

    async def _password(self, caller: Caller, args: PasswordArgs) -> dict[str, Any]:
        token = await log_in(self._provider, caller.principal.peer_id, args, caller.source)
        return await self._bind(caller, token.token, token)

    async def _enrol(self, caller: Caller, args: EnrolArgs) -> dict[str, Any]:
        token = await log_in(self._provider, caller.principal.peer_id, args, caller.source)
        return await self._bind(caller, token.token, token)

    async def _logout(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        token = bound_token(caller.asked.session)
        unbind(caller.asked.session)
        if token is not None:
            await self._provider.logout(token)
        return {"logged_out": token is not None}

    async def _whoami(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        return describe(caller.principal)

    async def _bind(self, caller: Caller, token: str, made: Token | None = None) -> dict[str, Any]:
        principal = await self._provider.identify(caller.principal.peer_id, token)
        caller.asked.session.bindings[_TOKEN] = token
        more = {} if made is None else {"token": made.token, "expires_at": made.expires_at}
        return {**describe(principal), **more}


def check_still(before: Principal, now: Principal) -> None:
    """Continue a call while its caller is who it was and may do what it might.

    Raises:
        CallError: 503 `access-changed`: made again it is judged anew.
    """
    if before != now:
        raise CallError(503, "access-changed", "your permissions have changed; call again", {"retry_after_ms": 0})


def _by_principal(answer: Answer) -> Handler:
    async def handle(caller: Caller, args: Any) -> dict[str, Any]:
        return await answer(caller.principal, args)

    return handle
