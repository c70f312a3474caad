"""The flows that the bridge shows: found by the client, narrowed by the user's globs, and named as tools."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from kodo.client.client import Client
from kodo.client.flow import FlowOnNode
from kodo.mcp.options import MAX_TOOLS, BridgeOptions
from kodo.mcp.returned import returned_schema
from kodo.mcp.texts import one_line
from kodo.p2p.errors import KodoError, NotFoundError

__all__ = ["Catalog", "Offer", "offer_of", "tool_names"]

MAX_FLOWS = 10_000
"""Rows that are looked through, however many there are."""

FRESH_SECONDS = 30.0
FORM_SECONDS = 8.0
"""How long a list waits for the form of one flow; without it the tool is listed with an open one."""

MAX_NAME = 60
"""Characters of a tool's name: MCP allows 128, some hosts 64 with what they put before it."""

_FORMS_KEPT = 256
_GIVEN_KEPT = 10_000
_FORMS_AT_ONCE = 8
_NO_SLUG = re.compile(r"[^A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Offer:
    """A flow on a node, as the catalogue has it; every text is from elsewhere."""

    node: str
    peer_id: str
    path: str
    name: str
    description: str

    @property
    def ref(self) -> str:
        """What to call it by: `PEER/path`."""
        return f"{self.peer_id}/{self.path}"

    @property
    def label(self) -> str:
        """Which flow on which node, for people."""
        return f"the flow {one_line(self.name, 80)} on the node {one_line(self.node, 80)}"


def tool_names(offers: Iterable[Offer], taken: Mapping[str, str] | None = None) -> dict[str, Offer]:
    """Name flows as tools: `node-path` of `A-Za-z0-9_-`, at most 60 characters, each once.

    A name depends on its flow alone, unless others would have the same: all of those get a hash of peer and path.
    So no flow takes a name that another one has.

    Args:
        taken: names that were given before, with the `ref` of whose they are: no other flow gets them.
    """
    named: dict[str, list[Offer]] = {}
    for offer in offers:
        named.setdefault(_plain(offer).casefold(), []).append(offer)
    found: dict[str, Offer] = {}
    for key, group in named.items():
        for offer in group:
            plain = _plain(offer)
            others = len(group) > 1 or (taken or {}).get(plain, offer.ref) != offer.ref
            if others or len(key) > MAX_NAME or not key.strip("-_"):
                digest = hashlib.sha256(offer.ref.encode("utf-8", "surrogatepass")).hexdigest()[:10]
                plain = f"{plain[: MAX_NAME - 11]}-{digest}"
            found[plain] = offer
    return found


def _plain(offer: Offer) -> str:
    return f"{_slug(offer.node, 24)}-{_slug(offer.path, 4096)}"


def _slug(text: str, limit: int) -> str:
    return _NO_SLUG.sub("_", text).strip("_")[:limit]


class Catalog:
    """The flows of nodes; what was found is kept for some seconds.

    Attributes:
        cut: there are more than are looked through.

    Args:
        most: how many are looked through.
    """

    def __init__(self, client: Client, options: BridgeOptions, most: int = MAX_FLOWS):
        self.cut = False
        self._client = client
        self._options = options
        self._most = most
        self._found: list[Offer] = []
        self._at = float("-inf")
        self._finding = asyncio.Lock()
        self._given: dict[str, str] = {}
        self._forms: OrderedDict[str, tuple[float, FlowOnNode]] = OrderedDict()
        self._told: OrderedDict[str, dict[str, Any] | None] = OrderedDict()

    async def offers(self, *, fresh: bool = False) -> list[Offer]:
        """Return the flows that may be shown, by node and path, each once."""
        async with self._finding:
            if fresh or time.monotonic() - self._at > FRESH_SECONDS:
                self._found, self.cut = await self._find()
                self._at = time.monotonic()
            return self._found

    async def search(self, words: list[str]) -> list[Offer]:
        """Return the flows that may be shown and have all these words, those first whose names have them.

        Args:
            words: as `str.casefold` gives them.
        """
        offers = await self.offers()
        if self.cut and (plain := [word for word in words if word.isalnum()]):
            # Nodes and registries look through all that they have.
            offers, _ = await self._find(f"*{max(plain, key=len)}*")
        fitting = [offer for offer in offers if _has(f"{offer.name} {offer.path} {offer.description}", words)]
        return sorted(fitting, key=lambda offer: not _has(offer.name, words))

    async def _find(self, search: str | None = None) -> tuple[list[Offer], bool]:
        found: dict[tuple[str, str], Offer] = {}
        seen = 0
        async with aclosing(self._client.flows(search, node=self._options.node)) as rows:
            async for row in rows:
                seen += 1
                offer = offer_of(row)
                if offer is not None and self._options.shows(offer.node, offer.peer_id, offer.path):
                    found.setdefault((offer.peer_id, offer.path), offer)
                if seen >= self._most:
                    break
        return sorted(found.values(), key=lambda offer: (offer.node, offer.path, offer.peer_id)), seen >= self._most

    async def tools(self, *, fresh: bool = False) -> dict[str, Offer] | None:
        """Return the flows by their tools' names; None when there are too many for that."""
        offers = await self.offers(fresh=fresh)
        if len(offers) > MAX_TOOLS:
            return None
        tools = tool_names(offers, self._given)
        for name, offer in tools.items():
            # What a host was told means the same flow for as long as it may remember it.
            if len(self._given) < _GIVEN_KEPT:
                self._given.setdefault(name, offer.ref)
        return tools

    async def tool(self, name: str) -> Offer | None:
        """Return the flow of a tool; looked for anew when it is not known."""
        for fresh in (False, True):
            tools = await self.tools(fresh=fresh)
            if tools and name in tools:
                return tools[name]
        return None

    async def offer(self, ref: str) -> Offer:
        """Return the flow that a model means: `PEER/path`, `NODE/path`, or a path or name that only one has.

        Raises:
            NotFoundError: none of those that may be shown, or several.
        """
        for fresh in (False, True):
            offers = await self.offers(fresh=fresh)
            for fits in (
                [offer for offer in offers if offer.ref == ref],
                [offer for offer in offers if ref in (f"{offer.node}/{offer.path}", f"{offer.node}/{offer.name}")],
                [offer for offer in offers if ref in (offer.path, offer.name)],
            ):
                if len(fits) == 1:
                    return fits[0]
                if fits:
                    refs = ", ".join(one_line(offer.ref) for offer in fits[:8])
                    raise NotFoundError(f"several flows are called {one_line(ref)!r}; name one by its peer: {refs}")
        raise NotFoundError(f"there is no flow {one_line(ref)!r} here; find_flows lists the flows")

    async def flow(self, offer: Offer) -> FlowOnNode:
        """Return a flow with its form. Cancelling is safe.

        Raises:
            KodoError: the node is away, or does not offer it any more.
        """
        kept = self._forms.get(offer.ref)
        if kept is not None and time.monotonic() - kept[0] <= FRESH_SECONDS:
            return kept[1]
        if self._options.node is not None:
            flow = await self._client.find_flow(offer.path, node=self._options.node)
        else:
            flow = await self._client.find_flow(offer.path, node=offer.peer_id)
            # The user named no node: its own claim is all that speaks for this one, unless this home knows it.
            flow.claimed = True
        if str(flow.remote.peer_id) != offer.peer_id or flow.path != offer.path:
            raise NotFoundError(f"{offer.label} is not there any more; find_flows lists the flows")
        flow.remote.label = flow.remote.label or offer.node
        self._forms[offer.ref] = (time.monotonic(), flow)
        self._forms.move_to_end(offer.ref)
        while len(self._forms) > _FORMS_KEPT:
            self._forms.popitem(last=False)
        return flow

    async def forms(self, offers: Iterable[Offer]) -> dict[str, FlowOnNode]:
        """Return by `ref` the flows whose forms can be had now."""
        turn = asyncio.Semaphore(_FORMS_AT_ONCE)

        async def ask(offer: Offer) -> FlowOnNode | None:
            try:
                async with turn, asyncio.timeout(FORM_SECONDS):
                    return await self.flow(offer)
            except (KodoError, TimeoutError):
                return None

        listed = list(offers)
        answers = await asyncio.gather(*map(ask, listed))
        return {offer.ref: flow for offer, flow in zip(listed, answers, strict=True) if flow is not None}

    def tell(self, ref: str, flow: FlowOnNode | None) -> None:
        """Note what a host is told of a flow's result: it holds results against that, also when the flow changes."""
        self._told.pop(ref, None)
        self._told[ref] = returned_schema(flow.returns) if flow is not None else None
        while len(self._told) > _FORMS_KEPT:
            self._told.popitem(last=False)

    async def returns(self, offer: Offer) -> dict[str, Any] | None:
        """Return the schema of a flow's result as the host was told it, else as the node tells it now, if it does."""
        if offer.ref in self._told:
            return self._told[offer.ref]
        try:
            async with asyncio.timeout(FORM_SECONDS):
                return returned_schema((await self.flow(offer)).returns)
        except (KodoError, TimeoutError):
            return None


def _has(text: str, words: list[str]) -> bool:
    folded = text.casefold()
    return all(word in folded for word in words)


def offer_of(row: Mapping[str, Any]) -> Offer | None:
    """Read a row of `Client.flows`; None where it is no flow that can be run."""
    path, peer_id = row.get("path"), row.get("peer_id")
    if not isinstance(path, str) or not isinstance(peer_id, str) or not path or row.get("broken"):
        return None
    texts = [text if isinstance(text := row.get(word), str) else "" for word in ("node", "name", "description")]
    return Offer(texts[0] or peer_id, peer_id, path, texts[1] or path, texts[2])
