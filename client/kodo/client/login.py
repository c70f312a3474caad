"""Logging in to nodes and registries: by code, password or an issuer, and again by what was kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import inspect
import logging
import os
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kodo.client.device_flow import DeviceFlow, Prompt, Tokens, is_bound
from kodo.client.logins import Login, Logins, Place
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, DeadlineError, KodoError, PeerError, UsageError
from kodo.p2p.net.calls import request
from kodo.p2p.net.session import Session
from kodo.protocol.enrol import make_proof

if TYPE_CHECKING:
    from kodo.registry.client.signed_requests import Claimant

__all__ = ["Approval", "Approve", "Desk", "LoginKeeper", "SessionDesk"]

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 30.0
EARLY_MS = 15_000
"""Before its end by so much a token is renewed."""
_DONE = "login"
"""The binding of a session: the ms UTC until which it is logged in; 0 for not."""
_FOREVER = 1 << 62


_TERMS = ("issuer", "client_id", "audience", "scope")
"""What is approved for a place."""


class Approval(NamedTuple):
    """What a place asks of its users: tokens of `issuer` for `audience`, got as `client_id` with `scope`.

    Attributes:
        place: who asks, a peer id or the URL of a registry.
        before: what was approved for it earlier, where that was something else.
        others: the places for which there are tokens of the same issuer and audience, peer ids and URLs; they take
            whatever token is shown here, unless it is bound to this user's key.
    """

    place: str
    issuer: str
    client_id: str
    audience: str
    scope: str
    before: Login | None
    others: tuple[str, ...]


Approve = Callable[[Approval], bool | Awaitable[bool]]
"""Asked whether a place may have such a token; with `others` also whether it may be one that was got for them."""


class Desk(Protocol):
    """Where one logs in.

    Attributes:
        place: under which a login there is kept.
        peer_id: who it is.
    """

    @property
    def place(self) -> Place: ...

    @property
    def peer_id(self) -> str: ...

    async def ask(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        """Make a call."""
        ...

    def holds_until(self, until: int) -> None:
        """Take note of when the login ends, ms UTC; 0 now."""
        ...


class SessionDesk:
    """A node, by a session."""

    def __init__(self, session: Session):
        self._session = session
        self.place: Place = session.remote_peer
        self.peer_id = str(session.remote_peer)

    async def ask(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        """Make a call."""
        return await request(self._session, op, args or {}, timeout=LOGIN_SECONDS)

    def holds_until(self, until: int) -> None:
        """Remember it as long as the session lives."""
        self._session.bindings[_DONE] = until


class LoginKeeper:
    """Logs one user in.

    Args:
        logins: what is kept.
        me: the user's key.
        bound: show no token of an issuer that is not bound to that key.
    """

    def __init__(self, logins: Logins, me: Identity, *, bound: bool = False):
        self.logins = logins
        self._me = me
        self._bound = bound

    async def enrol(self, desk: Desk, code: str) -> dict[str, Any]:
        """Log in by the code that an operator made for this device; give the answer.

        Raises:
            UsageError: it is not a code.
            CallError: 401 `bad-code`, 429 `slow-down`.
        """
        proof = make_proof(code, desk.peer_id, str(self._me.peer_id))
        return self._keep(desk, await desk.ask("auth.enrol", {"proof": proof}))

    async def password(self, desk: Desk, name: str, password: str) -> dict[str, Any]:
        """Log in by password; give the answer.

        Raises:
            CallError: 401 `bad-login`, 429 `slow-down`.
        """
        return self._keep(desk, await desk.ask("auth.password", {"name": name, "password": password}))

    async def issuer(
        self, desk: Desk, approved: str | None, show: Callable[[Prompt], None], approve: Approve | None = None
    ) -> dict[str, Any]:
        """Log in by a token of the issuer that is named there.

        What was approved (issuer, client id, audience, scope) is kept for this place alone. A token that was got for
        another place is used here only when `approve` is asked and agrees; else a new one is got.

        Args:
            approved: the issuer that the user named; None has `approve` asked in any case.
            approve: asked when the issuer was not named, when other terms were approved for this place before, and
                when there are tokens of other places. None: what it would be asked is refused, but for a new token.

        Raises:
            UsageError: it was not approved, another issuer is named, or there is no token to be had.
            DeadlineError, NetworkError, PeerError: nobody approved; the issuer is away.
            CallError: 401 `bad-token`, 403, 503 `provider-away`.
        """
        info = await desk.ask("auth.info")
        said: dict[str, Any] = {name: _text(info, name) for name in _TERMS}
        if approved is not None and said["issuer"] != approved:
            raise UsageError(f"{desk.place} accepts tokens of {said['issuer'] or 'no issuer'}, not of {approved}")
        login = Login(provider="oidc", secret=f"oidc {desk.place}", **said)
        before = self.logins.get(desk.place)
        pinned = before if before is not None and before.provider == "oidc" else None
        changed = pinned is not None and pinned.terms != login.terms
        others = {place: other for place, other in self.logins.like(login).items() if place != str(desk.place)}
        shared = pinned is not None and not changed
        if approved is None or changed or (others and not shared):
            question = Approval(str(desk.place), **said, before=pinned if changed else None, others=tuple(others))
            await _have_approved(question, approve, needed=approved is None or changed)
            shared = shared or (bool(others) and approve is not None)
        if shared:
            login = replace(login, secret=(pinned or next(iter(others.values()))).secret)
        bound = self._bound or (isinstance(info, Mapping) and info.get("bound") is True)
        tokens = await self._current(login, None) if shared else None
        if tokens is None or (bound and not is_bound(tokens.token, self._me)):
            tokens = await self._flow(login, bound=bound).run(show)
        answer = await desk.ask("auth.login", {"token": tokens.token})
        login = replace(login, user=_text(answer, "user"), expires_at=tokens.expires_at)
        self.logins.put(desk.place, login, tokens._asdict())
        desk.holds_until(tokens.expires_at)
        return dict(answer)

    async def resume(self, session: Session) -> None:
        """See to it that a session is logged in, if there is a login to its node.

        A login that the node takes no more leaves the session without one: what needs one is then refused.

        Raises:
            CallError: 503 `provider-away`.
        """
        until = session.bindings.get(_DONE)
        if until is not None and (until == 0 or _now() < until - EARLY_MS):
            return
        session.bindings[_DONE] = 0
        login = self.logins.get(session.remote_peer)
        if login is not None:
            session.bindings[_DONE] = await self._show(session, login)

    async def again(self, session: Session) -> bool:
        """Log in anew after the node let a login go; say whether that was possible: with an issuer it may be."""
        login = self.logins.get(session.remote_peer)
        if login is None or login.provider != "oidc" or not session.bindings.get(_DONE):
            return False
        session.bindings[_DONE] = await self._show(session, login, spent=self._kept(login))
        return bool(session.bindings[_DONE])

    async def logout(self, desk: Desk) -> bool:
        """End a login, there and here; say whether there was one."""
        await desk.ask("auth.logout")
        desk.holds_until(0)
        return self.logins.forget(desk.place)

    def claimant(self, url: str) -> Claimant:
        """Return who signs this user's requests to a registry, and shows the login to it if there is one."""
        # Speaking to registries takes long to import, and most commands speak to nodes alone.
        from kodo.registry.client.client import RegistryClient
        from kodo.registry.client.signed_requests import Claimant

        async def token(refused: str | None) -> str | None:
            login = self.logins.get(RegistryClient(url).url)
            if login is None:
                return None
            if login.provider == "oidc":
                kept = self._kept(login)
                spent = kept if kept is not None and kept.token == refused else None
                tokens = await self._current(login, spent)
                found = None if tokens is None else tokens.token
            else:
                found = self.logins.tokens(login).get("token")
            if not isinstance(found, str) or found == refused:
                logger.warning("the login to %s is over: koco login --registry %s", url, shlex.quote(url))
                return None
            return found

        return Claimant(self._me, token)

    # --- inside ---

    async def _show(self, session: Session, login: Login, spent: Tokens | None = None) -> int:
        """Show the node the token; give until when that holds, 0 when it was not taken."""
        if login.provider == "oidc":
            tokens = await self._current(login, spent)
            if tokens is None:
                logger.warning(
                    "the login at %s is over: koco login --node %s",
                    login.issuer,
                    shlex.quote(str(session.remote_peer)),
                )
                return 0
            token, until = tokens.token, tokens.expires_at
        else:
            kept = self.logins.tokens(login).get("token")
            if not isinstance(kept, str):
                return 0
            token, until = kept, _FOREVER
        try:
            await request(session, "auth.login", {"token": token}, timeout=LOGIN_SECONDS)
        except CallError as error:
            if error.code != 401:
                raise
            peer = shlex.quote(str(session.remote_peer))
            logger.warning("the login to %s is over: koco login --node %s", session.remote_peer, peer)
            return 0
        return until

    async def _current(self, login: Login, spent: Tokens | None) -> Tokens | None:
        """Return tokens that are good for a while, new ones if need be; `spent` are not good any more."""
        tokens = await self._fresh(login, spent)
        if tokens is not None and self._bound and not is_bound(tokens.token, self._me):
            logger.warning("the token of %s is not bound to your key, so it is not shown (login_bound)", login.issuer)
            return None
        return tokens

    async def _fresh(self, login: Login, spent: Tokens | None) -> Tokens | None:
        tokens = self._kept(login)
        if tokens is None or (tokens != spent and _now() < tokens.expires_at - EARLY_MS):
            return tokens
        async with self._one_at_a_time():
            # Another process may have renewed them meanwhile; an issuer takes each refresh token once.
            tokens = self._kept(login)
            if tokens is None or (tokens != spent and _now() < tokens.expires_at - EARLY_MS):
                return tokens
            try:
                new = await self._flow(login).refresh(tokens)
            except (KodoError, TimeoutError) as error:
                logger.warning("%s gives no new token: %s", login.issuer, error)
                return tokens if _now() < tokens.expires_at else None
            if new is not None:
                self.logins.put_tokens(login, new._asdict())
            return new

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        path = self.logins.path.with_name(self.logins.path.name + ".renew")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                async with asyncio.timeout(LOGIN_SECONDS):
                    while True:
                        try:
                            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            break
                        except BlockingIOError:
                            await asyncio.sleep(0.05)
            except TimeoutError:
                raise DeadlineError(
                    f"another process has been renewing the tokens of {path.parent} for too long"
                ) from None
            yield
        finally:
            os.close(lock)

    def _kept(self, login: Login) -> Tokens | None:
        return Tokens.read(self.logins.tokens(login))

    def _flow(self, login: Login, *, bound: bool = False) -> DeviceFlow:
        bound = bound or self._bound
        return DeviceFlow(login.issuer, login.client_id, login.audience, login.scope, self._me, bound)

    def _keep(self, desk: Desk, answer: Any) -> dict[str, Any]:
        token = _text(answer, "token")
        if not token:
            raise PeerError(f"{desk.place} accepted the login but returned no token")
        expires = answer.get("expires_at")
        login = Login(
            provider="local",
            user=_text(answer, "user"),
            expires_at=expires if isinstance(expires, int) else None,
            secret=f"local {desk.place}",
        )
        self.logins.put(desk.place, login, {"token": token})
        desk.holds_until(_FOREVER)
        return {key: value for key, value in answer.items() if key != "token"}


async def _have_approved(question: Approval, approve: Approve | None, *, needed: bool) -> None:
    if approve is not None:
        answer = approve(question)
        if await answer if inspect.isawaitable(answer) else answer:
            return
        raise UsageError("not approved")
    if question.before is not None:
        pairs = {name: (getattr(question, name), getattr(question.before, name)) for name in _TERMS}
        changed = [
            f"{name} {now or 'none'}, not {then or 'none'}" for name, (now, then) in pairs.items() if now != then
        ]
        raise UsageError(
            f"{question.place} asks for other tokens than you approved: {'; '.join(changed)}. If the change is right,"
            " log out there first"
        )
    if needed:
        raise UsageError(f"a token of {question.issuer} needs your approval")


def _text(answer: Any, name: str) -> str:
    value = answer.get(name) if isinstance(answer, Mapping) else None
    return value[:2048] if isinstance(value, str) else ""


def _now() -> int:
    return time.time_ns() // 1_000_000
