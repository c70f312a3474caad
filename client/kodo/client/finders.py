"""The places where nodes are found: this user's own home, the local network, registries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.client.resolve import Found, StillAwayError, Wanted
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError, DeadlineError, NotFoundError, UnreachableError
from kodo.p2p.net.interfaces import local_addresses

if TYPE_CHECKING:
    from kodo.p2p.net.discovery import Advertisement, Browser
    from kodo.registry.client.client import RegistryClient
    from kodo.registry.client.signed_requests import Claimant

__all__ = [
    "HOME_NODE_FILE",
    "HomeFinder",
    "LanFinder",
    "RegistryFinder",
    "found_in",
    "read_home_node",
    "tell_refused",
]

logger = logging.getLogger(__name__)

HOME_NODE_FILE = "node.json"
MAX_FILE_BYTES = 1 << 16
SECOND_CLAIM_SECONDS = 0.3
"""How long to listen on for a second claimant of a name: mDNS answers come within 120 ms (RFC 6762, 6)."""

GLANCE_SECONDS = 0.25
"""How long to listen at least: a question goes out within 120 ms (RFC 6762, 5.2), an answer within 120 ms of it."""

AWAY_SECONDS = 30.0
"""How long a registry is not asked again that has just not answered: a command asks several times."""

AS_LONG_AGAIN = 1.5
"""An answer takes no longer than the connection took, which was a round trip at least, and a little."""

MAX_ROWS = 10_000
"""Bound of what is taken from one registry for one listing."""


def read_home_node(home: Path) -> dict[str, Any] | None:
    """Return what the node that runs from `home` says of itself: `pid, peer_id, name, addrs`; None when none runs."""
    try:
        with (home / HOME_NODE_FILE).open("rb") as file:
            value = json.loads(file.read(MAX_FILE_BYTES))
        os.kill(int(value["pid"]), 0)
    except PermissionError:
        return None  # that process is not ours, so it is not the one that wrote the file
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, dict) else None


class HomeFinder:
    """The node that runs from this user's own home folder, if one does: found without any network."""

    label = "this home"

    def __init__(self, home: Path):
        self._home = home

    async def find(self, wanted: Wanted | None) -> list[Found]:
        """Read `node.json`."""
        value = read_home_node(self._home)
        if value is None:
            return []
        try:
            peer_id = PeerId.parse(str(value["peer_id"]))
            addresses = tuple(Multiaddr.parse(str(text)) for text in value["addrs"])
        except (KeyError, TypeError, ValueError):
            logger.warning("%s is damaged; it is made anew when the node starts", self._home / HOME_NODE_FILE)
            return []
        return [Found(peer_id, str(value.get("name", "")), addresses, "home", {"online": True})]


PATIENCE = 3.0


class LanFinder:
    """The local network. One browser listens for names as long as the client lives; `aclose` ends it.

    Args:
        seconds: how long to look around; longer, up to `PATIENCE` times, while nothing that is wanted was found:
            on a busy machine or network an answer takes its time.
        browse: makes a browser.
        expected: gives the peer ids that are here as a rule: once all of them are found nobody else is waited for.
    """

    label = "the local network"

    def __init__(
        self,
        seconds: float,
        *,
        browse: Callable[[], Browser] | None = None,
        expected: Callable[[], Collection[PeerId]] = frozenset,
    ):
        self._seconds = seconds
        self._browse = browse or _browser
        self._expected = expected
        self._kept: Browser | None = None
        self._stack = contextlib.AsyncExitStack()
        self._places: Sequence[str] = ()

    async def find(self, wanted: Wanted | None) -> list[Found]:
        """Browse; raises NetworkError when multicast cannot be used."""
        if wanted is not None and wanted.name is not None:
            found = await self._look(await self._listening(), wanted)
            if len({each.peer_id for each in found}) <= 1:
                return found
            # Who left without a word is remembered for an hour, and a claim of nobody must not count.
        # A list, and a node that is not where it was: whoever is there now, from nobody's memory.
        async with self._browse() as browser:
            return await self._look(browser, wanted)

    def glance(self, expected: Callable[[], Collection[PeerId]]) -> LanFinder:
        """Return a finder on the same network that looks around no longer once those who are `expected` are there."""
        return LanFinder(self._seconds, browse=self._browse, expected=expected)

    async def aclose(self) -> None:
        """Stop listening; idempotent."""
        self._kept = None
        await self._stack.aclose()

    async def _listening(self) -> Browser:
        places = local_addresses()
        if places != self._places:
            await self.aclose()  # the machine is on another network by now, and the browser was on the former
        if self._kept is None:
            self._kept = await self._stack.enter_async_context(self._browse())
            self._places = places
        return self._kept

    async def _look(self, browser: Browser, wanted: Wanted | None) -> list[Found]:
        if wanted is not None and wanted.pinned is not None:
            browser.ask_for(str(wanted.pinned))

        def fitting() -> list[Found]:
            found = map(_from_lan, browser.nodes())
            return [each for each in found if wanted is None or wanted.fits(each.name, each.peer_id)]

        def pinned() -> bool:
            return wanted is not None and any(each.peer_id == wanted.pinned for each in fitting())

        try:
            async with asyncio.timeout(PATIENCE * self._seconds):
                if wanted is None:
                    await self._look_around(browser)
                async for _ in browser.changes():
                    if fitting():
                        break
        except TimeoutError:
            return []
        if wanted is not None and wanted.name is not None and not pinned():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECOND_CLAIM_SECONDS):
                    async for _ in browser.changes():
                        if pinned():
                            break
        return fitting()

    async def _look_around(self, browser: Browser) -> None:
        expected = set(map(str, self._expected()))
        loop = asyncio.get_running_loop()
        began = loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await asyncio.sleep(GLANCE_SECONDS if expected else self._seconds)
                async for nodes in browser.changes():
                    if expected <= {each.peer_id for each in nodes}:
                        break
                # Where machine or network is slow today, those who are new here are slow, too.
                await asyncio.sleep(2 * max(0.0, loop.time() - began - GLANCE_SECONDS))


def _browser() -> Browser:
    from kodo.p2p.net.discovery import Browser  # listens to multicast, which takes long to import

    return Browser()


def _from_lan(node: Advertisement) -> Found:
    row = {"flows": node.flows, "online": True}
    return Found(PeerId.parse(node.peer_id), node.name, node.addresses, "lan", row)


class RegistryFinder:
    """One registry.

    Args:
        url: its base URL.
        timeout: seconds that it may take to answer.
        query: lists only the nodes for which this filter holds.
        claimant: who asks, where the registry wants to know.
    """

    def __init__(self, url: str, timeout: float, *, query: str | None = None, claimant: Claimant | None = None):
        self.url = url
        self.label = f"the registry {url}"
        self.claimant = claimant
        self.refused: CallError | None = None
        """Why a listing gave nothing the last time: this user may not read it."""
        self._timeout = timeout
        self._query = query
        self._answering = False
        self._began = 0.0
        self._needs_s = 0.0
        self._away_until = [0.0]
        """In the loop's time; shared with those that `narrowed` made."""

    @property
    def answering(self) -> bool:
        """See `resolve.FarFinder`."""
        return self._answering

    @property
    def needs_seconds(self) -> float:
        """See `resolve.FarFinder`."""
        return self._needs_s

    def leave_out(self, seconds: float) -> None:
        """See `resolve.FarFinder`."""
        self._is_away()
        logger.warning("%s: no answer within %.1f s; it is left out", self.label, seconds)

    def narrowed(self, query: str) -> RegistryFinder:
        """Return a finder in the same registry that lists only what `query` holds for."""
        made = RegistryFinder(self.url, self._timeout, query=query, claimant=self.claimant)
        made._away_until = self._away_until
        return made

    def _begin(self) -> None:
        """Begin to ask.

        Raises:
            StillAwayError: it has just not answered.
        """
        self.refused = None
        self._answering = False
        self._began, self._needs_s = asyncio.get_running_loop().time(), 0.0
        if self._began < self._away_until[0]:
            raise StillAwayError(f"{self.label} did not answer a moment ago")

    def _is_away(self) -> None:
        self._away_until[0] = asyncio.get_running_loop().time() + AWAY_SECONDS

    def _answers(self) -> None:
        self._answering = True

    def _is_connected(self, seconds: float) -> None:
        self._needs_s = asyncio.get_running_loop().time() - self._began + AS_LONG_AGAIN * seconds

    def _rows(self, ask: Any, **filters: str | None) -> AsyncIterator[dict[str, Any]]:
        return _rows(ask, self._answers, **filters)

    async def find(self, wanted: Wanted | None) -> list[Found]:
        """Ask; what is wanted is taken from its signed record, a listing from the registry's rows."""
        self._begin()
        try:
            async with asyncio.timeout(self._timeout), self._open() as registry:
                if wanted is None:
                    listed = self._rows(registry.nodes, query=self._query)
                    return [found async for row in listed if (found := found_in(row)) is not None]
                if wanted.peer_id is not None:
                    peers = [str(wanted.peer_id)]
                else:
                    search = wanted.name or ""
                    rows = [row async for row in self._rows(registry.nodes, search=search)]
                    peers = [str(row.get("peer_id")) for row in rows if row.get("name") == wanted.name]
                return [found for peer in peers if (found := await self._record(registry, peer)) is not None]
        except TimeoutError:
            self._is_away()
            raise UnreachableError(f"no answer within {self._timeout:g} s") from None
        except (UnreachableError, DeadlineError):
            self._is_away()
            raise
        except CallError as error:
            if not self._note(error) or wanted is not None:
                raise
            return []

    def _note(self, error: CallError) -> bool:
        if error.code in (401, 403):
            self.refused = error
        return self.refused is not None

    def _open(self) -> RegistryClient:
        from kodo.registry.client.client import RegistryClient  # speaks HTTP, which takes long to import

        return RegistryClient(self.url, claimant=self.claimant, connected=self._is_connected)

    async def _record(self, registry: RegistryClient, peer_id: str) -> Found | None:
        try:
            record = await registry.record(peer_id)
        except NotFoundError:
            return None
        except CallError as error:
            if error.code == 404:
                return None
            raise
        return Found(PeerId.parse(record.peer_id), record.name, _addresses(record.addrs), "registry")

    async def flows(self, *, search: str | None, query: str | None, by: str | None) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of its catalogue that fit."""
        self._begin()
        async with self._open() as registry:
            try:
                async for row in self._rows(registry.flows, search=search, query=query, by=by):
                    yield row
            except (UnreachableError, DeadlineError):
                self._is_away()
                raise
            except CallError as error:
                if not self._note(error):
                    raise


def tell_refused(registries: Sequence[RegistryFinder], *, found: bool) -> None:
    """Report the registries that did not let this user read: in the log where others had something.

    Raises:
        CallError: what one said, when nothing was found.
    """
    for registry in registries:
        if registry.refused is not None:
            if not found:
                raise registry.refused
            logger.warning("%s: %s", registry.label, registry.refused)


async def _rows(ask: Any, answered: Callable[[], None], **filters: str | None) -> AsyncIterator[dict[str, Any]]:
    page, given = 1, 0
    while given < MAX_ROWS:
        answer = await ask(p=page, pp=500, **{key: value for key, value in filters.items() if value is not None})
        answered()
        for row in answer.result:
            if isinstance(row, Mapping):
                given += 1
                yield dict(row)
        if page >= answer.total_pages or not answer.result:
            return
        page += 1


def _addresses(texts: Any) -> tuple[Multiaddr, ...]:
    found: list[Multiaddr] = []
    for text in list(texts)[:32] if isinstance(texts, (list, tuple)) else []:
        with contextlib.suppress(ValueError):
            found.append(Multiaddr.parse(str(text)))
    return tuple(found)


def found_in(row: Mapping[str, Any]) -> Found | None:
    """Return the node that a registry's row is about, of nodes or of flows; None when it names none."""
    try:
        peer_id = PeerId.parse(str(row.get("peer_id")))
    except ValueError:
        return None
    name = row.get("node", row.get("name", ""))
    return Found(peer_id, str(name), _addresses(row.get("addrs")), "registry", row)
