"""Rendezvous: nodes that wait at a registry, each proved by its key.

    node ── WebSocket ──► registry: challenge, proof, then the token of the registry's relay

A node proves its peer id once, by signing the registry's challenge together with the host name by which it knows the
registry: a registry that passes another's challenge on gets a proof that is good for itself alone. No I/O in here:
one `Lobby` holds who waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kodo.p2p.errors import BrokenSessionError, CallError, PeerError
from kodo.registry.records.signed import Signed, verify

__all__ = [
    "CHALLENGE_BYTES",
    "MAX_FRAME_BYTES",
    "REPLACED",
    "Guest",
    "Lobby",
    "LobbyBounds",
    "Presence",
    "ReplacedError",
    "check_presence",
]

CHALLENGE_BYTES = 32

REPLACED = 4000
"""Code by which a WebSocket is closed that a newer one of the same key has replaced."""

MAX_FRAME_BYTES = (16 << 10) + 256
"""Bound of a frame: a registry of 0.1.0 passes on offers of 16 KiB, which nodes read past."""


class ReplacedError(BrokenSessionError):
    """Somebody else with the same key waits at a registry in place of this node."""


class Presence(Signed):
    """A node is at the other end of this WebSocket.

    Attributes:
        host: name and port of the registry as the node dialled it, lower case.
        challenge: what the registry sent, `bytes[32]`.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/presence/1\n"

    v: Literal[1] = 1
    host: Annotated[str, Field(min_length=1, max_length=300)]
    challenge: Annotated[bytes, Field(min_length=CHALLENGE_BYTES, max_length=CHALLENGE_BYTES)]


def check_presence(signed: bytes, host: str, challenge: bytes) -> str:
    """Return the peer id that a proof proves.

    Raises:
        PeerError: it is malformed, or about another registry or challenge.
        IdentityError: its signature is not of the key that it names.
    """
    presence = verify(Presence, signed)
    if presence.challenge != challenge or presence.host != host.lower():
        raise PeerError("this proof answers another challenge, or was made for another registry")
    return presence.peer_id


@dataclass(frozen=True, slots=True)
class LobbyBounds:
    """How much a lobby holds.

    Attributes:
        nodes: nodes that wait at once.
        sockets: WebSockets from one source at once, proved or not.
    """

    nodes: int = 10_000
    sockets: int = 64


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """A node that waits. `leave` is called when another socket takes its place."""

    peer_id: str
    leave: Callable[[], None]


class Lobby:
    """Who waits here. One event loop."""

    def __init__(self, bounds: LobbyBounds | None = None) -> None:
        self.bounds = bounds or LobbyBounds()
        self._guests: dict[str, Guest] = {}
        self._sockets: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many nodes wait."""
        return len(self._guests)

    def arrive(self, source: str) -> None:
        """Count a WebSocket from `source`; each is to `depart`.

        Raises:
            CallError: 429, one source has too many; 503, the lobby is full.
        """
        if self._sockets[source] >= self.bounds.sockets:
            raise CallError(429, "too-many-sockets", f"{self.bounds.sockets} WebSockets are open from {source}")
        if self._sockets.total() >= 2 * self.bounds.nodes:
            raise CallError(503, "busy", "too many nodes wait here", {"retry_after_s": 60})
        self._sockets[source] += 1

    def depart(self, source: str) -> None:
        """Undo `arrive`."""
        self._sockets[source] -= 1
        if self._sockets[source] <= 0:
            del self._sockets[source]

    def enter(self, guest: Guest) -> None:
        """Count `guest` among those who wait; an older socket of the same node is told to leave.

        Raises:
            CallError: 503, the lobby is full.
        """
        before = self._guests.get(guest.peer_id)
        if before is None and len(self._guests) >= self.bounds.nodes:
            raise CallError(503, "busy", "too many nodes wait here", {"retry_after_s": 60})
        self._guests[guest.peer_id] = guest
        if before is not None:
            before.leave()

    def exit(self, guest: Guest) -> None:
        """Take `guest` out. Idempotent."""
        if self._guests.get(guest.peer_id) is guest:
            del self._guests[guest.peer_id]
