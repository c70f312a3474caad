"""`Directory`: the nodes and flows that one client finds, in its home, on its network and in its registries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kodo.client.filters import NodeFilter, check_flow_query
from kodo.client.finders import HomeFinder, LanFinder, RegistryFinder, found_in, tell_refused
from kodo.client.flow import FlowOnNode, flow_on
from kodo.client.known_addresses import KnownAddresses
from kodo.client.known_nodes import KnownNodes
from kodo.client.last_sessions import LastSession, LastSessions
from kodo.client.matching import named, nearest
from kodo.client.near import Answers, NearNodes, rows_of
from kodo.client.peer import RemoteNode
from kodo.client.resolve import (
    FarFinder,
    Finder,
    Resolver,
    StillAwayError,
    Target,
    parse_flow,
    safe_text,
    wait_for_far,
)
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, DeadlineError, KodoError, NotFoundError, PeerError, UsageError

if TYPE_CHECKING:
    from kodo.settings.client import ClientSettings

__all__ = ["Directory"]

logger = logging.getLogger(__name__)

HEAD_START_SECONDS = 0.2
"""How long a node is dialled where it was last before it is looked for, too."""

DIAL_SECONDS = 5.0
"""How long it is dialled there: as long as looking for it takes at most, by default."""

ELSEWHERE_SECONDS = 2.5
"""How long a node that is known and not nearby may take, to be found and to answer a list."""

MAX_ELSEWHERE = 32
"""How many of these a list asks."""

T = TypeVar("T")


class Directory:
    """Finds nodes and flows; a node that it gave before is the same object again.

    Args:
        home: the folder of this user.
        settings: which registries, whether to look around on the local network, and the node that is meant when
            none is named.
        known: the names that are pinned.
        make: gives a node that was found for the first time; it need not be reached yet.
        finders: where to look besides `home`, instead of the local network.
        places: where nodes were last on the local network, where that may be used.
    """

    def __init__(
        self,
        home: Path,
        settings: ClientSettings,
        known: KnownNodes,
        make: Callable[[Target], RemoteNode],
        finders: Sequence[Finder] | None = None,
        places: KnownAddresses | None = None,
    ):
        self.registries = [RegistryFinder(url, min(settings.timeout_s, 10.0)) for url in settings.registry]
        self._settings = settings
        self._known = known
        self._make = make
        self._remotes: dict[PeerId, RemoteNode] = {}
        self._lan: LanFinder | None = None
        near: list[Finder] = [HomeFinder(home)]
        seen: list[Finder] = [*near]
        if finders is not None:
            near += finders
            seen += finders
        elif settings.lan:
            self._lan = LanFinder(min(settings.browse_s, settings.timeout_s / 2))
            near.append(self._lan)
            seen.append(self._lan.glance(self._neighbours))
        self.places = places
        self.last = LastSessions(home / "last_sessions")
        self.near = Resolver(near, known)
        """Where near nodes are."""
        self._seen = Resolver(seen, known)
        """Where near nodes are seen at a glance: looks no longer once those are there that this user knows."""
        self._seen_everywhere = Resolver(seen, known, far=self.registries)
        self.everywhere = Resolver(near, known, far=self.registries)
        """Where nodes are, registries asked too."""
        self.nearby = NearNodes(self.near, known, self.remote, self._seen)

    async def aclose(self) -> None:
        """Look around no more, and remember which ways were taken; idempotent."""
        now = time.time_ns() // 1_000_000
        try:
            self.last.remember(
                LastSession(str(each.peer_id), str(each), each.route, now, len(each.addresses))
                for each in self._remotes.values()
                if each.route is not None
            )
        except UsageError as error:
            logger.debug("the ways of sessions are not remembered: %s", error)
        if self._lan is not None:
            await self._lan.aclose()

    # nodes

    async def nodes(self, query: str | None = None, node: str | None = None) -> list[dict[str, Any]]:
        """Return the nodes found; see `Client.nodes`."""
        node = node or self._settings.node
        if node is not None:
            row = await _described(await self.node(node))
            row["route"] = self.route(row["peer_id"])
            return [row] if not query or NodeFilter(query).fits(row) else []
        rows: dict[PeerId, dict[str, Any]] = {}
        if query:
            wanted = NodeFilter(query)
            narrowed = [registry.narrowed(query) for registry in self.registries]
            found = [each for each in await self._seen.all() if wanted.fits(each.as_row())]
            found += await Resolver((), self._known, far=narrowed).all()
        else:
            narrowed, found = self.registries, await self._seen_everywhere.all()
        tell_refused(narrowed, found=bool(found))
        for each in sorted(found, key=lambda each: ["registry", "lan", "home"].index(each.source)):
            row = rows.setdefault(each.peer_id, {})
            row.update(each.row)
            row.update(peer_id=str(each.peer_id), name=each.name, addrs=[str(a) for a in each.addresses])
            row["source"] = "registry" if each.source == "registry" else "lan"
            row["route"] = self.route(str(each.peer_id))
        return sorted(rows.values(), key=lambda row: (str(row["name"]), row["peer_id"]))

    def route(self, peer_id: str) -> str | None:
        """Return the way of the session with a node that is open, or was last; None where there was none."""
        for remote in self._remotes.values():
            if str(remote.peer_id) == peer_id and remote.route is not None:
                return remote.route
        last = self.last.all().get(peer_id)
        return None if last is None else last.route

    @contextlib.asynccontextmanager
    async def _in_time(self, text: str) -> AsyncIterator[None]:
        """Bound how long something is looked for.

        Raises:
            DeadlineError: it took longer than the settings allow.
        """
        seconds = self._settings.timeout_s
        try:
            async with asyncio.timeout(seconds) as bound:
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            raise DeadlineError(f"{safe_text(text)!r} was not found within {seconds:g} s") from None

    async def node(self, text: str) -> RemoteNode:
        """Find the node that NODE means; see `Client.node`."""
        async with self._in_time(text):
            return await self._node(text)

    async def _node(self, text: str) -> RemoteNode:
        connected = self._connected(text)
        if connected is not None:
            return connected
        peer_id = self._meant(text)
        addresses = () if peer_id is None or self.places is None else self.places.get(peer_id)
        if peer_id is None or not addresses:
            return self.remote(await self.everywhere.node(text))
        name = None if text == str(peer_id) else text
        return await self._where_it_was(text, self.remote(Target(peer_id, addresses, name)))

    async def _where_it_was(self, text: str, remote: RemoteNode) -> RemoteNode:
        """Dial a node where it was last, and look for it while it does not answer.

        Nobody is taken at their word for it: who answers proves that peer id.
        """
        dialling = asyncio.ensure_future(remote.dial(DIAL_SECONDS))
        looking: asyncio.Future[Target] | None = None
        try:
            await asyncio.wait([dialling], timeout=HEAD_START_SECONDS)
            if not dialling.done():
                looking = asyncio.ensure_future(self.everywhere.node(text))
                await asyncio.wait([dialling, looking], return_when=asyncio.FIRST_COMPLETED)
            if (dialling.done() or not _is_elsewhere(looking, remote)) and await dialling:
                return remote
            target = await (looking or self.everywhere.node(text))
        finally:
            for task in (dialling, looking):
                if task is not None:
                    task.cancel()
            await asyncio.gather(dialling, *([looking] if looking else []), return_exceptions=True)
        found = self.remote(target)
        found.move(target.addresses)
        return found

    def _neighbours(self) -> frozenset[PeerId]:
        """Return the nodes that are on the local network as a rule: known by name, and reached there last."""
        known = frozenset(self._known.all().values())
        return known & frozenset(self.places.all() if self.places is not None else ())

    def _connected(self, text: str) -> RemoteNode | None:
        """Return the node that NODE means where nobody has to be asked: its session is open, and proved who it is.

        A name counts by its pin alone: whoever else claims it by now is not who was meant.
        """
        peer_id = self._meant(text)
        remote = None if peer_id is None else self._remotes.get(peer_id)
        named = remote is not None and text in (remote.name, str(peer_id))
        return remote if named and remote is not None and remote.connected else None

    def _meant(self, text: str) -> PeerId | None:
        """Return the peer id that NODE is, or is pinned to."""
        try:
            return PeerId.parse(text)
        except ValueError:
            return self._known.get(text)

    def remote(self, target: Target) -> RemoteNode:
        """Return the node of a target: the same one as before, unless it goes by another name now."""
        remote = self._remotes.get(target.peer_id)
        if remote is None or (target.name is not None and remote.name != target.name):
            remote = self._remotes[target.peer_id] = self._make(target)
        return remote

    async def ask_known(
        self, ask: Callable[[RemoteNode], Awaitable[T]], what: str, node: str | None = None
    ) -> tuple[list[tuple[RemoteNode, T]], dict[str, str]]:
        """Ask every node nearby, and those that this user knows by name and that are elsewhere; or `node` alone.

        Also returns which gave no answer, and why; nothing is logged.

        Raises:
            CallError: every one refuses the call; or what `node` refuses it with.
        """
        node = node or self._settings.node
        if node is not None:
            remote = await self.node(node)
            return [(remote, await ask(remote))], {}
        answers = await self._ask_known(ask, what)
        return answers.check(), dict(answers.failed.values())

    async def _ask_known(self, ask: Callable[[RemoteNode], Awaitable[T]], what: str) -> Answers[T]:
        answers = await self.nearby.ask(ask, what, everybody=False, warn=False)
        met = {remote.peer_id for remote, _ in answers.given} | set(answers.failed)
        missing = {peer: name for name, peer in self._known.all().items() if peer not in met}

        async def one(peer: PeerId, name: str) -> None:
            try:
                async with asyncio.timeout(ELSEWHERE_SECONDS):
                    remote = await self.node(name)
                    answers.given.append((remote, await ask(remote)))
            except TimeoutError:
                answers.failed[peer] = (name, f"no answer within {ELSEWHERE_SECONDS:g} s")
            except Exception as error:  # nor may a node that is elsewhere end what others are asked for
                answers.failed[peer] = (name, str(error) or type(error).__name__)

        async with asyncio.TaskGroup() as group:
            for peer, name in list(missing.items())[:MAX_ELSEWHERE]:
                group.create_task(one(peer, name))
        for peer, name in list(missing.items())[MAX_ELSEWHERE:]:
            answers.failed[peer] = (name, f"not asked: it is not nearby, and {MAX_ELSEWHERE} others are not either")
        return answers

    # flows

    async def flows(
        self,
        search: str | None = None,
        query: str | None = None,
        by: str | None = None,
        node: str | None = None,
        *,
        everybody: bool = False,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the flows that are found; see `Client.flows`. For `everybody` see `NearNodes.ask`."""
        if query:
            check_flow_query(query)
        filters = {
            key: value for key, value in (("search", search), ("query", query), ("by", by)) if value is not None
        }

        async def ask(remote: RemoteNode) -> list[dict[str, Any]]:
            more = {"addrs": list(remote.addresses), "source": "lan"}
            return [{**row, **more} for row in await rows_of(remote, "flow.list", filters)]

        node = node or self._settings.node
        if node is not None:
            for row in await ask(await self.node(node)):
                yield row
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        listed: dict[asyncio.Task[list[dict[str, Any]]], FarFinder] = {
            asyncio.create_task(_listed(registry, search, query, by)): registry for registry in self.registries
        }
        seen: set[tuple[str, str]] = set()
        try:
            near = await self.nearby.ask(ask, "flow.list", everybody=everybody)
            refused, answered = near.refused, bool(near.given)
            for _, rows in near.given:
                for row in rows:
                    seen.add((row["peer_id"], str(row.get("path"))))
                    yield row
            await wait_for_far(listed, began, found=bool(seen))
        finally:
            for task in listed:
                task.cancel()
            await asyncio.gather(*listed, return_exceptions=True)
        for task, registry in listed.items():
            if task.cancelled():
                continue  # it was left out
            error = task.exception()
            if error is None:
                answered = True
                for row in task.result():
                    key = (str(row.get("peer_id")), str(row.get("path")))
                    if key not in seen:
                        seen.add(key)
                        yield {**row, "source": "registry"}
                continue
            if not isinstance(error, (KodoError, TimeoutError)):
                raise error
            if isinstance(error, CallError) and error.code == 400:
                refused = refused or error
            if not isinstance(error, StillAwayError):
                logger.warning("%s: %s", registry.label, error)
        if refused is not None and not answered:
            raise refused
        tell_refused(self.registries, found=bool(seen))

    async def find_flow(self, flow: str, node: str | None = None) -> FlowOnNode:
        """Find the flow that FLOW means, and its form; see `Client.find_flow`."""
        async with self._in_time(flow):
            return await self._find_flow(flow, node)

    async def _find_flow(self, flow: str, node: str | None) -> FlowOnNode:
        node = node or self._settings.node
        if node is not None:
            return await flow_on(await self.node(node), flow)
        reference = parse_flow(flow)
        if reference.node is None:
            return await self._flow_anywhere(flow)
        try:
            remote = await self.node(reference.node)
        except (NotFoundError, UsageError) as no_node:
            if reference.node.startswith("/"):
                raise
            try:
                return await self._flow_anywhere(flow)  # a path such as flows/x.yaml, without its node
            except NotFoundError:
                raise no_node from None
        return await flow_on(remote, reference.rest)

    async def _flow_anywhere(self, text: str) -> FlowOnNode:
        # A name that two nodes offer is ambiguous whoever of them is known.
        rows = await (self._candidates(text) if self.registries else self._all_flows())
        fitting = named(rows, text)
        if not fitting:
            raise NotFoundError(
                f"no flow {safe_text(text)!r} was found; `koco flows` lists the flows{nearest(text, rows)}"
            )
        if len({(row["peer_id"], row.get("path")) for row in fitting}) > 1:
            places = ", ".join(shlex.quote(safe_text(f"{row.get('node')}/{row.get('path')}")) for row in fitting[:8])
            raise UsageError(f"{safe_text(text)!r} is ambiguous; take one of: {places}")
        row = fitting[0]
        found = found_in(row)
        if found is None:
            raise PeerError(f"the registry that lists {safe_text(text)!r} does not name its node")
        known = self._remotes.get(found.peer_id) or self.nearby.labelled(found)
        flow = await flow_on(known, str(row.get("path")))
        flow.claimed = True
        return flow

    async def _candidates(self, text: str) -> list[dict[str, Any]]:
        """Return rows among which a flow of this path or name is, without reading a large registry when it can."""
        literal = "".join(f"[{character}]" if character in "*?[" else character for character in text)
        rows = [row async for row in self.flows(literal, everybody=True)]
        return rows if named(rows, text) else await self._all_flows()

    async def _all_flows(self) -> list[dict[str, Any]]:
        return [row async for row in self.flows(everybody=True)]


async def _listed(
    registry: RegistryFinder, search: str | None, query: str | None, by: str | None
) -> list[dict[str, Any]]:
    """Return the rows of a registry's catalogue."""
    return [row async for row in registry.flows(search=search, query=query, by=by)]


async def _described(remote: RemoteNode) -> dict[str, Any]:
    """Return the row of a node that was named; it has answered then.

    Raises:
        NetworkError, DeadlineError: it is away.
    """
    answer = await remote.request("flow.list", {"pp": 1})
    flows = answer.get("total_records") if isinstance(answer, Mapping) else None
    told = {"flows": flows, "online": True, "state": "online", "source": "named"}
    return {"name": str(remote), "peer_id": str(remote.peer_id), "addrs": list(remote.addresses), **told}


def _is_elsewhere(looking: asyncio.Future[Target] | None, remote: RemoteNode) -> bool:
    """Return whether a node was found at addresses that are not dialled yet."""
    if looking is None or not looking.done() or looking.exception() is not None:
        return False
    return not set(map(str, looking.result().addresses)) <= set(remote.addresses)
