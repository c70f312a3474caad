"""A registry as who logs in to it, or keeps its users, deals with it: the ops of nodes on users, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from kodo.client.device_flow import Prompt
from kodo.client.known_nodes import KnownNodes
from kodo.client.login import Approve, Desk, LoginKeeper, SessionDesk
from kodo.client.logins import Place
from kodo.client.peer import RemoteNode, read_pages
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import PeerError, UsageError

if TYPE_CHECKING:
    from kodo.registry.client.client import RegistryClient

__all__ = ["RegistryDesk", "is_registry", "log_in", "login_desk", "named_desk", "place_of"]


def is_registry(text: str) -> bool:
    """Whether NODE is no node but the URL of a registry."""
    return text.startswith(("http://", "https://"))


def _client(url: str, **options: Any) -> RegistryClient:
    from kodo.registry.client.client import RegistryClient  # speaks HTTP, which takes long to import

    return RegistryClient(url, **options)


def place_of(text: str, known: KnownNodes) -> Place | None:
    """Return under what a login to a NODE or registry is kept, without asking anybody; None: not known."""
    if is_registry(text):
        return _client(text).url
    try:
        return Multiaddr.parse(text).peer_id if text.startswith("/") else PeerId.parse(text)
    except ValueError:
        return known.get(text)


class RegistryDesk:
    """One registry; `async with`. Errors are those of `RegistryClient`, 403 `tls-only` before anything is asked."""

    def __init__(self, url: str, keeper: LoginKeeper, timeout: float):
        self.url = _client(url).url
        self.place: Place = self.url
        self.peer_id = ""
        self.claimant = keeper.claimant(self.url)
        self._client = _client(url, timeout=timeout, claimant=self.claimant)
        self._stack = AsyncExitStack()

    def __str__(self) -> str:
        return self.url

    async def __aenter__(self) -> Self:
        from kodo.registry.client.signed_requests import check_private_url

        # Before a person is asked for a password in vain.
        check_private_url(self.url)
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def meet(self) -> None:
        """Ask the registry who it is; before anything else, and again before each login."""
        self.peer_id = (await self._client.registry_state()).peer_id or ""
        if not self.peer_id:
            raise PeerError(f"{self.url} does not name its peer id: it runs an earlier release")

    async def ask(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        """Make a call."""
        return await self._client.access(op, args or {})

    async def request(self, op: str, args: Mapping[str, Any] | None = None, *, repeat: bool = True) -> Any:
        """Make a call, as of a node; one that failed is not made again."""
        return await self.ask(op, args)

    def holds_until(self, until: int) -> None:
        """Nothing: each request shows the login anew."""

    def pages(self, op: str, args: Mapping[str, Any] | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Return the rows of a paged answer, page after page."""
        return read_pages(self.ask, op, args or {})


async def login_desk(remote: RemoteNode | RegistryDesk) -> Desk:
    """Return where one logs in to a node or registry."""
    return remote if isinstance(remote, RegistryDesk) else SessionDesk(await remote.session())


def named_desk(remote: RemoteNode | RegistryDesk) -> dict[str, str]:
    """Return what answers name a node or registry by."""
    if isinstance(remote, RegistryDesk):
        return {"registry": remote.url}
    return {"node": str(remote), "node_peer_id": str(remote.peer_id)}


async def log_in(
    keeper: LoginKeeper,
    remote: RemoteNode | RegistryDesk,
    code: str | None,
    name: str | None,
    password: str | None,
    issuer: str | None,
    show: Callable[[Prompt], None] | None,
    approve: Approve | None = None,
) -> dict[str, Any]:
    """Log in in the way for which something is given; see `Client.login`."""
    desk = await login_desk(remote)
    if code is not None:
        return await keeper.enrol(desk, code)
    if name is not None and password is not None:
        return await keeper.password(desk, name, password)
    if (issuer is not None or approve is not None) and show is not None:
        return await keeper.issuer(desk, issuer, show, approve)
    raise UsageError("log in with a code, with a name and password, or at an issuer")
