"""Rendezvous: sealed offers to nodes that cannot be dialled, and sealed answers back.

    caller ── POST /rendezvous/{peer_id} ──► registry ── WebSocket ──► node
           ◄───────── sealed answer ───────          ◄── by number ──

A node proves its peer id once, by signing the registry's challenge together with the host name by which it knows the
registry: a registry that passes another's challenge on gets a proof that is good for itself alone. What is relayed
is an HPKE message (RFC 9180) that only its receiver can open: the registry checks its outer form and its size, and
keeps it no longer than the call lasts. Nothing of it is logged. No I/O in here: one `Lobby` holds who waits for whom.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import BrokenSessionError, CallError, DeadlineError, PeerError
from kodo.registry.records.signed import Signed, pack, unpack, verify

__all__ = [
    "ANSWER_S",
    "CHALLENGE_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_SEALED_BYTES",
    "REPLACED",
    "Guest",
    "Lobby",
    "LobbyBounds",
    "Presence",
    "ReplacedError",
    "check_presence",
    "check_sealed",
    "read_answer",
]

CHALLENGE_BYTES = 32

REPLACED = 4000
"""Code by which a WebSocket is closed that a newer one of the same key has replaced."""

MAX_SEALED_BYTES = 16 << 10
"""Bound of a sealed message: an offer with every candidate is about 2 KiB."""

MAX_FRAME_BYTES = MAX_SEALED_BYTES + 256

ANSWER_S = 30.0
"""Seconds that a caller waits: as long as an offer holds."""

_ENC_BYTES = 32
"""An encapsulated X25519 key (RFC 9180, section 7.1)."""

_TAG_BYTES = 16


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


def check_sealed(data: bytes) -> bytes:
    """Check the outer form of a sealed message, `{"v": 1, "enc": bytes[32], "ct": bytes}`, and give it back.

    Raises:
        PeerError: it is something else, or over a bound.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise PeerError(f"a sealed message has at most {MAX_SEALED_BYTES} bytes")
    sealed = unpack(data)
    if not isinstance(sealed, dict) or sealed.keys() != {"v", "enc", "ct"} or sealed["v"] != 1:
        raise PeerError("not a sealed message: a map of v = 1, enc and ct")
    enc, ct = sealed["enc"], sealed["ct"]
    if not isinstance(enc, bytes) or len(enc) != _ENC_BYTES or not isinstance(ct, bytes) or len(ct) <= _TAG_BYTES:
        raise PeerError(f"not a sealed message: enc has {_ENC_BYTES} bytes, ct more than {_TAG_BYTES}")
    return data


def read_answer(frame: bytes) -> tuple[int, bytes | None]:
    """Read what a node says: `{"id": int, "answer": sealed}`, or `{"id": int, "refused": true}`.

    Returns:
        The number of the offer, and the sealed answer; None when the node refused.

    Raises:
        PeerError: it is something else.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise PeerError(f"a frame has at most {MAX_FRAME_BYTES} bytes")
    said = unpack(frame)
    if not isinstance(said, dict) or not isinstance(said.get("id"), int) or isinstance(said.get("id"), bool):
        raise PeerError("an answer names its offer by `id`")
    if said.keys() == {"id", "refused"} and said["refused"] is True:
        return said["id"], None
    if said.keys() != {"id", "answer"} or not isinstance(said["answer"], bytes):
        raise PeerError("an answer is sealed, or `refused`")
    return said["id"], check_sealed(said["answer"])


@dataclass(frozen=True, slots=True)
class LobbyBounds:
    """How much a lobby holds.

    Attributes:
        nodes: nodes that wait at once.
        sockets: WebSockets from one source at once, proved or not.
        offers: offers under way to one node at once.
        calls: offers under way from one source at once.
        in_all: offers under way at once.
        answer_s: seconds that an offer waits for its answer.
    """

    nodes: int = 10_000
    sockets: int = 64
    offers: int = 16
    calls: int = 8
    in_all: int = 1024
    answer_s: float = ANSWER_S


@dataclass(slots=True, eq=False)
class Guest:
    """A node that waits. `send` takes a frame; `leave` is called when another socket takes its place."""

    peer_id: str
    send: Callable[[bytes], Awaitable[None]]
    leave: Callable[[], None]
    offers: dict[int, asyncio.Future[bytes | None]] = field(default_factory=dict)


class Lobby:
    """Who waits here, and which offers are under way. One event loop; nothing in it outlives its call."""

    def __init__(self, bounds: LobbyBounds | None = None) -> None:
        self.bounds = bounds or LobbyBounds()
        self._guests: dict[str, Guest] = {}
        self._sockets: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._last = 0

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
        _lower(self._sockets, source)

    def enter(self, guest: Guest) -> None:
        """Send offers for `guest.peer_id` to it; an older socket of the same node is told to leave.

        Raises:
            CallError: 503, the lobby is full.
        """
        before = self._guests.get(guest.peer_id)
        if before is None and len(self._guests) >= self.bounds.nodes:
            raise CallError(503, "busy", "too many nodes wait here", {"retry_after_s": 60})
        self._guests[guest.peer_id] = guest
        if before is not None:
            _abandon(before)
            before.leave()

    def exit(self, guest: Guest) -> None:
        """Take `guest` out; its offers end unanswered. Idempotent."""
        if self._guests.get(guest.peer_id) is guest:
            del self._guests[guest.peer_id]
        _abandon(guest)

    def answered(self, guest: Guest, frame: bytes) -> None:
        """Hand a node's answer to who waits for it; one that comes too late is dropped.

        Raises:
            PeerError: it is not an answer.
        """
        number, answer = read_answer(frame)
        waiting = guest.offers.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def offer(self, peer_id: PeerId, sealed: bytes, source: str) -> bytes:
        """Pass a sealed offer on and give the sealed answer. Cancelling is safe.

        Raises:
            PeerError: it is not sealed.
            CallError: 404 `not-here`, 403 `refused` by the node, 429 too many under way, 502 `gone` meanwhile.
            DeadlineError: no answer in time.
        """
        check_sealed(sealed)
        guest = self._guests.get(str(peer_id))
        if guest is None:
            raise CallError(404, "not-here", f"{peer_id} is not waiting here; try its addresses, or another registry")
        bounds = self.bounds
        full = self._calls.total() >= bounds.in_all or len(guest.offers) >= bounds.offers
        if full or self._calls[source] >= bounds.calls:
            raise CallError(429, "too-often", "too many offers are under way; try later", {"retry_after_s": 1})
        self._last += 1
        number = self._last
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        guest.offers[number] = future
        self._calls[source] += 1
        try:
            async with asyncio.timeout(bounds.answer_s):
                await guest.send(pack({"id": number, "offer": sealed}))
                answer = await future
        except TimeoutError:
            raise DeadlineError(f"the node did not answer within {bounds.answer_s:.0f} s") from None
        except ConnectionError:
            raise _gone() from None
        finally:
            guest.offers.pop(number, None)
            _lower(self._calls, source)
        if answer is None:
            raise CallError(403, "refused", "the node refuses this offer")
        return answer


def _abandon(guest: Guest) -> None:
    for waiting in guest.offers.values():
        if not waiting.done():
            waiting.set_exception(_gone())
    guest.offers.clear()


def _gone() -> CallError:
    return CallError(502, "gone", "the node's connection to this registry ended; try again")


def _lower(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
