"""What the page asks its server: who is nearby, and reads of the configured registries. Nothing of a run is among it.

A page can neither browse the local network nor ask a registry of another origin, so this asks for it, as this user.
Only reads pass, each with the parameters that it is known to have, and each answer is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import hdrs, web

from kodo.client.resolve import Found, Resolver
from kodo.p2p.core.identity import PeerId
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, KodoError, NetworkError
from kodo.protocol.flow_info import MAX_PATH_CHARACTERS
from kodo.registry.client.client import Page, RegistryClient
from kodo.registry.problems import problem
from kodo.web.doors import Keys, shown_key

__all__ = ["Api", "Configs"]

MAX_NODES = 1000
"""Nodes nearby that one answer holds."""
MAX_ADDRESSES = 32
_MAX_PARAMETER = 4096
_AT_ONCE = 8
"""Requests to registries under way at once; others wait."""
_PAGE = frozenset({"search", "query", "by", "p", "pp"})

Configs = Callable[[str, str], Mapping[str, str]]
"""Returns, of a flow by peer id and path, for each MCP host by its name the text for its settings."""

_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(slots=True)
class Api:
    """The routes below `/api/`.

    Attributes:
        keys: which let pages in.
        near: the home and the local network.
        everywhere: those and the registries, to find one peer again.
        registries: the configured ones, open.
        lan: whether the local network is looked at.
        configs: what MCP hosts are told, so that they can run a flow.
    """

    keys: Keys
    near: Resolver
    everywhere: Resolver
    registries: Sequence[RegistryClient]
    lan: bool
    configs: Configs | None = None
    _looking: asyncio.Task[list[Found]] | None = None
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def routes(self) -> list[web.RouteDef]:
        """Return them all."""
        return [
            web.post("/api/enter", self._enter),
            web.get("/api/about", self._about),
            web.get("/api/mcp", self._mcp),
            web.get("/api/nodes", self._nodes),
            web.get("/api/nodes/{peer_id}", self._node),
            web.get("/api/registries/{index:[0-9]{1,3}}/state", self._registry(self._state)),
            web.get("/api/registries/{index:[0-9]{1,3}}/turn", self._registry(self._turn)),
            web.get("/api/registries/{index:[0-9]{1,3}}/nodes", self._registry(self._registry_nodes)),
            web.get("/api/registries/{index:[0-9]{1,3}}/nodes/{peer_id}", self._registry(self._registry_node)),
            web.get("/api/registries/{index:[0-9]{1,3}}/flows", self._registry(self._registry_flows)),
        ]

    async def aclose(self) -> None:
        """End what is still being looked for."""
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _enter(self, request: web.Request) -> web.Response:
        return _json({"key": self.keys.enter(shown_key(request))})

    async def _about(self, request: web.Request) -> web.Response:
        registries = [registry.url for registry in self.registries]
        return _json({"version": installed_version(), "lan": self.lan, "registries": registries})

    async def _mcp(self, request: web.Request) -> web.Response:
        given = request.query
        peer_id, path = given.get("peer_id", ""), given.get("path", "")
        if self.configs is None:
            raise problem(404, "not-here", "this page's server tells no settings of MCP hosts")
        if len(given) != 2 or set(given) != {"peer_id", "path"} or not 0 < len(path) <= MAX_PATH_CHARACTERS:
            raise problem(400, "bad-args", "the parameters are peer_id and path, each once", arg="path")
        try:
            PeerId.parse(peer_id)
        except ValueError:
            raise problem(400, "bad-args", "this is not a peer id", arg="peer_id") from None
        return _json({"result": self.configs(peer_id, path)})

    async def _nodes(self, request: web.Request) -> web.Response:
        # Looking around takes seconds; pages that ask meanwhile get the same answer.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self.near.all())
        found = await asyncio.shield(self._looking)
        rows: dict[PeerId, dict[str, Any]] = {}
        for each in sorted(found, key=lambda each: each.source != "home"):
            if each.peer_id not in rows and len(rows) < MAX_NODES:
                rows[each.peer_id] = {
                    "peer_id": str(each.peer_id),
                    "name": each.name,
                    "addrs": [str(address) for address in each.addresses[:MAX_ADDRESSES]],
                    "flows": each.row.get("flows"),
                    "source": each.source,
                }
        return _json({"result": list(rows.values())})

    async def _node(self, request: web.Request) -> web.Response:
        peer_id = _peer_id(request)
        addresses = await self.everywhere.addresses(peer_id)
        addrs = [str(address) for address in addresses[:MAX_ADDRESSES]]
        return _json({"peer_id": str(peer_id), "addrs": addrs})

    def _registry(self, read: Callable[[web.Request, RegistryClient], Awaitable[dict[str, Any]]]) -> _Handler:
        async def answer(request: web.Request) -> web.Response:
            index = int(request.match_info["index"])
            if index >= len(self.registries):
                raise problem(404, "no-such-registry", "this page's server is configured with fewer registries")
            try:
                async with self._slots:
                    return _json(await read(request, self.registries[index]))
            except CallError:
                raise
            except DeadlineError as error:
                raise problem(504, "no-answer", str(error)) from error
            except (NetworkError, CapacityError, KodoError) as error:
                raise problem(502, "registry-away", str(error)) from error

        return answer

    async def _state(self, request: web.Request, registry: RegistryClient) -> dict[str, Any]:
        return (await registry.registry_state()).model_dump()

    async def _turn(self, request: web.Request, registry: RegistryClient) -> dict[str, Any]:
        return await registry.turn()

    async def _registry_nodes(self, request: web.Request, registry: RegistryClient) -> dict[str, Any]:
        return await _page(request, registry.nodes)

    async def _registry_flows(self, request: web.Request, registry: RegistryClient) -> dict[str, Any]:
        return await _page(request, registry.flows)

    async def _registry_node(self, request: web.Request, registry: RegistryClient) -> dict[str, Any]:
        record = await registry.record(str(_peer_id(request)))
        return {"peer_id": record.peer_id, "name": record.name, "addrs": list(record.addrs)[:MAX_ADDRESSES]}


def _peer_id(request: web.Request) -> PeerId:
    try:
        return PeerId.parse(request.match_info["peer_id"])
    except ValueError:
        raise problem(404, "no-such-node", "this is not a peer id") from None


async def _page(request: web.Request, ask: Callable[..., Awaitable[Page]]) -> dict[str, Any]:
    given = request.query
    for name, value in given.items():
        if name not in _PAGE or len(value) > _MAX_PARAMETER or len(given.getall(name)) > 1:
            raise problem(400, "bad-args", "the parameters are search, query, by, p and pp, each once", arg=name[:64])
    numbers: dict[str, int] = {}
    for name in ("p", "pp"):
        if name in given:
            if not (given[name].isascii() and given[name].isdigit() and len(given[name]) <= 9):
                raise problem(400, "bad-args", f"{name} is a whole number", arg=name)
            numbers[name] = int(given[name])
    texts = {name: given[name] for name in ("search", "query", "by") if given.get(name)}
    return (await ask(**texts, **numbers)).model_dump()


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.json_response(value, headers={hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"})
