"""A registry that runs: its configuration, its socket, and the life of both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from aiohttp import web
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from kodo.access.local import LocalProvider
from kodo.access.null import NullProvider
from kodo.access.oidc import OidcConfig, OidcProvider
from kodo.access.outgoing import use_proxy
from kodo.access.provider import Provider
from kodo.http.connections import Door, serve
from kodo.p2p.core.hosts import is_local, is_own_host, plain_host
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.relay import RelayBounds
from kodo.p2p.errors import CallError, UsageError
from kodo.p2p.net.descriptors import raise_descriptors
from kodo.p2p.net.keystore import load_identity
from kodo.p2p.net.names import look_up
from kodo.p2p.net.relay import RelayServer
from kodo.registry.federation import Federation
from kodo.registry.health import Due, Prober
from kodo.registry.http.app import Service, make_app
from kodo.registry.http.tls import certificate_of
from kodo.registry.store.store import Bounds, Store
from kodo.settings.registry import RegistrySettings

if TYPE_CHECKING:
    from kodo.monitor.server import MonitorServer

__all__ = ["DEFAULT_PORT", "Registry", "RegistryConfig"]

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8360
MAX_HEARTBEAT_S = 150
"""Longest interval between heartbeats: one of them may get lost within the 300 s to `unknown`."""
_IDLE_S = 75.0
_LINGER_S = 1.0
"""Seconds for which the rest of a refused body is still read, so that its sender gets to see the refusal."""
_SHUTDOWN_S = 5.0
_COUNT_S = 10.0
"""How long what was counted is told again: counting takes a while, and whoever reaches the metrics may ask often."""
_MAX_FIELD = 20 << 10
"""Bytes of a header: a token has up to 16 KiB."""

_HTTP: dict[str, Any] = {
    "access_log": None,  # searches stand in URLs, and who searches what is nobody's business
    "auto_decompress": False,
    "keepalive_timeout": _IDLE_S,
    "max_field_size": _MAX_FIELD,
    "lingering_time": _LINGER_S,
}
"""How each connection is dealt with."""


def _address(text: str) -> str:
    try:
        return plain_host(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


Address = Annotated[str, BeforeValidator(_address)]


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://[^/@?#\s]{1,290}", text):
        raise ValueError(f"{text[:300]!r} is no origin; one looks like https://flows.example.com, without a path")
    return text


Origin = Annotated[str, AfterValidator(_origin)]


class RegistryConfig(RegistrySettings):
    """A registry's settings (`RegistrySettings`), and what else it is told by whoever starts it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, hide_input_in_errors=True)

    former_names: ClassVar[Mapping[str, str]] = {"mesh_s": "mesh_interval_s"}

    home: Path = Field(description="Folder of its file, `registry.db`.")
    host: str = Field(default="127.0.0.1", min_length=1, max_length=253, description="Address or name to listen on.")
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535, description="TCP port; with 0 the system chooses.")
    name: str = Field(default="registry", min_length=1, max_length=253, description="The registry's own name.")
    open: bool | None = Field(
        default=None,
        description="List nodes that nobody registered. Default: only where `host` is a loopback or private address.",
    )
    heartbeat_s: int = Field(
        default=60,
        ge=1,
        le=MAX_HEARTBEAT_S,
        description="Seconds between the heartbeats of a node; raised to at most 150 when there are many nodes.",
    )
    origins: frozenset[Origin] = Field(
        default=frozenset(),
        description="Origins of web pages that may call the registry, e.g. `https://flows.example.com`.",
    )
    hosts: frozenset[str] = Field(
        default=frozenset(), description="Host names of the registry, besides IP addresses and `localhost`."
    )
    proxies: frozenset[Address] = Field(
        default=frozenset(),
        description="Addresses of reverse proxies whose word is taken for who calls"
        " (`X-Forwarded-For`, `X-Forwarded-Proto`).",
    )
    max_nodes: int = Field(default=100_000, ge=1, description="How many node records are kept.")
    max_flows: int = Field(default=1_000_000, ge=1, description="How many flows are kept, of all nodes together.")
    retention_s: float = Field(
        default=7 * 86400.0, ge=3600, description="Seconds without a sign of life after which a node is stale."
    )
    search_s: float = Field(default=0.2, gt=0, le=60, description="Seconds of work that one page may take.")
    oidc: OidcConfig | None = Field(default=None, description="The issuer, with the provider `oidc`.")

    @property
    def database(self) -> Path:
        """The one file that it keeps."""
        return self.home / "registry.db"


def _system_clock() -> int:
    return time.time_ns() // 1_000_000


class Registry:
    """A running registry: `async with Registry(config) as registry: registry.url`. Closing is idempotent.

    Args:
        clock: gives ms UTC.
        page: routes of a page for people, which it serves besides its API.
    """

    def __init__(
        self,
        config: RegistryConfig,
        *,
        clock: Callable[[], int] = _system_clock,
        page: Iterable[web.AbstractRouteDef] = (),
    ) -> None:
        self.config = config
        self._page = tuple(page)
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()
        self._peer_id: str | None = None
        self.waits_for = "its address"
        """What its start waits for now, for people."""
        self.asked_to_stop = asyncio.Event()
        """Set once an operator asked for it; whoever runs the registry closes it then."""
        self.first_code: str | None = None
        """At the very first start, the code by which an operator enrols from elsewhere; good for a day, once."""
        self._address: tuple[str, int] | None = None
        self._counts: dict[str, int] = {}
        self._counted_at = -_COUNT_S
        self.relay: RelayServer | None = None
        """What passes on packets to nodes that are not reached directly; None: it could not be opened."""
        self.monitor: MonitorServer | None = None
        """What serves its metrics, if that was asked for."""

    @property
    def url(self) -> str:
        """Where it answers, `http://host:port`; on this machine when it listens on all addresses.

        Raises:
            UsageError: it does not run.
        """
        if self._address is None:
            raise UsageError("the registry does not run; use `async with`")
        host, port = self._address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "http" if self.config.tls_cert is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def describe(self) -> str:
        """Return a line for its operator: who is let in."""
        who = {"local": "users of this registry", "oidc": "whoever its issuer knows"}.get(self.config.auth)
        reads = "everybody who can reach it reads it" if who is None else f"{who} with a grant for it read it"
        far = not is_own_host(self.config.host) and self.config.tls_cert is None
        return reads + (", on this machine only: elsewhere that takes --tls-cert" if who and far else "")

    @property
    def peer_id(self) -> str:
        """Who it is to other registries.

        Raises:
            UsageError: it does not run.
        """
        if self._peer_id is None:
            raise UsageError("the registry does not run; use `async with`")
        return self._peer_id

    async def __aenter__(self) -> Registry:
        """Open the file, listen, answer.

        Raises:
            UsageError: the file or the address cannot be used.
        """
        config = self.config
        use_proxy(config.proxy)
        descriptors = raise_descriptors()
        certificate = certificate_of(config.tls_cert, config.tls_key)
        for member in config.mesh_members:
            try:
                PeerId.parse(member)
            except ValueError as error:
                raise UsageError(f"the mesh member {member!r} is not a peer id: {error}") from None
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(await _listen(config.host, config.port))
            host, port = listener.getsockname()[:2]
            self.relay = self._open_relay(stack, host, port)
            bounds = Bounds(nodes=config.max_nodes, flows=config.max_flows, read_s=config.search_s)
            self.waits_for = "its database to open, which takes longer after an upgrade"
            store = await stack.enter_async_context(Store(config.database, bounds))
            added = await store.admin.mesh_urls()
            federation = Federation(
                store.mesh,
                load_identity(config.home, "registry"),
                self._clock,
                read=(*config.mesh_read, *(url for url, feed in added if not feed)),
                feed=(*config.mesh_feed, *(url for url, feed in added if feed)),
                members=frozenset(config.mesh_members),
                interval_s=config.mesh_interval_s,
            )
            owner = str(load_identity(config.home, "user").peer_id)
            service = Service(
                store=store,
                provider=await self._provider(store, owner, federation.own),
                clock=self._clock,
                name=config.name,
                interval_s=config.heartbeat_s,
                federation=federation,
                beside=federation.beside,
                owner=owner,
                retention_s=config.retention_s,
                stop=self.asked_to_stop.set,
                most_interval_s=MAX_HEARTBEAT_S,
                open=is_local(host) if config.open is None else config.open,
                origins=frozenset(origin.lower() for origin in config.origins),
                hosts=frozenset(name.lower() for name in config.hosts),
                proxies=config.proxies,
                relay=self.relay,
                turn=_turn(config),
            )
            if config.metrics is not None:
                service.told = await self._watch(stack, store, config.metrics)
            self.waits_for = "the registries that it reads and feeds"
            runner = web.AppRunner(make_app(service, self._page), shutdown_timeout=_SHUTDOWN_S, **_HTTP)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            assert runner.server is not None
            tls = None if certificate is None else certificate.context
            await stack.enter_async_context(
                serve(runner.server, listener, Door(descriptors, config.proxies), tls, **_HTTP)
            )
            if certificate is not None:
                await stack.enter_async_context(_beside(certificate.watch()))
            await stack.enter_async_context(federation)
            if config.probe_s is not None:
                await stack.enter_async_context(self._prober(store, config.probe_s, federation.identity))
            self.first_code = await store.admin.first_code(self._clock())
            self._address, self._peer_id = (host, port), federation.own
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _open_relay(self, stack: contextlib.AsyncExitStack, host: str, port: int) -> RelayServer | None:
        """Open the UDP port of the same number; a registry without one does all else."""
        config = self.config
        hosts = ["0.0.0.0", "::"] if host == "::" or config.proxies else [host]  # a proxy passes on no UDP
        rate = config.relay_bytes
        least = RelayBounds()
        bounds = RelayBounds.introducing_only()
        if rate:
            bounds = RelayBounds(
                rate=rate,
                rate_per_node=min(rate, least.rate_per_node),
                rate_per_channel=min(rate, least.rate_per_channel),
            )
        relay = RelayServer(bounds)
        try:
            relay.open(hosts, port)
        except UsageError as error:
            logger.warning("nodes that are not reached directly are not relayed to: %s", error)
            return None
        stack.callback(relay.close)
        return relay

    async def _provider(self, store: Store, owner: str, own: str) -> Provider:
        config, clock = self.config, asyncio.get_running_loop().time
        # Of the time that a loss may take, half is left to what is under way.
        cache_s = config.access_s / 2
        if config.auth == "null":
            return NullProvider(owner, open=True)
        if config.auth == "oidc":
            if config.oidc is None:
                raise UsageError("the provider oidc needs an issuer, an audience and a client id")
            return OidcProvider(owner, config.oidc, self._clock, clock, cache_s=cache_s)
        local = LocalProvider(owner, own, store.access, self._clock, cache_s=cache_s)
        await local.open()
        return local

    async def _watch(
        self, stack: contextlib.AsyncExitStack, store: Store, address: str
    ) -> Callable[[str, str, int, float], None]:
        """Serve metrics; give what counts a request."""
        # Imported here: most registries serve no metrics.
        from kodo.monitor.server import MonitorServer, parse_endpoint
        from kodo.registry.metrics import RegistryMetrics

        def failing() -> dict[str, str]:
            return {} if self._address is not None else {"start": "the registry is starting, or stopping"}

        self.monitor = await stack.enter_async_context(MonitorServer(parse_endpoint(address), failing))
        self.monitor.refresh_by(lambda: self._count(store))
        return RegistryMetrics(self.monitor.registry, lambda: self._counts, lambda: store.size).on_request

    async def _count(self, store: Store) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at >= _COUNT_S:
            self._counted_at = now
            with contextlib.suppress(CallError):  # what was counted last will do
                self._counts = await store.counts(self._clock())

    def _prober(self, store: Store, every_s: float, identity: Identity) -> Prober:
        async def due(most: int) -> Sequence[Due]:
            return await store.due(self._clock() - round(every_s * 1000), most)

        async def measured(peer_id: str, took_s: float | None) -> None:
            await store.measured(peer_id, took_s, self._clock())

        return Prober(due, measured, identity, every_s)

    async def aclose(self) -> None:
        """Stop answering, let requests end (at most 5 s), close the file."""
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        self._address = None
        await stack.aclose()


def _turn(config: RegistryConfig) -> tuple[tuple[str, ...], str]:
    """Return which TURN servers pages are told, and what the registry shares with those.

    Raises:
        UsageError: what it would share is missing, or nothing to share it with is named.
    """
    if config.turn_secret is not None and not config.turn:
        raise UsageError(
            "`turn_secret` is set, and `turn` is missing: the URLs of the TURN servers that it is for, in kodo.toml"
            " or as KODO_TURN"
        )
    if config.turn and config.turn_secret is None:
        raise UsageError(
            "`turn` names a TURN server, and `turn_secret` is missing: the secret of that server (coturn:"
            " static-auth-secret), in kodo.toml or as KODO_TURN_SECRET"
        )
    return config.turn, config.turn_secret or ""


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do work until the end of the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()


async def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = (await look_up(host, port, server=True))[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"the registry cannot listen on {host}: {error.strerror or error}") from error
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise UsageError(f"the registry cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener
