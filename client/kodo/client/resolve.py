"""From what a person types to a peer to dial: names, peer ids, addresses, flows and runs.

    NODE   a name | a peer id | a multiaddr
    FLOW   NODE/path | NODE/name | a path or name that is unique in what is found | something local
    RUN    NODE/FID | FID

In `NODE/rest` a multiaddr ends with its `/p2p/PEER`, any other NODE at its first slash. What follows is taken as it
is, so a path may have slashes: `/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEi…/p2p/12D3Koo…/flows/x.yaml`.

Names are claims. Whoever claims a name is looked for in every place at once; a name that two peer ids claim, or that
was another peer id before, is refused. Where it is found (local network, registry) proves nothing: the handshake
does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kodo.client.known_nodes import KnownNodes, check_name
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, KodoError, NotFoundError, UnreachableError, UsageError
from kodo.protocol.ids import is_id

__all__ = [
    "FarFinder",
    "Finder",
    "Found",
    "Reference",
    "Resolver",
    "StillAwayError",
    "Target",
    "Wanted",
    "is_local_flow",
    "parse_flow",
    "parse_run",
    "parse_schedule",
    "parse_share",
    "safe_text",
    "wait_for_far",
]

logger = logging.getLogger(__name__)

Source = Literal["home", "lan", "registry"]

LINGER_SECONDS = 1.5
"""How long the other places are still asked once one has answered for a name that is not pinned yet."""
FAR_SECONDS = 0.5
"""How long a far place that says nothing is waited for when the near ones have answered and know something."""
FAR_MOST_SECONDS = 2.5
"""How long it is waited for then at most after it was asked, however long the way to it is."""
SILENT_SECONDS = 5.0
"""How long it has where nothing was found near."""

_ADDRESS = re.compile(r"(/(?:ip4|ip6|dns4)/.+?/p2p/[^/]+)(?:/(.*))?\Z", re.DOTALL)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")
_PYTHON = re.compile(r"(?i).+\.py(:[A-Za-z_][\w.]*)?\Z")
_YAML = re.compile(r"(?i).+\.ya?ml\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """Something on a node: `node` as it was typed, None when none was; `rest` a flow's path or name, or a fid."""

    node: str | None
    rest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which node is looked for: by the name that it claims, or by its peer id.

    Attributes:
        pinned: the peer id that the name stands for, if that is known: once it is found nobody else is waited for.
    """

    name: str | None = None
    peer_id: PeerId | None = None
    pinned: PeerId | None = None

    def fits(self, name: str, peer_id: PeerId) -> bool:
        """Whether this node is meant."""
        return peer_id == self.peer_id if self.peer_id is not None else name == self.name


@dataclass(frozen=True, slots=True)
class Found:
    """A node as some place tells of it; nothing of it is proved but in `home`.

    Attributes:
        source: `home` (it runs from this user's own home folder), `lan` or `registry`.
        row: what else that place says, for people and scripts.
    """

    peer_id: PeerId
    name: str
    addresses: tuple[Multiaddr, ...]
    source: Source
    row: Mapping[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Return what is known of it as filters see it."""
        return {"state": "online", **self.row, "name": self.name, "peer_id": str(self.peer_id)}


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to dial.

    Attributes:
        name: set when it was asked for by name, which is to be pinned once it proved its key.
        given: whether it was asked for by its address, and so may be nowhere to be found without it.
    """

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...]
    name: str | None = None
    given: bool = False


class Finder(Protocol):
    """One place where nodes are found."""

    label: str
    """For messages: which place this is."""

    async def find(self, wanted: Wanted | None) -> list[Found]:
        """Return the nodes that fit, all of them for None; comes back early when what is wanted was found.

        Raises:
            KodoError: this place could not be asked.
        """
        ...


class FarFinder(Finder, Protocol):
    """A place that others are not kept waiting for: it may be there, take what it is asked, and say nothing."""

    @property
    def answering(self) -> bool:
        """Whether something of the answer has come since it was asked last."""
        ...

    @property
    def needs_seconds(self) -> float:
        """How long after it is asked an answer may come, by the way to it; 0 where that is not known."""
        ...

    def leave_out(self, seconds: float) -> None:
        """Take note, and tell, that it said nothing for so long."""
        ...


class StillAwayError(UnreachableError):
    """A place did not answer a moment ago, which was told then, and is not asked again yet."""


async def wait_for_far(asked: Mapping[asyncio.Task[Any], FarFinder], began: float, *, found: bool) -> None:
    """Wait for far places after near ones have answered. Who has said nothing in time is cancelled, and left out.

    Args:
        asked: what waits for each of them.
        began: when they were asked, in the loop's time.
        found: whether the near ones know something.
    """
    now = asyncio.get_running_loop().time()
    until = now + FAR_SECONDS if found else max(now, began + SILENT_SECONDS)
    pending = {task for task in asked if not task.done()}
    if pending:
        _, pending = await asyncio.wait(pending, timeout=until - now)
    # Where the way is so long that no answer can have come yet, it is waited for.
    due = max((asked[task].needs_seconds for task in pending if not asked[task].answering), default=0.0)
    late = began + min(due, FAR_MOST_SECONDS)
    if pending and found and late > until:
        _, pending = await asyncio.wait(pending, timeout=late - until)
        until = late
    for task in pending:
        if not asked[task].answering:
            task.cancel()
            asked[task].leave_out(until - began)
    if pending:
        await asyncio.wait(pending)


def safe_text(value: object, limit: int = 200) -> str:
    """Return text from elsewhere as one printable line for an error message."""
    text = "".join(character if character.isprintable() else "�" for character in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_local_flow(text: str) -> bool:
    """Whether FLOW is something local: `./x.yaml`, `dir/x.py:flow` or `module:attr`.

    `dir/x.yaml` is, where there is such a file; else it is the flow `x.yaml` of a node `dir`.
    """
    if _ADDRESS.match(text):
        return False
    if text.startswith(("./", "../", "/", "~/")) or _MODULE.match(text) or _PYTHON.match(text):
        return True
    return _YAML.match(text) is not None and ("/" not in text or os.path.isfile(text))


def parse_flow(text: str) -> Reference:
    """Read FLOW when it is not local. `a/b` is flow `b` of node `a` here; callers may fall back to flow `a/b`.

    Raises:
        UsageError: an address without a peer id or without a flow.
    """
    reference = _split(text, "a flow's path or name")
    if not reference.rest:
        raise UsageError(f"{safe_text(text)!r} names a node but no flow; write NODE/FLOW")
    return reference


def parse_run(text: str) -> Reference:
    """Read RUN.

    Raises:
        UsageError: there is no fid in it.
    """
    return _parse_id(text, "fid", "koco ps")


def parse_share(text: str) -> Reference:
    """Read `NODE/SID` or a sid.

    Raises:
        UsageError: there is no sid in it.
    """
    return _parse_id(text, "sid", "koco shares")


def parse_schedule(text: str) -> Reference:
    """Read `NODE/SID` or a sid, of a schedule.

    Raises:
        UsageError: there is no sid in it.
    """
    return _parse_id(text, "sid", "koco schedules")


def _parse_id(text: str, what: str, listed_by: str) -> Reference:
    reference = _split(text, f"a {what}")
    if not is_id(reference.rest):
        raise UsageError(
            f"{safe_text(reference.rest)!r} is not a {what}: it has 26 characters, as `{listed_by}` shows them"
        )
    return reference


def _split(text: str, what: str) -> Reference:
    if match := _ADDRESS.match(text):
        return Reference(match[1], match[2] or "")
    if text.startswith(("/ip4/", "/ip6/", "/dns4/")):
        raise UsageError(f"{safe_text(text)!r} has no /p2p/PEER in it; write the whole address, then /, then {what}")
    node, slash, rest = text.partition("/")
    return Reference(node, rest) if slash and node and rest else Reference(None, text)


class Resolver:
    """Finds nodes in several places at once.

    Args:
        finders: the places; one that fails is told of in the log and does not hurt.
        known: the pins.
        linger: seconds, `LINGER_SECONDS`.
        far: further places, which near ones need not wait for.
    """

    def __init__(
        self,
        finders: Sequence[Finder],
        known: KnownNodes,
        *,
        linger: float = LINGER_SECONDS,
        far: Sequence[FarFinder] = (),
    ):
        self._finders = finders
        self._far = far
        self._known = known
        self._linger = linger

    async def all(self) -> list[Found]:
        """Return every node that is found; one that is found in several places comes once for each."""
        found, _ = await self._ask(None, lambda _: False)
        return found

    async def node(self, text: str) -> Target:
        """Find the node that NODE means.

        Raises:
            UsageError: it is not a NODE.
            NotFoundError: nobody claims that name.
            UnreachableError: it is known, but nowhere to be found now.
            IdentityError: several peer ids claim the name, or another one than before.
        """
        if text.startswith("/"):
            return _from_address(text)
        try:
            peer_id = PeerId.parse(text)
        except ValueError:
            return await self._by_name(check_name(text))
        addresses = await self.addresses(peer_id)
        if not addresses:
            raise UnreachableError(f"{peer_id} was not found; give its address if you know it")
        return Target(peer_id, addresses)

    async def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses at which a peer is said to be now; none when it is not found."""
        found, _ = await self._ask(Wanted(peer_id=peer_id), lambda found: any(each.addresses for each in found))
        return _merge(found, peer_id)

    async def _by_name(self, name: str) -> Target:
        pinned = self._known.get(name)

        def settled(found: Sequence[Found]) -> bool:
            # Our own node, or the pinned one: no later claim could change what is dialled.
            return any(each.source == "home" or each.peer_id == pinned for each in found)

        found, away = await self._ask(Wanted(name=name, pinned=pinned), settled)
        claims = sorted({each.peer_id for each in found})
        if pinned is not None:
            for claim in claims:
                self._known.check(name, claim)
        if len(claims) > 1:
            raise IdentityError(
                f"{len(claims)} peer ids claim the name {name!r}: {', '.join(map(str, claims))}; "
                "name the one you mean by its peer id"
            )
        addresses = _merge(found, claims[0]) if claims else ()
        if addresses:
            return Target(claims[0], addresses, name)
        hint = f" ({', '.join(away)} could not be asked)" if away else ""
        if pinned is not None or claims:
            raise UnreachableError(f"the node {name!r} was not found{hint}")
        raise NotFoundError(f"no node named {name!r} was found; `koco nodes` lists the nodes{hint}")

    async def _after(
        self,
        near: Collection[asyncio.Task[None]],
        far: Mapping[asyncio.Task[None], FarFinder],
        began: float,
        found: Sequence[Found],
    ) -> None:
        """Leave out far places that say nothing, once the near ones have answered."""
        if near:
            await asyncio.wait(near)
        await wait_for_far(far, began, found=bool(found))

    async def _ask(
        self, wanted: Wanted | None, settled: Callable[[Sequence[Found]], bool]
    ) -> tuple[list[Found], list[str]]:
        """Ask all places; give what fits, and the places that failed. Each finder bounds its own time."""
        found: list[Found] = []
        away: list[str] = []

        async def ask(finder: Finder) -> None:
            try:
                rows = await finder.find(wanted)
            except StillAwayError:
                away.append(finder.label)
                return
            except KodoError as error:
                logger.warning("%s: %s", finder.label, error)
                away.append(finder.label)
                return
            found.extend(row for row in rows if wanted is None or wanted.fits(row.name, row.peer_id))

        loop = asyncio.get_running_loop()
        began = loop.time()
        far: dict[asyncio.Task[None], FarFinder] = {asyncio.create_task(ask(finder)): finder for finder in self._far}
        near = {asyncio.create_task(ask(finder)) for finder in self._finders}
        far_waits = asyncio.ensure_future(self._after(near, far, began, found))
        tasks = {*near, *far}
        try:
            pending, until = tasks, None
            while pending and not settled(found):
                if wanted is not None and found and until is None:
                    until = loop.time() + self._linger
                left = None if until is None else max(until - loop.time(), 0)
                done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.cancelled():
                        away.append(far[task].label)
                    else:
                        task.result()
                if not done:
                    break
        finally:
            for task in (far_waits, *tasks):
                task.cancel()
            await asyncio.gather(far_waits, *tasks, return_exceptions=True)
        return found, away


def _from_address(text: str) -> Target:
    try:
        address = Multiaddr.parse(text)
    except ValueError as error:
        raise UsageError(f"not an address: {error}") from None
    if address.peer_id is None:
        raise UsageError("the address does not end with /p2p/PEER, so it does not say who is there")
    return Target(address.peer_id, (address,), given=True)


def _merge(found: Sequence[Found], peer_id: PeerId) -> tuple[Multiaddr, ...]:
    order: dict[str, int] = {"home": 0, "lan": 1, "registry": 2}
    mine = sorted((each for each in found if each.peer_id == peer_id), key=lambda each: order[each.source])
    return tuple(dict.fromkeys(address for each in mine for address in each.addresses if address.peer_id == peer_id))
