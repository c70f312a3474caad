"""What operators do over HTTP: the list of names, annotations, cleaning up, stopping. Every call is signed.

Who is an operator: the user key of the registry's own home, whoever enrolled by a code, and the users who have that
role by the provider. Who has the grant `registry://NAME/w` lists names too, and takes off those of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.access.audit import AuditLine
from kodo.access.throttle import Throttle
from kodo.p2p.core.hosts import source_of
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import PeerError, UsageError
from kodo.registry.client.client import RegistryClient
from kodo.registry.federation import Federation
from kodo.registry.http.callers import Callers, check_named_operator, check_private
from kodo.registry.problems import problem
from kodo.registry.records.claims import Enrolment
from kodo.registry.records.record import MAX_NOTE_BYTES, NodeName
from kodo.registry.records.signed import verify
from kodo.registry.store.operators import AdminStore
from kodo.registry.store.store import Store

__all__ = [
    "AddToMesh",
    "Admin",
    "AnnotateFlow",
    "AnnotateNode",
    "DismissOperator",
    "Nothing",
    "RegisterName",
    "RemoveFromMesh",
    "UnregisterName",
]

_MAX_BODY = 64 << 10

_Model = TypeVar("_Model", bound=BaseModel)
_Peer = Annotated[str, Field(min_length=52, max_length=52)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class RegisterName(_Body):
    """Register a name; with `peer_id` for that peer alone."""

    name: NodeName
    peer_id: _Peer | None = None


class UnregisterName(_Body):
    """Unregister a name and remove its node of the registry."""

    name: NodeName


class AnnotateNode(_Body):
    """Words on a node, which is named by `peer_id` or by `name`; a word that is null is taken back."""

    peer_id: _Peer | None = None
    name: NodeName | None = None
    words: dict[str, Any]


class AnnotateFlow(AnnotateNode):
    """Words on a flow, by its path."""

    path: Annotated[str, Field(min_length=1, max_length=512)]


class DismissOperator(_Body):
    """Take an operator off."""

    peer_id: _Peer


class AddToMesh(_Body):
    """List the nodes of the registry at `url` too, or tell it of those that announce themselves here (`feed`)."""

    url: Annotated[str, Field(min_length=1, max_length=300)]
    feed: bool = False


class RemoveFromMesh(_Body):
    """Deal with the registry at `url` no more."""

    url: Annotated[str, Field(min_length=1, max_length=300)]


class Nothing(_Body):
    """No args."""


@dataclass(slots=True)
class Admin:
    """The routes of operators, and what they share.

    Attributes:
        store: the data.
        federation: takes back what was told of a node that is removed.
        owner: peer id of the user key of the registry's own home.
        callers: says who calls.
        clock: gives ms UTC.
        read_body: reads a body of at most so many bytes and of this content type, or raises `CallError`.
        retention_s: seconds without a sign of life after which a node is stale.
        stop: has the registry end, once this call is answered.
    """

    store: Store
    federation: Federation
    owner: str
    callers: Callers
    clock: Callable[[], int]
    read_body: Callable[[web.Request, int, str], Awaitable[bytes]]
    retention_s: float
    stop: Callable[[], None]
    enrolments: Throttle = field(default_factory=lambda: Throttle(burst=5, every_ms=12_000))

    @property
    def _admin(self) -> AdminStore:
        return self.store.admin

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/register", self._register),
            web.delete("/register", self._unregister),
            web.get("/register", self._registered),
            web.post("/nodes", self._node_words),
            web.put("/nodes", self._node_words),
            web.post("/flows", self._flow_words),
            web.put("/flows", self._flow_words),
            web.get("/cleanup", self._stale),
            web.post("/cleanup", self._clean),
            web.get("/audit", self._audit),
            web.get("/operators", self._operators),
            web.post("/operators", self._enrol),
            web.delete("/operators", self._dismiss),
            web.post("/operators/code", self._code),
            web.get("/mesh", self._mesh),
            web.put("/mesh", self._add_to_mesh),
            web.delete("/mesh", self._remove_from_mesh),
            web.post("/shutdown", self._shutdown),
        ]

    # --- the calls ---

    async def _register(self, request: web.Request) -> web.Response:
        by, own, given = await self._asked_to_list(request, RegisterName)
        _check_peer(given.peer_id)
        await self._admin.admit(given.name, given.peer_id, by, self.clock(), own=own)
        return _answer({"name": given.name, "peer_id": given.peer_id})

    async def _unregister(self, request: web.Request) -> web.Response:
        by, own, given = await self._asked_to_list(request, UnregisterName)
        known, nodes = await self._admin.expel(given.name, by, self.clock(), own=own)
        if not known:
            raise problem(404, "no-such-name", f"{given.name} is neither registered nor used here")
        for peer_id, seq in nodes:
            await self.federation.bury(peer_id, seq)
        return _answer({"name": given.name, "removed": [peer_id for peer_id, _ in nodes]})

    async def _registered(self, request: web.Request) -> web.Response:
        await self._operator(request)
        return _answer(await self._admin.admitted(_page(request)))

    async def _node_words(self, request: web.Request) -> web.Response:
        by, given = await self._asked(request, AnnotateNode)
        return await self._annotate(request, by, given, None)

    async def _flow_words(self, request: web.Request) -> web.Response:
        by, given = await self._asked(request, AnnotateFlow)
        return await self._annotate(request, by, given, given.path)

    async def _annotate(self, request: web.Request, by: str, given: AnnotateNode, path: str | None) -> web.Response:
        if (given.peer_id is None) == (given.name is None):
            raise problem(400, "bad-args", "name the node by `peer_id` or by `name`", arg="name")
        peer_id = given.peer_id
        if given.name is not None:
            peer_id = await self._admin.peer_of(given.name)
            if peer_id is None:
                raise problem(404, "no-such-node", f"no node has the name {given.name} here")
        assert peer_id is not None
        replace = request.method == "POST"
        data = {"peer_id": peer_id, "path": path, "words": given.words, "replace": replace}
        line = AuditLine(by, "annotate", data, self.clock())
        await self.store.annotate(peer_id, path, given.words, replace=replace, line=line)
        words = await self.store.annotations(peer_id)
        return _answer({"peer_id": peer_id, "path": path, "words": words.get(path or "", {})})

    async def _stale(self, request: web.Request) -> web.Response:
        await self._operator(request)
        return _answer({"result": await self._stale_nodes()})

    async def _clean(self, request: web.Request) -> web.Response:
        by, _ = await self._asked(request, Nothing)
        before = self._stale_before()
        # Each registry cleans up for itself: a node that is silent here may speak elsewhere. One that speaks up
        # meanwhile stays.
        stale = await self._admin.stale(before)
        # Before, for thousands of nodes take many transactions.
        await self._admin.note(AuditLine(by, "cleanup", {"nodes": len(stale)}, self.clock()))
        gone = [node for node in stale if await self.store.remove(node["peer_id"], silent_since=before)]
        return _answer({"result": gone})

    async def _audit(self, request: web.Request) -> web.Response:
        await self._operator(request)
        return _answer(await self._admin.audit(_page(request)))

    async def _operators(self, request: web.Request) -> web.Response:
        await self._operator(request)
        return _answer({"owner": self.owner, "result": await self._admin.operators()})

    async def _enrol(self, request: web.Request) -> web.Response:
        wait = self.enrolments.wait_ms(source_of(request.remote), self.clock())
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many tries; wait {seconds} s", retry_after_s=seconds)
        check_private(request)
        signed = await self.read_body(request, MAX_NOTE_BYTES, "application/msgpack")
        try:
            enrolment = verify(Enrolment, signed)
        except PeerError as error:
            raise problem(400, "malformed", str(error)) from None
        await self._admin.enrol(enrolment.peer_id, enrolment.proof, self.federation.own, self.clock())
        return _answer({"peer_id": enrolment.peer_id, "operator": True})

    async def _code(self, request: web.Request) -> web.Response:
        by, _ = await self._asked(request, Nothing)
        return _answer({"code": await self._admin.new_code(by, self.clock())})

    async def _dismiss(self, request: web.Request) -> web.Response:
        by, given = await self._asked(request, DismissOperator)
        if not await self._admin.dismiss(given.peer_id, by, self.clock()):
            raise problem(404, "no-such-operator", f"{given.peer_id} was not enrolled here")
        return _answer({"peer_id": given.peer_id, "operator": False})

    async def _mesh(self, request: web.Request) -> web.Response:
        await self._operator(request)
        return _answer(
            {
                "peer_id": self.federation.own,
                "result": self.federation.dealings(),
                "members": sorted(self.federation.members),
                "behaved": self.federation.report(),
            }
        )

    async def _add_to_mesh(self, request: web.Request) -> web.Response:
        by, given = await self._asked(request, AddToMesh)
        url = _registry_url(given.url)
        await self._admin.add_mesh_url(url, given.feed, by, self.clock())
        self.federation.deal_with(url, feed=given.feed)
        return _answer({"url": url, "does": "feed" if given.feed else "read"})

    async def _remove_from_mesh(self, request: web.Request) -> web.Response:
        by, given = await self._asked(request, RemoveFromMesh)
        url = _registry_url(given.url)
        if not await self._admin.drop_mesh_url(url, by, self.clock()):
            raise problem(404, "no-such-registry", f"{url} was not added to the mesh by `koco mesh add`")
        await self.federation.leave(url)
        return _answer({"url": url, "removed": True})

    async def _shutdown(self, request: web.Request) -> web.Response:
        by, _ = await self._asked(request, Nothing)
        await self._admin.note(AuditLine(by, "shutdown", {}, self.clock()))
        # The answer goes out first.
        asyncio.get_running_loop().call_later(0.1, self.stop)
        return _answer({"stopping": True})

    # --- inside ---

    async def _stale_nodes(self) -> list[dict[str, Any]]:
        return await self._admin.stale(self._stale_before())

    def _stale_before(self) -> int:
        return self.clock() - round(self.retention_s * 1000)

    async def _asked(self, request: web.Request, model: type[_Model]) -> tuple[str, _Model]:
        body = await self.read_body(request, _MAX_BODY, "application/json")
        by = (await self.callers.operator(request, body)).peer_id
        return by, _parsed(model, body)

    async def _asked_to_list(self, request: web.Request, model: type[_Model]) -> tuple[str, str | None, _Model]:
        """Return the peer id of who calls, and whose names alone it may deal with: None for an operator."""
        body = await self.read_body(request, _MAX_BODY, "application/json")
        principal = await self.callers.principal(request, body)
        own = None
        if not principal.operator and principal.peer_id and principal.registry_grant(self.callers.name, "w"):
            own = principal.id
        else:
            check_named_operator(principal)
        return principal.peer_id, own, _parsed(model, body)

    async def _operator(self, request: web.Request) -> None:
        await self.callers.operator(request, b"")


def _parsed(model: type[_Model], body: bytes) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        arg = ".".join(str(part)[:64] for part in first["loc"][:3])
        what = first["msg"].removeprefix("Value error, ")[:256]
        raise problem(400, "bad-args", f"{arg or 'body'}: {what}", arg=arg) from None


def _registry_url(text: str) -> str:
    try:
        return RegistryClient(text).url
    except UsageError as error:
        raise problem(400, "bad-args", f"url: {error}", arg="url") from None


def _check_peer(peer_id: str | None) -> None:
    if peer_id is None:
        return
    try:
        PeerId.parse(peer_id)
    except ValueError as error:
        raise problem(400, "bad-args", f"peer_id: {error}", arg="peer_id") from None


def _page(request: web.Request) -> int:
    text = request.query.get("p", "1")
    if set(request.query) - {"p"} or not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise problem(400, "bad-args", "p is the number of a page, from 1", arg="p")
    return int(text)


def _answer(value: dict[str, Any]) -> web.Response:
    return web.Response(
        body=json.dumps(value, ensure_ascii=False).encode(),
        content_type="application/json",
        charset="utf-8",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )
