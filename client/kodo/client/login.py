"""Logging in to nodes and registries: by code, password or an issuer, and again by what was kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from kodo.client.device_flow import DeviceFlow, Prompt, Tokens
from kodo.client.logins import Login, Logins, Place
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, DeadlineError, KodoError, PeerError, UsageError
from kodo.p2p.net.calls import request
from kodo.p2p.net.session import Session
from kodo.protocol.enrol import make_proof
from kodo.registry.claimant import Claimant
from kodo.registry.client import RegistryClient

__all__ = ["Desk", "LoginKeeper", "SessionDesk"]

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 30.0
EARLY_MS = 15_000
"""Before its end by so much a token is renewed."""
_DONE = "login"
"""The binding of a session: the ms UTC until which it is logged in; 0 for not."""
_FOREVER = 1 << 62


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
    """

    def __init__(self, logins: Logins, me: Identity):
        self.logins = logins
        self._me = me

    async def enrol(self, desk: Desk, code: str) -> dict[str, Any]:
        """Log in by the code that an operator made for this device; give the answer.

        Raises:
            UsageError: it is no code.
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

    async def issuer(self, desk: Desk, approved: str, show: Callable[[Prompt], None]) -> dict[str, Any]:
        """Log in by a token of the issuer that is named there, if it is the one that the user approved.

        Tokens for the same audience that another login brought are used again.

        Raises:
            UsageError: another issuer is named, or there is no token to be had.
            DeadlineError, NetworkError, PeerError: nobody approved; the issuer is away.
            CallError: 401 `bad-token`, 403, 503 `provider-away`.
        """
        info = await desk.ask("auth.info")
        said = {name: _text(info, name) for name in ("issuer", "client_id", "audience", "scope")}
        if said["issuer"] != approved:
            raise UsageError(f"what is taken there are tokens of {said['issuer'] or 'no issuer'}, not of {approved}")
        secret = f"oidc {said['issuer']} {said['client_id']} {said['audience']}"
        login = Login(
            provider="oidc",
            secret=secret,
            issuer=approved,
            client_id=said["client_id"],
            audience=said["audience"],
            scope=said["scope"],
        )
        tokens = await self._current(login, None)
        if tokens is None:
            tokens = await self._flow(login).run(show)
        answer = await desk.ask("auth.login", {"token": tokens.token})
        login = login.model_copy(update={"user": _text(answer, "user"), "expires_at": tokens.expires_at})
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
        """Give who signs this user's requests to a registry, and shows the login to it if there is one."""

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
        """Give tokens that are good for a while, new ones if need be; `spent` are not good any more."""
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
                raise DeadlineError(f"another process renews the tokens of {path.parent} and does not end") from None
            yield
        finally:
            os.close(lock)

    def _kept(self, login: Login) -> Tokens | None:
        return Tokens.read(self.logins.tokens(login))

    def _flow(self, login: Login) -> DeviceFlow:
        return DeviceFlow(login.issuer, login.client_id, login.audience, login.scope, self._me)

    def _keep(self, desk: Desk, answer: Any) -> dict[str, Any]:
        token = _text(answer, "token")
        if not token:
            raise PeerError(f"{desk.place} took the login and gave no token")
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


def _text(answer: Any, name: str) -> str:
    value = answer.get(name) if isinstance(answer, Mapping) else None
    return value[:2048] if isinstance(value, str) else ""


def _now() -> int:
    return time.time_ns() // 1_000_000
