"""`koco up`, `koco registry`."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client.config import Loaded
    from kodo.monitor.server import MonitorServer
    from kodo.settings.home import Settings
    from kodo.web.server import WebServer
    from kodo.web.site import Site

__all__ = ["register"]

Host = Annotated[
    list[str] | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; may be repeated.")
]
Auth = Annotated[
    str | None,
    typer.Option(
        "--auth",
        metavar="PROVIDER",
        help="How callers are identified: null (not at all), local (accounts kept here) or oidc (an issuer).",
    ),
]
Issuer = Annotated[str | None, typer.Option("--issuer", metavar="URL", help="With --auth oidc: the issuer.")]
Audience = Annotated[
    str | None, typer.Option("--audience", metavar="AUDIENCE", help="With --auth oidc: whom tokens must be for.")
]
ClientId = Annotated[
    str | None,
    typer.Option("--client-id", metavar="ID", help="With --auth oidc: the client id to ask for tokens with."),
]
Bound = Annotated[
    bool | None,
    typer.Option(
        "--auth-oidc-bound/--no-auth-oidc-bound",
        help="With --auth oidc: accept only tokens that are bound to their holder's key (DPoP).",
        show_default=False,
    ),
]


Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="ADDRESS",
        help="Serve /healthz and Prometheus /metrics at this address, e.g. 127.0.0.1:9464, or at a port.",
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", metavar="FORMAT", help="How the log is written to stderr: text, or json."),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="The least level to log: debug, info, warning or error."),
]


async def up(
    context: Context,
    scope: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCOPE",
            help="YAML file that lists the flows, a Python file of them, or langgraph.json. Default: the samples.",
        ),
    ] = None,
    with_registry: Annotated[bool, typer.Option("--with-registry", help="Run a registry, too.")] = False,
    registry_port: Annotated[
        int | None,
        typer.Option("--registry-port", min=0, max=65535, metavar="PORT", help="TCP port of that registry."),
    ] = None,
    web: Annotated[
        bool,
        typer.Option(
            "--web", help="Serve kodo's page on this machine, too, as `koco web` does, and print its address."
        ),
    ] = False,
    web_port: Annotated[
        int | None,
        typer.Option(
            "--web-port",
            min=0,
            max=65535,
            metavar="PORT",
            help="TCP port of that page; 0 takes a free one. Default: the one used last, at first 8361.",
        ),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Reload flows when their code is edited. Runs that have begun keep the code they began with.",
        ),
    ] = False,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The node's name.")] = None,
    host: Host = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="UDP port; 0 chooses a free one.")
    ] = None,
    open_: Annotated[
        bool | None, typer.Option("--open", help="Admit peers from everywhere, not only from the local network.")
    ] = None,
    auth: Auth = None,
    issuer: Issuer = None,
    audience: Audience = None,
    client_id: ClientId = None,
    auth_oidc_bound: Bound = None,
    contents_for: Annotated[
        list[str] | None,
        typer.Option(
            "--contents-for",
            metavar="ROLE",
            help="Let this role (developer, operator) read the contents of others' runs.",
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="What runs the flows: ray; process, one for each run, without Ray; or auto, Ray if a flow needs it.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="Join this Ray cluster instead of starting a Ray of the node's own.",
        ),
    ] = None,
    ray_wait: Annotated[
        str | None,
        typer.Option(
            "--ray-wait",
            metavar="TIME",
            help="How long runs wait until a machine of that cluster has what they ask for, e.g. 10m. Default: 0.",
        ),
    ] = None,
    num_cpus: Annotated[
        int | None, typer.Option("--num-cpus", min=1, help="CPUs of the node's own Ray. Default: all.")
    ] = None,
    runner_user: Annotated[
        str | None,
        typer.Option(
            "--runner-user",
            metavar="NAME",
            help="Run flows, and their Ray, as this account of the machine. Needs root.",
        ),
    ] = None,
    object_store: Annotated[
        str | None,
        typer.Option("--object-store", metavar="SIZE", help="Object store of the node's own Ray, e.g. 200MB."),
    ] = None,
    runners: Annotated[
        int | None, typer.Option("--runners", min=0, help="Processes to keep ready for the next runs.")
    ] = None,
    max_runs: Annotated[
        int | None, typer.Option("--max-runs", min=1, help="Runs that execute at the same time; others wait.")
    ] = None,
    max_live: Annotated[
        int | None,
        typer.Option("--max-live", min=1, help="Unfinished runs, including those that wait. More are refused."),
    ] = None,
    max_live_each: Annotated[
        int | None, typer.Option("--max-live-each", min=1, help="Unfinished runs of one user. More are refused.")
    ] = None,
    keep_runs: Annotated[
        bool | None,
        typer.Option(
            "--keep-runs/--end-runs",
            help="Keep runs (and Ray) going while the node is stopped, or end them.",
            show_default=False,
        ),
    ] = None,
    adopt: Annotated[
        str | None,
        typer.Option(
            "--adopt",
            metavar="TIME",
            help="How long to look, at the start, for runs that went on without the node, e.g. 30s.",
        ),
    ] = None,
    retention: Annotated[
        str | None, typer.Option("--retention", metavar="TIME", help="How long acknowledged runs are kept, e.g. 7d.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option("--quota", metavar="SIZE", help="Disk that the node may use, e.g. 50GB.")
    ] = None,
    disk_reserve: Annotated[
        str | None, typer.Option("--disk-reserve", metavar="SIZE", help="Disk that must stay free, e.g. 256MiB.")
    ] = None,
    max_db: Annotated[
        str | None,
        typer.Option(
            "--max-db", metavar="SIZE", help="Size that the database may reach, e.g. 10GB. Launches are refused then."
        ),
    ] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    metrics: Metrics = None,
) -> None:
    """Run a node until Ctrl-C."""
    from kodo.cli.nodes import node_config, print_ready, running_node, samples_scope, written_address
    from kodo.cli.stopping import stop_wanted
    from kodo.node.catalog.scope import default_name

    context.cleaning = True
    settings = context.loaded.override(
        name=name,
        host=host or None,
        port=port,
        open=open_,
        auth=auth,
        oidc_issuer=issuer,
        oidc_audience=audience,
        oidc_client_id=client_id,
        auth_oidc_bound=auth_oidc_bound,
        contents_for=contents_for or None,
        executor=executor,
        ray_address=ray_address,
        ray_wait=ray_wait,
        runner_user=runner_user,
        num_cpus=num_cpus,
        object_store=object_store,
        runners=runners,
        max_runs=max_runs,
        max_live=max_live,
        max_live_each=max_live_each,
        keep_runs=keep_runs,
        adopt=adopt,
        retention=retention,
        quota=quota,
        disk_reserve=disk_reserve,
        max_db=max_db,
        log_format=log_format,
        log_level=log_level,
        metrics=metrics,
    )
    _check_issuer(settings, issuer, audience, client_id, auth_oidc_bound)
    _log(context, settings.settings)
    async with AsyncExitStack() as stack:
        # Whether there is a page to serve is known before anything starts.
        site = _site() if web or web_port is not None else None
        registries = list(settings.settings.registry)
        if with_registry:
            own = await stack.enter_async_context(_registry(settings.home, None, registry_port))
            registries.append(own.url)
            context.say(f"registry {own.url}")
        if scope is None:
            # The samples: something to run at once. Their scope's name would be claimed by every such node.
            scope, settings = samples_scope(), settings.override(name=settings.settings.name or default_name())
        config = node_config(settings, scope=scope, registries=registries, reload=reload)
        node = await stack.enter_async_context(running_node(config, context.say))
        stack.enter_context(written_address(settings.home, node))
        page = await stack.enter_async_context(_page(settings, registries, web_port, site)) if site else None
        # From here on a signal is the orderly way to end, no interruption.
        context.stop = asyncio.Event()
        print_ready(context, node, registries, page.url if page else None)
        _tell_metrics(context, node.monitor)
        if config.runner_user is not None:
            context.say(f"flows run as {config.runner_user}, which reads no key or file of the node")
        await _first(stop_wanted(context, node), node.asked_to_stop(), _warn(context, settings.settings))
        context.say(": ".join(filter(None, ["stopping", node.describe_stop()])))


def _check_issuer(settings: Loaded, *options: object) -> None:
    """Refuse what would be ignored: whoever names an issuer takes the node for closed to all others.

    Raises:
        UsageError: one of the options is given, and another provider is in force.
    """
    from kodo.p2p.errors import UsageError

    if settings.settings.auth != "oidc" and any(each is not None for each in options):
        raise UsageError("--issuer, --audience, --client-id and --auth-oidc-bound are for --auth oidc; add that")


def _log(context: Context, settings: Settings) -> None:
    from kodo.cli.logs import log_service

    log_service(settings.log_format, settings.log_level, verbose=context.verbose)


def _tell_metrics(context: Context, monitor: MonitorServer | None) -> None:
    if monitor is not None:
        wide = "; whoever reaches that address reads them" if monitor.is_wide else ""
        context.say(f"metrics {monitor.url}/metrics{wide}")


def _site() -> Site:
    from kodo.web.site import Site

    return Site("web")


def _page(loaded: Loaded, registries: Sequence[str], port: int | None, site: Site) -> WebServer:
    """Return the server of the page, which finds this home's node, those nearby, and those of the registries."""
    from kodo.mcp.config import configs_of_flow
    from kodo.web.server import WebConfig, WebServer

    settings = loaded.settings.model_copy(update={"registry": tuple(registries)})
    configs = partial(configs_of_flow, loaded=loaded)
    return WebServer(WebConfig(loaded.home, settings, port, configs), site=site)


async def _warn(context: Context, settings: Settings) -> None:
    """Warn of what is seen once the node runs; then wait for ever."""
    from kodo.cli.nodes import oidc_config, warn_of_unbound

    if settings.auth == "oidc":
        await warn_of_unbound(context, oidc_config(settings))
    await asyncio.Event().wait()


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of `waits` is over, and end the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def registry(
    context: Context,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="TCP port; 0 chooses a free one. Default: 8360.")
    ] = None,
    open_: Annotated[
        bool | None,
        typer.Option(
            "--open/--closed",
            help="List every node that announces itself, or only those that an operator registered.",
            show_default=False,
        ),
    ] = None,
    mesh_read: Annotated[
        list[str] | None,
        typer.Option("--mesh-read", metavar="URL", help="List the nodes of this registry, too; may be repeated."),
    ] = None,
    mesh_feed: Annotated[
        list[str] | None,
        typer.Option("--mesh-feed", metavar="URL", help="Tell this registry about nodes; may be repeated."),
    ] = None,
    mesh_members: Annotated[
        list[str] | None,
        typer.Option(
            "--mesh-member",
            metavar="PEER_ID",
            help="Accept what this registry tells about its nodes; may be repeated.",
        ),
    ] = None,
    mesh_interval: Annotated[
        str | None,
        typer.Option(
            "--mesh-interval",
            metavar="TIME",
            help="How long to wait before asking a registry again that did not answer.",
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe", metavar="TIME", help="How often to dial each node, to measure how it answers, e.g. 60s."
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", metavar="URL", help="Allow web pages of this origin to call the registry; may be repeated."
        ),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="Host name by which the registry is reached; may be repeated."),
    ] = None,
    proxies: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            metavar="ADDRESS",
            help="Trust the X-Forwarded-For of the reverse proxy at this address; may be repeated.",
        ),
    ] = None,
    relay: Annotated[
        str | None,
        typer.Option(
            "--relay",
            metavar="off|RATE",
            help="Relay at most this many bytes a second for nodes that are not reached directly, e.g. 10MB, by"
            " UDP on the same port number or by WebSocket; off: only introduce callers to them.",
        ),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain for HTTPS, a PEM file.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's private key, a PEM file.")
    ] = None,
    auth: Auth = None,
    issuer: Issuer = None,
    audience: Audience = None,
    client_id: ClientId = None,
    auth_oidc_bound: Bound = None,
    backup: Annotated[
        Path | None,
        typer.Option(
            "--backup",
            metavar="FILE",
            help="Copy the registry's database to this file and exit. Works while the registry runs.",
        ),
    ] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    metrics: Metrics = None,
) -> None:
    """Run a registry until Ctrl-C."""
    from kodo.cli.nodes import oidc_config, short_turns_of_threads, telling
    from kodo.settings.registry import RegistrySettings

    if backup is not None:
        await _back_up(context, backup)
        return
    context.cleaning = True
    given = {"mesh_read": mesh_read, "mesh_feed": mesh_feed, "mesh_members": mesh_members}
    given_words = {name: tuple(value) for name, value in given.items() if value}
    settings = context.loaded.override(
        **given_words,
        mesh_interval=mesh_interval,
        probe=probe,
        relay=relay,
        tls_cert=tls_cert,
        tls_key=tls_key,
        auth=auth,
        oidc_issuer=issuer,
        oidc_audience=audience,
        oidc_client_id=client_id,
        auth_oidc_bound=auth_oidc_bound,
        log_format=log_format,
        log_level=log_level,
        metrics=metrics,
    ).settings
    _log(context, settings)
    more: dict[str, Any] = {
        "origins": frozenset(origins or ()),
        "hosts": frozenset(hosts or ()),
        "proxies": frozenset(proxies or ()),
        "oidc": oidc_config(settings) if settings.auth == "oidc" else None,
        **{field: getattr(settings, field) for field in RegistrySettings.model_fields},
    }
    if hosts:
        more["name"] = hosts[0]
    async with AsyncExitStack() as stack:
        starting = _registry(context.loaded.home, host, port, open_, **more)
        async with telling(context.say, lambda: starting.waits_for):
            running = await stack.enter_async_context(starting)
        with short_turns_of_threads():
            await _serve_registry(context, settings, running)


async def _serve_registry(context: Context, settings: Settings, running: Any) -> None:
    """Print where a registry is, and let it run until it is to stop."""
    context.stop = asyncio.Event()
    if context.json:
        context.emit({"ready": True, "url": running.url, "peer_id": running.peer_id})
    else:
        context.show(f"registry {running.url}")
        context.say(running.describe())
    _tell_metrics(context, running.monitor)
    if not context.json:
        context.say("Ctrl-C stops it")
    # Whoever has it is an operator: it is for eyes at a terminal, and for no log of a service or container.
    if running.first_code is not None and (settings.log_format == "json" or not sys.stderr.isatty()):
        invite = f"koco operator --registry {shlex.quote(running.url)} --invite"
        context.say(f"to operate it from another machine, make a code in its home: {invite}")
    elif running.first_code is not None:
        enrol = f"koco operator --registry URL --enrol -, and enter {running.first_code}"
        context.say(f"to operate it from another machine, within a day: {enrol}")
    await _first(context.stop.wait(), running.asked_to_stop.wait(), _warn(context, settings))
    context.say("stopping")


async def _back_up(context: Context, target: Path) -> None:
    from kodo.registry.server import RegistryConfig
    from kodo.registry.store.backup import back_up

    size = await asyncio.to_thread(back_up, RegistryConfig(home=context.loaded.home).database, target)
    if context.json:
        context.emit({"backup": str(target), "bytes": size})
    else:
        context.show(f"{target}: {size:,} bytes")


def _registry(home: Path, host: str | None, port: int | None, open_: bool | None = None, **more: Any) -> Any:
    from pydantic import ValidationError

    from kodo.cli.nodes import usage_of
    from kodo.p2p.net.keystore import make_home
    from kodo.registry.server import Registry, RegistryConfig
    from kodo.web.issuers import issuer_routes
    from kodo.web.site import Site

    given: dict[str, Any] = {"host": host, "port": port, "open": open_}
    chosen = {key: value for key, value in given.items() if value is not None}
    oidc = more.get("oidc")
    issuer: str = oidc.issuer if oidc is not None else ""
    # A checkout without the built page has a registry all the same.
    page = Site("registry", issuer=issuer).routes() if Site.is_built() else []
    if page and issuer:
        page += issuer_routes(only=issuer)
    try:
        config = RegistryConfig(home=make_home(home), **chosen, **more)
    except ValidationError as error:
        raise usage_of(error, {"origins": "--origin", "proxies": "--proxy", "hosts": "--name"}) from None
    return Registry(config, page=page)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "up")(up)
    command(app, "registry")(registry)
