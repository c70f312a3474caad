"""Logging in to nodes: by code or password here and now, and again by what was kept at every new session."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kodo.client.logins import Login, Logins
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, PeerError
from kodo.p2p.net.calls import request
from kodo.p2p.net.session import Session
from kodo.protocol.enrol import make_proof

__all__ = ["LoginKeeper"]

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 30.0
_DONE = "login"


class LoginKeeper:
    """Logs the sessions of one user in.

    Args:
        logins: what is kept.
        me: the user's peer id.
    """

    def __init__(self, logins: Logins, me: PeerId):
        self.logins = logins
        self._me = me

    async def enrol(self, session: Session, code: str) -> dict[str, Any]:
        """Log in by the code that an operator made for this device; give the node's answer.

        Raises:
            UsageError: it is no code.
            CallError: 401 `bad-code`, 429 `slow-down`.
        """
        proof = make_proof(code, str(session.remote_peer), str(self._me))
        return self._keep(session, await request(session, "auth.enrol", {"proof": proof}))

    async def password(self, session: Session, name: str, password: str) -> dict[str, Any]:
        """Log in by password; give the node's answer.

        Raises:
            CallError: 401 `bad-login`, 429 `slow-down`.
        """
        return self._keep(session, await request(session, "auth.password", {"name": name, "password": password}))

    async def resume(self, session: Session) -> bool:
        """Log a session in by what is kept for its node; once a session. Say whether it is logged in.

        A login that the node takes no more leaves the session without one: what needs one is then refused.
        """
        if _DONE not in session.bindings:
            session.bindings[_DONE] = False
            login = self.logins.get(session.remote_peer)
            if login is not None:
                session.bindings[_DONE] = await self._show(session, login)
        return bool(session.bindings[_DONE])

    async def logout(self, session: Session) -> bool:
        """End the login to this node, there and here; say whether there was one."""
        await request(session, "auth.logout")
        session.bindings.pop(_DONE, None)
        return self.logins.forget(session.remote_peer)

    async def _show(self, session: Session, login: Login) -> bool:
        token = self.logins.tokens(login).get("token")
        if not isinstance(token, str):
            return False
        try:
            await request(session, "auth.login", {"token": token}, timeout=LOGIN_SECONDS)
        except CallError as error:
            if error.code != 401:
                raise
            logger.warning("the login to %s is over (%s): koco login", session.remote_peer, error.message)
            return False
        return True

    def _keep(self, session: Session, answer: Any) -> dict[str, Any]:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("token"), str):
            raise PeerError(f"{session.remote_peer} took the login and gave no token")
        user, expires = str(answer.get("user") or ""), answer.get("expires_at")
        login = Login(
            provider="local",
            user=user,
            expires_at=expires if isinstance(expires, int) else None,
            secret=f"local {session.remote_peer}",
        )
        self.logins.put(session.remote_peer, login, {"token": answer["token"]})
        session.bindings[_DONE] = True
        return {key: value for key, value in answer.items() if key != "token"}
