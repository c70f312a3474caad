"""`koco web` and `koco up --web` at work: the page and its server on loopback, for this user alone."""

from __future__ import annotations

import contextlib
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from kodo.client.finders import HomeFinder, LanFinder, RegistryFinder
from kodo.client.known_nodes import KnownNodes
from kodo.client.login import LoginKeeper
from kodo.client.logins import Logins
from kodo.client.resolve import Finder, Resolver
from kodo.http.connections import Door, serve
from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import whole_file
from kodo.p2p.net.keystore import load_identity, make_home
from kodo.registry.client.client import RegistryClient
from kodo.registry.problems import problems
from kodo.settings.home import Settings
from kodo.web.api import Api, Configs
from kodo.web.doors import Keys, guard
from kodo.web.issuers import issuer_routes
from kodo.web.port import ADDRESS, last_port, listen, remember_port
from kodo.web.site import Site

__all__ = ["DEFAULT_PORT", "WebConfig", "WebServer"]

DEFAULT_PORT = 8361
_CONNECTIONS = 512
_SHUTDOWN_S = 2.0
_ENTRY_FILE = "web-enter.html"

_HTTP: dict[str, Any] = {
    "access_log": None,  # searches stand in URLs
    "auto_decompress": False,
    "keepalive_timeout": 75.0,
    "lingering_time": 1.0,
}


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How the page is served.

    Attributes:
        home: of the user; the port is remembered there, and logins to registries are taken from there.
        settings: registries, local network, deadlines.
        port: TCP on loopback; 0 lets the system choose, None takes the one used last, at first `DEFAULT_PORT`.
        configs: what the page shows of settings of MCP hosts.
    """

    home: Path
    settings: Settings
    port: int | None = None
    configs: Configs | None = None


class WebServer:
    """`async with WebServer(config) as server: server.url`. Closing is idempotent."""

    def __init__(self, config: WebConfig, *, site: Site | None = None) -> None:
        self.config = config
        self._site = site
        self._stack = contextlib.AsyncExitStack()
        self._keys = Keys()
        self._port = 0

    @property
    def origin(self) -> str:
        """The page's origin.

        Raises:
            UsageError: it does not run.
        """
        if not self._port:
            raise UsageError("the page is not served; use `async with`")
        return f"http://{ADDRESS}:{self._port}"

    @property
    def url(self) -> str:
        """The page's address with the key that lets a browser in. It stands in the fragment, which no request has."""
        return f"{self.origin}/#key={self._keys.entry}"

    async def __aenter__(self) -> WebServer:
        """Listen.

        Raises:
            UsageError: the page is not built, or its port is somebody else's.
        """
        config, settings = self.config, self.config.settings
        site = self._site or Site("web")
        home = make_home(config.home)
        remembered = last_port(home)
        port = config.port if config.port is not None else remembered or DEFAULT_PORT
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(listen(port))
            known = KnownNodes(home / "known_nodes")
            near: list[Finder] = [HomeFinder(home)]
            if settings.lan:
                lan = LanFinder(settings.browse_s)
                stack.push_async_callback(lan.aclose)
                near.append(lan)
            timeout = min(settings.timeout_s, 10.0)
            logins = Logins(home / "logins.json", keyring=settings.keyring)
            keeper = LoginKeeper(logins, load_identity(home, "user"), bound=settings.login_bound)
            registries, finders = [], []
            for url in settings.registry:
                claimant = keeper.claimant(url)
                client = RegistryClient(url, timeout=timeout, claimant=claimant)
                registries.append(await stack.enter_async_context(client))
                finders.append(RegistryFinder(url, timeout, claimant=claimant))
            everywhere = Resolver(near, known, far=finders)
            api = Api(self._keys, Resolver(near, known), everywhere, registries, settings.lan, config.configs)
            stack.push_async_callback(api.aclose)
            app = web.Application(
                middlewares=[problems, guard(lambda: self._port, self._keys)], client_max_size=64 << 10
            )
            app.add_routes([*site.routes(), *api.routes(), *issuer_routes()])
            runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_S, **_HTTP)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            assert runner.server is not None
            await stack.enter_async_context(serve(runner.server, listener, Door(_CONNECTIONS * 4), None, **_HTTP))
            self._port = listener.getsockname()[1]
            remember_port(home, self._port)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop answering."""
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        self._port = 0
        await stack.aclose()
        (self.config.home / _ENTRY_FILE).unlink(missing_ok=True)

    def write_entry(self) -> str:
        """Write a file that leads a browser to the page, and return the file's address.

        A browser is started with an address as an argument, and every account of a machine can read the arguments of
        its processes: that is no place for the key. The file can be read by this user alone.
        """
        path = self.config.home / _ENTRY_FILE
        text = (
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>kodo</title>'
            f'<meta http-equiv="refresh" content="0; url={html.escape(self.url)}">'
        )
        with whole_file(path) as file:
            file.write(text.encode())
        return path.absolute().as_uri()
