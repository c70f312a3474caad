"""Logins of one client: who it is to nodes and to registries, and logging in and out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from kodo.client.device_flow import Prompt
from kodo.client.known_nodes import KnownNodes
from kodo.client.login import Approve, LoginKeeper
from kodo.client.logins import Logins
from kodo.client.peer import RemoteNode
from kodo.client.registry_account import RegistryDesk, is_registry, log_in, login_desk, named_desk, place_of
from kodo.client.resolve import safe_text
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import KodoError, LocallyClosedError, PeerError

__all__ = ["Accounts"]

logger = logging.getLogger(__name__)


class _SignedRegistry(Protocol):
    """A registry that is read as a user who may be logged in to it."""

    url: str
    claimant: Any


class Accounts:
    """What a client's `login`, `logout`, `whoami` and `desk` do; opened and closed with the client.

    Args:
        home: the folder of the client's logins.
        node: finds the node that NODE means.
        known: the names that are pinned.
        registries: those that the client reads.
    """

    def __init__(
        self,
        home: Path,
        node: Callable[[str], Awaitable[RemoteNode]],
        known: KnownNodes,
        registries: Sequence[_SignedRegistry],
        *,
        timeout_s: float,
        keyring: bool,
    ):
        self.logins = Logins(home / "logins.json", keyring=keyring)
        self.keeper: LoginKeeper | None = None
        self._node = node
        self._known = known
        self._registries = registries
        self._timeout_s = timeout_s
        self._desks: dict[str, RegistryDesk] = {}
        self._stack: AsyncExitStack | None = None

    def open(self, identity: Identity, stack: AsyncExitStack, *, bound: bool) -> None:
        """Begin to log in as this user; connections to registries end with the stack."""
        self._stack = stack
        self.keeper = LoginKeeper(self.logins, identity, bound=bound)
        for registry in self._registries:
            registry.claimant = self.keeper.claimant(registry.url)

    async def whoami(self, node: str) -> dict[str, Any]:
        """Return who this user is to a node or registry; see `Client.whoami`."""
        remote = await self.desk(node)
        return {**_mapping(await remote.request("auth.whoami"), "auth.whoami"), **named_desk(remote)}

    async def desk(self, place: str) -> RemoteNode | RegistryDesk:
        """Return what takes the ops on users; see `Client.desk`."""
        if not is_registry(place):
            return await self._node(place)
        keeper, stack = self._opened()
        made = RegistryDesk(place, keeper, self._timeout_s)
        desk = self._desks.get(made.url)
        if desk is None:
            desk = self._desks[made.url] = await stack.enter_async_context(made)
        await desk.meet()
        return desk

    async def login(
        self,
        node: str,
        how: tuple[str | None, str | None, str | None, str | None, Callable[[Prompt], None] | None, Approve | None],
        check_password: Callable[[RemoteNode], Awaitable[None]],
    ) -> dict[str, Any]:
        """Log in to a node or registry; see `Client.login`.

        Args:
            how: code, name, password, issuer, show, approve.
            check_password: asked before a password goes to a node.
        """
        remote = await self.desk(node)
        if how[2] is not None and isinstance(remote, RemoteNode):
            await check_password(remote)
        answer = await log_in(self._opened()[0], remote, *how)
        self._look_for_logins()
        return {**answer, **named_desk(remote)}

    async def logout(self, node: str) -> bool:
        """End the login to a node or registry, there and here; see `Client.logout`."""
        try:
            ended = await self._opened()[0].logout(await login_desk(await self.desk(node)))
        except KodoError as error:
            place = place_of(node, self._known)
            if isinstance(error, LocallyClosedError) or place is None or not self.logins.forget(place):
                raise
            logger.warning("the login is forgotten here only; %s was not told: %s", safe_text(node), error)
            ended = True
        self._look_for_logins()
        return ended

    def _opened(self) -> tuple[LoginKeeper, AsyncExitStack]:
        if self.keeper is None or self._stack is None:
            raise LocallyClosedError("use a Client inside `async with`")
        return self.keeper, self._stack

    def _look_for_logins(self) -> None:
        for registry in self._registries:
            if registry.claimant is not None:
                registry.claimant.forget()
        for desk in self._desks.values():
            desk.claimant.forget()


def _mapping(answer: Any, op: str) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        raise PeerError(f"the answer to {op} is not a map")
    return {str(key): value for key, value in answer.items()}
