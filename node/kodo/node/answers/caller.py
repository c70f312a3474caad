"""A call as its handler gets it: who asks, and the way back."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kodo.p2p.core.hosts import source_of
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal, account_of

__all__ = [
    "OPEN_OPS",
    "Asked",
    "Caller",
    "Handler",
    "Handlers",
    "Links",
    "account_paying",
    "bind_link",
    "by_link",
    "check_admitted",
    "granted",
    "links_of",
    "payer_of",
]


class Asked(Protocol):
    """What the service needs of a call: `kodo.p2p.net.calls.Request` has it."""

    op: str
    args: dict[str, Any]

    @property
    def session(self) -> Any:
        """The session that the call came by."""
        ...

    async def send(self, item: Any) -> None:
        """Send an item."""
        ...

    async def send_frames(self, frames: bytes) -> None:
        """Send items that are encoded already."""
        ...

    def abort(self) -> None:
        """Break the call off: of what was sent nothing more arrives, and no end either."""
        ...

    def uploads(self) -> AsyncIterator[bytes]:
        """Return the bytes that follow the args."""
        ...

    def arrived(self) -> Iterator[bytes]:
        """Return those of them that are here and were not given."""
        ...


Links = Mapping[str, Collection[bytes]]
"""By fid: the SHA-256 of the secrets of the links that a session has opened."""

_LINKS = "links"
MAX_LINKS = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the provider said for this call, and the call itself.

    Attributes:
        payer: against whose bounds counts what it takes; see `payer_of`.
    """

    principal: Principal
    asked: Asked
    payer: str = ""

    @property
    def peer(self) -> str:
        """The peer id that the session proved."""
        return str(self.asked.session.remote_peer)

    @property
    def source(self) -> str:
        """Where the session comes from: an IPv4 address, an IPv6 /64, or this machine."""
        return source_of(self.asked.session.remote_address[0])

    @property
    def links(self) -> Links:
        """What this session has opened."""
        return links_of(self.asked.session)


def payer_of(principal: Principal, session: Any) -> str:
    """Return against whose bounds counts what a caller takes: places, runs, uploads, reads.

    That is its account. But who has not logged in makes peer ids at will, so there it is the session's source: for
    everybody where nobody logs in, but the operator, who must not be kept out by who else works on this machine, and
    elsewhere for who holds a link.
    """
    account = account_paying(principal)
    return source_of(session.remote_address[0]) if account is None else account


def account_paying(principal: Principal) -> str | None:
    """Return the account against whose bounds counts what a principal takes; None if it has none."""
    return account_of(principal.id) if principal.operator or principal.user is not None else None


def links_of(session: Any) -> Links:
    """Return the links that a session has opened."""
    found: Links = session.bindings.get(_LINKS, {})
    return found


def bind_link(session: Any, fid: str, digest: bytes) -> None:
    """Remember that a session has opened a link; gone with the session.

    Raises:
        CallError: 429 `too-many-links`.
    """
    links: dict[str, set[bytes]] = session.bindings.setdefault(_LINKS, {})
    if digest not in links.get(fid, ()) and sum(map(len, links.values())) >= MAX_LINKS:
        raise CallError(429, "too-many-links", f"this session has opened {MAX_LINKS} links; open a new session")
    links.setdefault(fid, set()).add(digest)


Handler = Callable[[Caller, Any], Awaitable[Any]]
Handlers = Mapping[str, Handler]
"""By op: takes the caller and the op's parsed args, gives the `done`."""


OPEN_OPS = frozenset(
    ["auth.info", "auth.login", "auth.password", "auth.enrol", "auth.logout", "auth.whoami", "share.open"]
)
"""What everybody may ask whom the node answers at all: how to log in, and to be let in by a link."""

_BY_LINK = frozenset(["run.state", "run.stream", "lock.get", "output.list", "output.manifest", "output.read"])
"""What the holder of a run's link may ask about that run without being known to the node otherwise."""


def check_admitted(op: str, principal: Principal, node: str) -> None:
    """Admit callers who may deal with the node called `node`; nothing else was looked at before.

    Raises:
        CallError: 401 `login-needed`, 403 `not-admitted`.
    """
    if op in OPEN_OPS or principal.enters(node):
        return
    if principal.user is None:
        how = f"koco login --node {shlex.quote(node)}"
        raise CallError(401, "login-needed", f"this node requires a login: {how}")
    raise CallError(403, "not-admitted", f"you have no grant node://{node}; ask the operator of the node for it")


def by_link(op: str, fid: str | None, links: Links, peer: str) -> Principal | None:
    """Return whom a call comes from that only the link of its run lets in: nobody, with no grant and no run."""
    return Principal("", peer, roles=frozenset()) if op in _BY_LINK and fid is not None and fid in links else None


def granted(principal: Principal) -> Callable[[str], bool]:
    """Return the test whether a flow, by its path, may be seen at all."""
    return lambda path: principal.flow_grant(path, "r") is not None
