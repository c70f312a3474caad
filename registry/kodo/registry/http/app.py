"""The registry over HTTP: its routes, and what stands before each of them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import ipaddress
import json
import platform
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from kodo.access.provider import Provider
from kodo.access.throttle import Throttle
from kodo.http.connections import attended
from kodo.http.named_host import named_host
from kodo.p2p.core.hosts import THIS_MACHINE, source_of
from kodo.p2p.core.identity import PeerId
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import CallError, IdentityError, PeerError
from kodo.p2p.net.relay import RelayServer
from kodo.p2p.net.turns import FairThreads, join_source
from kodo.registry.federation import BESIDE, Federation
from kodo.registry.http.access import AccessRoutes
from kodo.registry.http.admin import Admin
from kodo.registry.http.callers import Callers
from kodo.registry.http.forwarded import forwarded
from kodo.registry.http.openapi import document
from kodo.registry.http.relay import RelayConnections
from kodo.registry.http.rendezvous import Rendezvous
from kodo.registry.http.shares import Shares
from kodo.registry.http.turn import Turn
from kodo.registry.problems import problem, problem_of, problems
from kodo.registry.query.tree import FLOW_FIELDS, NODE_FIELDS, Kind
from kodo.registry.reads.pages import PageRequest, parse_page
from kodo.registry.records.claims import TOKEN_HEADER, Seen
from kodo.registry.records.mesh import Batch
from kodo.registry.records.record import (
    MAX_NOTE_BYTES,
    MAX_RECORD_BYTES,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from kodo.registry.store.store import Store

__all__ = ["MSGPACK_TYPE", "Service", "make_app"]

MSGPACK_TYPE = "application/msgpack"

_BODY_S = 10.0
"""Seconds in which a body has to arrive."""
_BODIES = 64
"""Bodies that may be on their way, or wait until they are verified, at once; each is at most 1 MiB."""
_READINGS = 64
"""Other registries that may wait for news at once."""
_PAGES = 512
"""Reads of pages and records that may wait for their turn at once."""
_LONG_BYTES = 32 << 10
"""From here on an answer is hashed and compressed beside the loop."""
_BEATS_PER_S = 800
"""Heartbeats that are asked for; about a third of what one core takes."""
_GZIP_FROM_BYTES = 1024
_GZIP_LEVEL = 6

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Read = TypeVar("_Read")


@dataclass(slots=True)
class Service:
    """What the routes work with.

    Attributes:
        store: the data.
        clock: gives ms UTC.
        name: of this registry.
        interval_s: seconds between heartbeats that nodes are told to keep, as long as those are few.
        most_interval_s: the same at most.
        open: whether nodes that nobody registered are taken.
        federation: what is told to other registries, and taken from them.
        owner: peer id of the user key of the registry's own home, an operator.
        provider: says who callers are and what they may do.
        retention_s: seconds of silence after which a node is stale.
        stop: has the registry end.
        origins: pages of these origins may call too, as `https://flows.example.com`, lower case.
        hosts: host names, beside IP addresses and `localhost`, that requests may name.
        proxies: addresses of reverse proxies that are believed whom they speak for.
        announcements: how often one peer may send `up` and `down`.
        newcomers: how many nodes that are not known one source may announce; see `welcome`.
        readers: how often one source may read what changed.
        bodies: places for what is being brought.
        reading: places for other registries that wait for news.
        pages: places for reads.
        beside: does what takes long in threads, in turn.
        told: called with each request that was answered: its route, method, status, and seconds.
        relay: to which nodes that wait here may attach.
        turn: URLs of TURN servers that pages are told, and what the registry shares with those.
    """

    store: Store
    clock: Callable[[], int]
    name: str
    interval_s: int
    most_interval_s: int
    open: bool
    federation: Federation
    owner: str
    provider: Provider
    retention_s: float
    stop: Callable[[], None]
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    proxies: frozenset[str] = frozenset()
    announcements: Throttle = field(default_factory=lambda: Throttle(burst=20, every_ms=1000))
    newcomers: Throttle = field(default_factory=lambda: Throttle(burst=64, every_ms=10_000))
    readers: Throttle = field(default_factory=lambda: Throttle(burst=2000, every_ms=50))
    bodies: Shares = field(default_factory=lambda: Shares(_BODIES, "bodies"))
    reading: Shares = field(default_factory=lambda: Shares(_READINGS, "readers that wait for news", retry_after_s=5))
    pages: Shares = field(default_factory=lambda: Shares(_PAGES, "reads"))
    beside: FairThreads = field(default_factory=lambda: FairThreads(BESIDE))
    told: Callable[[str, str, int, float], None] | None = None
    relay: RelayServer | None = None
    turn: tuple[tuple[str, ...], str] = field(default=((), ""), repr=False)

    async def welcome(self, peer_id: str, remote: str | None) -> None:
        """Count a node that is not known yet against where it is announced from: peer ids and names cost nothing.

        What comes from this machine is not counted: who has an account on it is no stranger, and a proxy on it that
        is not named among `proxies` speaks for all.

        Raises:
            CallError: 429 `too-often`.
        """
        source = source_of(remote)
        if source != THIS_MACHINE and not await self.store.knows(peer_id):
            _throttle(self.newcomers, source, self.clock())

    @property
    def dictated_s(self) -> int:
        """Seconds between heartbeats that nodes are told to keep now: the more they are, the longer."""
        return min(max(self.interval_s, -(-self.store.kept // _BEATS_PER_S)), self.most_interval_s)


@web.middleware
async def _counted(request: web.Request, handler: _Handler) -> web.StreamResponse:
    told = request.app[_SERVICE].told
    if told is None:
        return await handler(request)
    loop, status = asyncio.get_running_loop(), 500
    begun = loop.time()
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        resource = request.match_info.route.resource
        told("other" if resource is None else resource.canonical, request.method, status, loop.time() - begun)


_SERVICE = web.AppKey("service", Service)
_CALLERS = web.AppKey("callers", Callers)


def make_app(service: Service, page: Iterable[web.AbstractRouteDef] = ()) -> web.Application:
    """Build the application; the server that runs it must not decompress requests (`auto_decompress=False`).

    Args:
        page: routes besides the API's, such as those of a page for people.
    """
    middlewares = [_counted, attended, forwarded(service.proxies), _in_line, problems, _guard]
    app = web.Application(middlewares=middlewares)
    app[_SERVICE] = service
    callers = app[_CALLERS] = Callers(
        provider=service.provider,
        enrolled=service.store.admin.operator,
        name=service.name,
        members=service.federation.members,
        clock=service.clock,
        seen=Seen(since=service.clock()),
    )
    access = AccessRoutes(
        callers=callers,
        admin=service.store.admin,
        tables=service.store.access,
        clock=service.clock,
        read_body=_body,
    )
    admin = Admin(
        store=service.store,
        federation=service.federation,
        owner=service.owner,
        callers=callers,
        clock=service.clock,
        read_body=_body,
        retention_s=service.retention_s,
        stop=service.stop,
    )

    async def taken(peer_id: str) -> None:
        await service.store.signed_record(peer_id)

    rendezvous = Rendezvous(taken=taken, clock=service.clock, relay=service.relay)
    app.on_shutdown.append(rendezvous.aclose)
    connections = RelayConnections(clock=service.clock, relay=service.relay)
    app.on_shutdown.append(connections.aclose)
    turn = Turn(*service.turn, admit=callers.reads_hidden, clock=service.clock)
    app.add_routes(
        [
            web.put("/up", _up),
            web.post("/connect", _up),
            web.put("/down", _down),
            web.post("/disconnect", _down),
            web.post("/state", _heartbeat),
            web.put("/state", _heartbeat),
            web.get("/state", _state),
            web.get("/nodes", _nodes),
            web.get("/nodes/{peer_id}", _node),
            web.get("/flows", _flows),
            web.get("/records", _records),
            web.post("/mesh", _mesh),
            web.get("/openapi.json", _openapi),
            *rendezvous.routes(),
            *connections.routes(),
            *turn.routes(),
            *admin.routes(),
            *access.routes(),
            *page,
        ]
    )
    return app


@web.middleware
async def _in_line(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Put a request into the line of whose it is: a proxy's connection carries those of many."""
    join_source(source_of(request.remote))
    return await handler(request)


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what a foreign web page made a browser send: DNS rebinding (Host), cross-site requests (Origin)."""
    hosts = request.headers.getall(hdrs.HOST, [])
    name = named_host(request)
    if name is None or not _is_own(name, request.app[_SERVICE].hosts):
        raise problem(
            421,
            "wrong-host",
            "this registry is not known by the host name of the request; its operator can add the name with --name",
        )
    own = (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower())
    welcome = request.app[_SERVICE].origins
    foreign = [origin for origin in request.headers.getall(hdrs.ORIGIN, []) if origin.lower() not in own]
    if not all(origin.lower() in welcome for origin in foreign):
        raise problem(403, "wrong-origin", "pages of this origin may not call this registry; see `origins`")
    try:
        response = _preflight() if foreign and _asks_first(request) else await handler(request)
    except CallError as error:
        # A page that may call is to read the refusals too.
        response = problem_of(error)
    response.headers["X-Content-Type-Options"] = "nosniff"
    if welcome:
        response.headers.add(hdrs.VARY, "Origin")
    if len(foreign) == 1:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = foreign[0]
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "ETag, Retry-After"
    return response


def _asks_first(request: web.Request) -> bool:
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _preflight() -> web.Response:
    """Answer what a browser asks before a page's request (CORS, Fetch standard 3.2): no cookies, no wildcard."""
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PUT, DELETE",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: f"Authorization, Content-Type, If-None-Match, {TOKEN_HEADER}",
        hdrs.ACCESS_CONTROL_MAX_AGE: "600",
    }
    return web.Response(status=204, headers=headers)


def _is_own(name: str, hosts: frozenset[str]) -> bool:
    # A rebinding attack needs a name: an address is what it is.
    if name == "localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _up(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    # Its place is kept until then: else what has come waits for the threads, as much as anybody sends.
    async with _brought(request, MAX_RECORD_BYTES) as signed:
        record = await service.beside.do(lambda: _verified(verify_record, signed))
    await service.store.admin.check(record, open_=service.open)
    _throttle(service.announcements, record.peer_id, service.clock())
    await service.welcome(record.peer_id, request.remote)
    accepted = await service.store.put(record, signed, service.clock())
    return _json(
        {
            "peer_id": record.peer_id,
            "seq": record.seq,
            "accepted": accepted.flows,
            "refused": accepted.refused,
            "interval_s": service.dictated_s,
        }
    )


async def _down(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    signed = await _body(request, MAX_NOTE_BYTES)
    goodbye = _verified(verify_goodbye, signed)
    _throttle(service.announcements, goodbye.peer_id, service.clock())
    await service.store.goodbye(goodbye, signed, service.clock())
    return _json({"peer_id": goodbye.peer_id, "seq": goodbye.seq, "online": None})


async def _heartbeat(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    signed = await _body(request, MAX_NOTE_BYTES)
    heartbeat = _verified(verify_heartbeat, signed)
    # Half the shortest interval: timers and networks jitter, and nodes learn of a longer one by the answer.
    await service.store.heartbeat(heartbeat, signed, service.clock(), gap_ms=service.interval_s * 500)
    return _json({**_about(service), "interval_s": service.dictated_s})


async def _state(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    with service.pages.hold(source_of(request.remote)):
        counts = await service.store.counts(service.clock())
    flows = counts.pop("flows")
    known = {"peer_id": service.federation.own, "open": service.open}
    return _json({**_about(service), **known, "nodes": counts, "flows": flows})


async def _nodes(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    hidden = await request.app[_CALLERS].reads_hidden(request)
    asked = _page_request(request, NODE_FIELDS)
    with service.pages.hold(source_of(request.remote)):
        if hidden:
            return _json(await service.store.nodes(replace(asked, hidden=True), service.clock()))
        page = await service.store.nodes(asked, service.clock())
        return await _tagged(request, page, "application/json")


async def _flows(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    hidden = await request.app[_CALLERS].reads_hidden(request)
    asked = _page_request(request, FLOW_FIELDS)
    with service.pages.hold(source_of(request.remote)):
        if hidden:
            return _json(await service.store.search(replace(asked, hidden=True), service.clock()))
        page = await service.store.search(asked, service.clock())
        return await _tagged(request, page, "application/json")


async def _node(request: web.Request) -> web.Response:
    hidden = await request.app[_CALLERS].reads_hidden(request)
    try:
        peer_id = PeerId.parse(request.match_info["peer_id"])
    except ValueError:
        raise problem(404, "no-such-node", "this is not a peer id") from None
    service = request.app[_SERVICE]
    with service.pages.hold(source_of(request.remote)):
        if hidden:
            record = await service.store.signed_record(str(peer_id))
            return web.Response(body=record, content_type=MSGPACK_TYPE, headers={hdrs.CACHE_CONTROL: "no-store"})
        return await _tagged(request, await service.store.signed_record(str(peer_id), hidden=False), MSGPACK_TYPE)


async def _records(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    await request.app[_CALLERS].check_mesh_reader(request)
    given = request.query
    if len(given) != len(set(given)) or not set(given) <= {"since", "epoch", "wait"}:
        raise problem(400, "bad-args", "the parameters are since, epoch and wait, each once", arg="since")
    since, epoch, wait = given.get("since", "0"), given.get("epoch", ""), given.get("wait", "0")
    if not re.fullmatch(r"[0-9]{1,15}", since, re.ASCII):
        raise problem(400, "bad-args", "since is a cursor, a whole number", arg="since")
    if not re.fullmatch(r"([0-9a-f]{32})?", epoch, re.ASCII):
        raise problem(400, "bad-args", "epoch is 32 hexadecimal digits", arg="epoch")
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", wait, re.ASCII):
        raise problem(400, "bad-args", "wait is in seconds, under 100", arg="wait")
    source = source_of(request.remote)
    _throttle(service.readers, source, service.clock())
    with service.reading.hold(source):
        batch = await service.federation.batch(int(since), bytes.fromhex(epoch) or None, float(wait))
    return web.Response(body=batch, content_type=MSGPACK_TYPE, headers={hdrs.CACHE_CONTROL: "no-store"})


async def _mesh(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    if not service.federation.members:
        raise problem(403, "not-a-member", "this registry accepts nodes from no other registry; see --mesh-member")
    _throttle(service.readers, source_of(request.remote), service.clock())
    async with _brought(request, Batch.LIMIT) as signed:
        return _json(await service.federation.take(signed))


async def _openapi(request: web.Request) -> web.Response:
    return await _tagged(request, document(installed_version()), "application/json")


def _about(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "python": platform.python_version(),
        "version": installed_version(),
        "registry": service.clock(),
    }


def _page_request(request: web.Request, fields: Mapping[str, Kind]) -> PageRequest:
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise problem(400, "bad-args", f"the parameter {name[:64]!r} is given more than once", arg=name[:64])
    return parse_page(request.query, fields)


def _throttle(throttle: Throttle, key: str, now: int) -> None:
    wait = throttle.wait_ms(key, now)
    if wait:
        seconds = -(-wait // 1000)
        raise problem(429, "too-often", f"too many of these at once; wait {seconds} s", retry_after_s=seconds)


def _verified(verify: Callable[[bytes], _Read], signed: bytes) -> _Read:
    try:
        return verify(signed)
    except IdentityError as error:
        raise problem(400, "bad-signature", str(error)) from None
    except PeerError as error:
        raise problem(400, "malformed", str(error)) from None


async def _body(request: web.Request, limit: int, content_type: str = MSGPACK_TYPE) -> bytes:
    """Read a body of this type and of at most `limit` bytes."""
    async with _brought(request, limit, content_type) as body:
        return body


@contextlib.asynccontextmanager
async def _brought(request: web.Request, limit: int, content_type: str = MSGPACK_TYPE) -> AsyncIterator[bytes]:
    """Read a body as `_body`, which has its place until the end of the block."""
    if request.content_type != content_type:
        raise problem(415, "wrong-content-type", f"the body must be {content_type}")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise problem(415, "wrong-content-encoding", "send the body uncompressed")
    too_large = problem(413, "too-large", f"this call takes at most {limit} bytes", limit=limit)
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    with request.app[_SERVICE].bodies.hold(source_of(request.remote)):
        try:
            body = bytearray()
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.content.iter_chunked(64 * 1024):
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise problem(408, "too-slow", f"the body did not arrive within {_BODY_S:.0f} s") from None
        except (BadHttpMessage, aiohttp.ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise problem(400, "malformed", "the body did not arrive whole") from None
        yield bytes(body)


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _json(value: Any) -> web.Response:
    return web.Response(
        body=_encode(value),
        content_type="application/json",
        charset="utf-8",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


async def _tagged(request: web.Request, answer: Any, content_type: str) -> web.Response:
    """Answer bytes, or a value as JSON, or 304 when the caller has it; compressed when that pays and is welcome."""
    service = request.app[_SERVICE]
    # Weak: the same tag stands for the compressed and for the plain form (RFC 9110, section 8.8.1).
    wants_gzip = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    known = {other.value for other in request.if_none_match or ()}

    def prepare(body: bytes) -> tuple[aiohttp.ETag, bytes | None, bool]:
        tag = aiohttp.ETag(hashlib.sha256(body).hexdigest()[:32], is_weak=True)
        if known & {tag.value, "*"}:
            return tag, None, False
        packs = wants_gzip and len(body) >= _GZIP_FROM_BYTES
        return tag, gzip.compress(body, _GZIP_LEVEL, mtime=0) if packs else body, packs

    if isinstance(answer, bytes) and len(answer) < _LONG_BYTES:
        tag, body, packed = prepare(answer)
    else:
        tag, body, packed = await service.beside.do(
            lambda: prepare(answer if isinstance(answer, bytes) else _encode(answer))
        )
    # What one reader may see a cache is not to show to another.
    headers = {hdrs.CACHE_CONTROL: "private, no-cache", hdrs.VARY: "Accept-Encoding, Authorization"}
    if packed:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    if body is None:
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(body=body, content_type=content_type, headers=headers)
    response.etag = tag
    return response
