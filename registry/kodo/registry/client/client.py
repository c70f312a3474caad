"""A registry's caller: what nodes announce themselves with, and what clients look them up with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

from kodo.access.outgoing import open_session, proxy_error, shown_proxy
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import (
    BrokenSessionError,
    CallError,
    CapacityError,
    DeadlineError,
    IdentityError,
    PeerError,
    UnreachableError,
    UsageError,
)
from kodo.registry.client.signed_requests import Claimant, check_private_url, is_private
from kodo.registry.records.mesh import Batch
from kodo.registry.records.record import MAX_RECORD_BYTES, NodeRecord, verify_record
from kodo.registry.records.signed import pack, unpack

__all__ = [
    "BroughtAnswer",
    "FlowRefusal",
    "Page",
    "RegistryClient",
    "RegistryState",
    "StateAnswer",
    "TurnAnswer",
    "UpAnswer",
]

MAX_ANSWER_BYTES = 32 << 20
"""Bound of an answer, uncompressed: 500 flows with the longest of everything."""

_MAX_VALUES = 1 << 16
"""Values in an answer about users: a page has at most 20 of them, with all that they may have."""

_TRIES = 4
"""Of one request: unsigned, signed, by the registry's clock, with another token."""

_MAX_TURN_BYTES = 16 << 10
_LONGEST_RETRY_S = 86400
"""Seconds; who asks to be left alone for longer is not taken at its word."""

_MSGPACK = "application/msgpack"
_PROXY_LOGIN = 407


class _Answer(BaseModel):
    """The root of what registries answer; keys that are not known are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class FlowRefusal(_Answer):
    """A flow that the registry does not list; `missing` are the fields that it needs."""

    path: str
    reason: str
    missing: list[str] = []


class UpAnswer(_Answer):
    """What became of a record; `interval_s` is the seconds between heartbeats to keep from now on."""

    interval_s: int = Field(ge=1, le=86400)
    accepted: list[str]
    refused: list[FlowRefusal]


class StateAnswer(_Answer):
    """The answer to a heartbeat; `registry` is its clock in ms UTC, `interval_s` as in `UpAnswer`."""

    name: str
    python: str
    version: str
    registry: int
    interval_s: int = Field(ge=1, le=86400)


class RegistryState(_Answer):
    """A registry's state; `nodes` counts them as `online`, `unknown` and `offline`, `peer_id` is its own."""

    name: str
    python: str
    version: str
    registry: int
    peer_id: str | None = None
    nodes: dict[str, int]
    flows: int


class BroughtAnswer(_Answer):
    """What became of a batch's items; `epoch` is the registry's file, hexadecimal."""

    taken: int
    known: int
    forged: int
    stale: int
    refused: int
    epoch: str = Field(max_length=64)


class Page(_Answer):
    """A page of rows: claims, so verify what matters. The totals are lower bounds when `total_is_lower_bound`."""

    total_records: int
    filtered_records: int
    total_pages: int
    total_is_lower_bound: bool = False
    search: str | None = None
    query: str | None = None
    by: str | None = None
    p: int
    pp: int
    result: list[dict[str, Any]]


class TurnAnswer(_Answer):
    """What a browser is told of TURN servers; it checks itself what it takes of that."""

    urls: list[str] = Field(max_length=16)
    username: str = Field(max_length=512)
    credential: str = Field(max_length=512)
    expires_at: int


_Model = TypeVar("_Model", bound=_Answer)


async def _note_connecting(http: object, context: SimpleNamespace, made: object) -> None:
    context.began = asyncio.get_running_loop().time()


class RegistryClient:
    """One registry; `async with`. Cancelling any call is safe.

    Args:
        url: of the registry.
        timeout: seconds for one request.
        claimant: signs what the registry asks to be signed: nothing before it asks, and nothing that somebody on the
            way could read.
        connected: called whenever a connection was made, with the seconds that took, before anything is asked.

    Every call raises:
        UnreachableError: no connection could be made.
        BrokenSessionError: the connection broke.
        DeadlineError: no whole answer within `timeout` seconds.
        CallError: the registry refused; `reason` as its API documents, `retry_after_s` in `data` if it said so. 403
            `tls-only` also where nothing was sent, since others could have read it.
        PeerError: the answer is not what a registry answers.
        CapacityError: the answer is over the limit of size.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        claimant: Claimant | None = None,
        connected: Callable[[float], None] | None = None,
    ) -> None:
        try:
            parsed = URL(url)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{url!r} is not the URL of a registry: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query_string or parsed.fragment:
            raise UsageError(f"{url!r} is not the URL of a registry, e.g. http://host:port")
        self.url = str(parsed).rstrip("/")
        self._timeout = timeout
        self._claimant = claimant if is_private(self.url) else None
        self._claims = False
        self._connected = connected
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def __aenter__(self) -> RegistryClient:
        trace = aiohttp.TraceConfig(SimpleNamespace)
        trace.on_connection_create_start.append(_note_connecting)
        trace.on_connection_create_end.append(self._note_connected)
        self._session, self._proxy = await open_session(
            self.url,
            auto_decompress=True,
            raise_for_status=False,
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _note_connected(self, http: object, context: SimpleNamespace, made: object) -> None:
        if self._connected is not None:
            self._connected(asyncio.get_running_loop().time() - context.began)

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def up(self, signed: bytes) -> UpAnswer:
        """Announce a signed record (`sign_record`)."""
        return self._parse(UpAnswer, await self.call("PUT", "/up", data=signed))

    async def down(self, signed: bytes) -> None:
        """Return a signed goodbye (`sign_goodbye`)."""
        await self.call("PUT", "/down", data=signed)

    async def state(self, signed: bytes) -> StateAnswer:
        """Send a signed heartbeat (`sign_heartbeat`)."""
        return self._parse(StateAnswer, await self.call("POST", "/state", data=signed))

    async def registry_state(self) -> RegistryState:
        """Ask how the registry is."""
        return self._parse(RegistryState, await self.call("GET", "/state"))

    async def turn(self) -> dict[str, Any]:
        """Ask for credentials of TURN servers, for a page.

        Raises:
            CallError: 404 `no-turn`, the registry names none.
        """
        return self._parse(TurnAnswer, await self.call("GET", "/turn", limit=_MAX_TURN_BYTES)).model_dump()

    async def nodes(
        self,
        *,
        search: str | None = None,
        query: str | None = None,
        p: int = 1,
        pp: int = 100,
        by: str | None = None,
    ) -> Page:
        """Return a page of nodes."""
        return await self._page("/nodes", search, query, p, pp, by)

    async def flows(
        self,
        *,
        search: str | None = None,
        query: str | None = None,
        p: int = 1,
        pp: int = 100,
        by: str | None = None,
    ) -> Page:
        """Return a page of flows."""
        return await self._page("/flows", search, query, p, pp, by)

    async def record(self, peer_id: str) -> NodeRecord:
        """Return the record of `peer_id`, its signature checked. It may have expired: see `expires_at`.

        Raises:
            UsageError: `peer_id` is not a peer id.
            IdentityError: it is signed by, or about, somebody else.
        """
        try:
            PeerId.parse(peer_id)
        except ValueError as error:
            raise UsageError(str(error)) from None
        signed = await self.call("GET", f"/nodes/{quote(peer_id, safe='')}", limit=MAX_RECORD_BYTES)
        record = await asyncio.to_thread(verify_record, signed)
        if record.peer_id != peer_id:
            raise IdentityError(f"asked for {peer_id}, {self.url} gave the record of {record.peer_id}")
        return record

    async def records(self, since: int, epoch: str | None, wait_s: float) -> bytes:
        """Read what changed at the registry: a signed batch (`kodo.registry.records.mesh`), unverified.

        Args:
            since: cursor of the batch before; 0 at first.
            epoch: of that batch, hexadecimal.
            wait_s: seconds to wait there for news.
        """
        params = {"since": str(since), "wait": f"{wait_s:.3f}", **({} if epoch is None else {"epoch": epoch})}
        return await self.call("GET", "/records", params=params, limit=Batch.LIMIT)

    async def bring(self, signed: bytes) -> str:
        """Bring a signed batch (`Brought`); gives the epoch of the registry's file."""
        return self._parse(BroughtAnswer, await self.call("POST", "/mesh", data=signed)).epoch

    async def access(self, op: str, args: Mapping[str, Any]) -> Any:
        """Make one of the calls about users, as nodes take them; who calls is shown but to `auth.info`."""
        answer = await self.call("POST", f"/access/{op}", data=pack(dict(args)), claim=op != "auth.info")
        return unpack(answer, most=_MAX_VALUES, lists=True)

    async def _page(self, path: str, search: str | None, query: str | None, p: int, pp: int, by: str | None) -> Page:
        given = {"search": search, "query": query, "by": by, "p": str(p), "pp": str(pp)}
        params = {name: value for name, value in given.items() if value is not None}
        return self._parse(Page, await self.call("GET", path, params=params))

    async def call(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = _MSGPACK,
        claim: bool = False,
        limit: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """Make one request and give the body of its answer; with `claim` it is signed unasked.

        What is signed may hold a password or the proof of a code, and is for nobody on the way to read or repeat: it
        is refused here, before anything is sent, where the registry would refuse it.
        """
        if claim:
            check_private_url(self.url)
        target = str(URL.build(path=path, query=params)) if params else path
        for _ in range(_TRIES):
            headers = {} if data is None else {"Content-Type": content_type}
            if self._claimant is not None and (claim or self._claims):
                headers |= await self._claimant.headers(self.url, method, target, data or b"")
            try:
                return await self._ask(method, target, data, headers, limit)
            except CallError as error:
                if error.code != 401 or self._claimant is None:
                    raise
                if error.reason == "login-needed" and not claim and not self._claims:
                    self._claims = True
                elif not await self._claimant.learns(error):
                    raise
                refusal = error
        raise refusal

    async def _ask(self, method: str, target: str, data: bytes | None, headers: dict[str, str], limit: int) -> bytes:
        if self._session is None:
            raise UsageError("the registry client is closed; use `async with`")
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.request(
                    method,
                    URL(self.url + target, encoded=True),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_chunked(64 * 1024):
                    body += chunk
                    if len(body) > limit:
                        raise CapacityError(f"{self.url} answered more than {limit} bytes")
                if response.status == 200:
                    return bytes(body)
                if response.status == _PROXY_LOGIN:
                    response.raise_for_status()
                raise self._refusal(response, bytes(body))
        except TimeoutError as error:
            raise DeadlineError(f"{self.url} did not answer within {self._timeout:g} s") from error
        except aiohttp.ClientError as error:
            if by_proxy := proxy_error(error, self.url, self._proxy):
                raise by_proxy from error
            if isinstance(error, aiohttp.ClientConnectorError):
                raise UnreachableError(f"no registry answers at {self.url}: {error.strerror or error}") from error
            raise BrokenSessionError(f"the connection to {self.url} broke: {error}") from error
        except (OSError, ValueError) as error:
            raise PeerError(f"{self.url} does not speak HTTP as it should: {error}") from error

    def _who(self) -> str:
        """Return who answers, for people: by what else than a registry it may be the proxy."""
        by = "" if self._proxy is None else f", or the proxy {shown_proxy(self._proxy)},"
        return f"{self.url}{by}"

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes) -> CallError | PeerError:
        if not 400 <= response.status <= 599:
            return PeerError(f"{self.url} answered with status {response.status}; is this a registry?")
        try:
            facts = json.loads(body)
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            facts = {}
        reason, detail = facts.pop("reason", None), facts.pop("detail", None)
        data = {name: value for name, value in facts.items() if name not in ("type", "title", "status", "instance")}
        wait = data.get("retry_after_s", 0)
        if not isinstance(wait, int) or not 0 <= wait <= _LONGEST_RETRY_S:
            del data["retry_after_s"]
        return CallError(
            response.status,
            reason[:64] if isinstance(reason, str) else "refused",
            detail[:1024] if isinstance(detail, str) else f"{self._who()} refused with status {response.status}",
            data,
        )

    def _parse(self, model: type[_Model], body: bytes) -> _Model:
        try:
            return model.model_validate(json.loads(body))
        except (ValueError, RecursionError) as error:
            what = (
                error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else ""
            )
            raise PeerError(f"{self.url} gave an answer that cannot be read; is this a registry? {what}") from None
