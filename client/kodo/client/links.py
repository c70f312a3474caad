"""Links and shares as their users deal with them: what was made, and a node that is reached by a link.

A node is looked for where the link says it was, then on the local network and in this home, then in the registries
that are configured, by its peer id. The registry that the link names is asked last, and only when the user agrees: it
would learn that somebody looks for that node.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kodo.client.finders import RegistryFinder
from kodo.client.known_nodes import KnownNodes, is_name
from kodo.client.peer import RemoteNode
from kodo.client.resolve import Resolver, Target, safe_text
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import (
    CallError,
    DeadlineError,
    IdentityError,
    NetworkError,
    PeerError,
    UnreachableError,
    UsageError,
)
from kodo.p2p.net.calls import request
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.protocol.access import Role
from kodo.protocol.link import Link, parse_link, write_link
from kodo.protocol.texts import several

__all__ = ["Confirm", "LinkedNode", "Share", "page_url", "read_link", "revoke_share", "share_with"]

logger = logging.getLogger(__name__)

Confirm = Callable[[str], bool | Awaitable[bool]]
"""Asked with a registry's URL whether it may be asked for a node."""

_OPENED = "opened links"
_BUILT_IN = (Role.OPERATOR, Role.DEVELOPER, Role.USER)


@dataclass(frozen=True, slots=True)
class Share:
    """A share that was made; as text its link, which opens the run to whoever has it.

    Attributes:
        link, token: None when it is for users and roles.
        expires_at: ms UTC.
    """

    sid: str
    fid: str
    level: int
    mode: str
    expires_at: int
    link: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.link or self.sid

    def at(self, host: str) -> str:
        """Return the link that opens in kodo's page at `host`, a URL such as `https://flows.example.com`.

        Raises:
            UsageError: `host` is no URL of a page, or the share has no link.
        """
        if self.token is None:
            raise UsageError("a share with users and roles has no link; they find the run in their lists")
        return write_link(self.token, page_url(host))

    @classmethod
    def from_wire(cls, fid: str, answer: Any) -> Share:
        """Read the answer of `run.share`.

        Raises:
            PeerError: it is not a share.
        """
        try:
            terms = (str(answer["sid"]), fid, int(answer["level"]), str(answer["mode"]), int(answer["expires_at"]))
            link, token = answer.get("link"), answer.get("token")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PeerError("the answer to run.share is malformed") from None
        return cls(*terms, None if link is None else str(link), None if token is None else str(token))


def share_with(to: str | Sequence[str]) -> dict[str, list[str]]:
    """Read for whom a share is: `user:NAME`, `role:NAME`, a peer id, the name of a built-in role, or a user's name.

    Raises:
        UsageError: an empty name.
    """
    users: list[str] = []
    roles: list[str] = []
    for word in several(to):
        kind, colon, name = word.partition(":")
        if not colon or kind not in ("user", "role"):
            kind, name = ("role" if word in _BUILT_IN else "user"), word
        if not name.strip():
            raise UsageError(f"{safe_text(word)!r} names no user or role; write user:NAME, role:NAME or a peer id")
        (users if kind == "user" else roles).append(name.strip())
    return {"users": users, "roles": roles}


def page_url(text: str) -> str:
    """Return the URL of a page that opens links, without a slash at its end.

    Raises:
        UsageError: it is no http or https URL, or has a user, a query or a fragment.
    """
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    unfit = set("?#@\\<>\"'") & set(text)
    if not is_url or unfit or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{safe_text(text)!r} is not the URL of a page; write https://HOST or http://HOST:PORT")
    return text.rstrip("/")


def read_link(text: str) -> Link:
    """Read a link.

    Raises:
        UsageError: it is not a link; the message says what is wrong and repeats nothing of it.
    """
    try:
        return parse_link(text)
    except ValueError as error:
        raise UsageError(f"this is not a link: {error}") from None


async def revoke_share(remote: RemoteNode, sid: str) -> dict[str, Any] | None:
    """Revoke a share on a node; give its answer, None when it knows no such share of this user's."""
    try:
        answer = await remote.request("share.revoke", {"sid": sid})
    except CallError as error:
        if error.code == 404:
            return None
        raise
    if not isinstance(answer, Mapping) or answer.get("sid") != sid:
        raise PeerError("the answer to share.revoke is not about that share")
    return {str(key): value for key, value in answer.items()}


class _Places:
    """Where the node of a link is looked for, once it is not where the link says."""

    def __init__(self, link: Link, near: Resolver, registries: Resolver, known: KnownNodes, confirm: Confirm | None):
        self._link = link
        self._steps = [near, registries]
        self._known = known
        self._confirm = confirm
        self.unasked: str | None = link.registry

    async def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        """Return addresses at which the node is said to be, other than the link's; none when it is not found."""
        tried = set(self._link.addresses)
        for step in self._steps:
            found = await step.addresses(peer_id)
            if not set(found) <= tried:
                return found
        registry = self._link.registry
        if registry is not None and self._confirm is not None:
            answer = self._confirm(registry)
            if await answer if inspect.isawaitable(answer) else answer:
                self.unasked = None
                self._confirm = None
                self._steps.append(Resolver([RegistryFinder(registry, 10.0)], self._known))
                return await self._steps[-1].addresses(peer_id)
        return ()


class LinkedNode(RemoteNode):
    """A node that is reached by a link, which every session to it opens first.

    Args:
        near, registries: where to look for it besides, in this order; what the link names is pinned by its peer id.
        confirm: whether the registry that the link names may be asked; nobody is asked where it is configured.
    """

    def __init__(
        self,
        link: Link,
        host: Host,
        near: Resolver,
        registries: Resolver,
        known: KnownNodes,
        *,
        timeout: float,
        confirm: Confirm | None = None,
    ):
        self._places = _Places(link, near, registries, known, confirm)
        super().__init__(Target(link.peer_id, link.addresses), host, self._places, known, timeout=timeout)
        self._link = link
        self._opening = asyncio.Lock()
        self._key = hashlib.sha256(link.secret).digest()
        self.told: dict[str, Any] = {}

    by_link = True

    @property
    def opens(self) -> str:
        """The fid of the link's run, or the sid of its invitation."""
        return self._link.fid

    async def session(self) -> Session:
        """Return a session in which the link is open.

        Raises:
            CallError: 410 `expired`, `used-up`, `revoked` or `deleted`; 404 `no-such-link`.
            UnreachableError: the node is away; whoever answers in its place got nothing.
        """
        try:
            session = await super().session()
        except (NetworkError, DeadlineError, IdentityError) as error:
            hint = safe_text(self._places.unasked or "")
            more = f"; the link says that a registry may know it: --registry {shlex.quote(hint)}" if hint else ""
            raise UnreachableError(f"the node of this link cannot be reached now: {error}{more}") from error
        async with self._opening:
            opened: dict[bytes, dict[str, Any]] = session.bindings.setdefault(_OPENED, {})
            if self._key not in opened:
                answer = await request(session, "share.open", {"secret": self._link.secret}, timeout=self._timeout)
                if not isinstance(answer, Mapping):
                    raise PeerError(f"the answer of {self.peer_id} to share.open is not a map")
                opened[self._key] = {str(key): value for key, value in answer.items()}
            told = opened[self._key]
            if told.get("fid") != self._link.fid:
                raise PeerError(f"{self.peer_id} opened another run than the link is for")
            self.told = told
            node = self.told.get("node")
            if isinstance(node, Mapping) and is_name(node.get("name")):
                self.label = node["name"]
        return session
