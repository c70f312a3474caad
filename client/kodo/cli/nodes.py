"""Nodes that a command starts: their configuration, their life, and the note that tells other commands of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kodo.cli.text import line
from kodo.client.config import Loaded
from kodo.client.finders import HOME_NODE_FILE
from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.errors import KodoError, UsageError
from kodo.p2p.net.keystore import write_private
from kodo.settings.home import Settings

if TYPE_CHECKING:
    from kodo.access.oidc_config import OidcConfig
    from kodo.cli.runtime import Context
    from kodo.node.app import Node
    from kodo.node.config import NodeConfig

__all__ = [
    "node_config",
    "oidc_config",
    "print_ready",
    "running_node",
    "samples_scope",
    "short_turns_of_threads",
    "telling",
    "usage_of",
    "warn_of_unbound",
    "written_address",
]


PATIENCE_S = 1.0
"""How long somebody waits without asking why, in seconds."""
_SWITCH_S = 0.0005
"""A tenth of what is usual."""


def node_config(loaded: Loaded, *, scope: Path | None, registries: Sequence[str], **more: Any) -> NodeConfig:
    """Make a node's configuration of the settings.

    Raises:
        UsageError: the settings do not go together.
    """
    from kodo.node.config import NodeConfig
    from kodo.settings.node import NodeSettings

    settings = loaded.settings
    if settings.executor == "process" and settings.ray_address:
        raise UsageError("ray_address is for the executor ray; the executor process runs flows on this machine alone")
    given = {field: getattr(settings, field) for field in NodeSettings.model_fields}
    given |= {"home": loaded.home, "scope": scope, "registry": tuple(registries), **more}
    if settings.auth == "oidc":
        given["oidc"] = oidc_config(settings)
    try:
        return NodeConfig(**given)
    except ValidationError as error:
        raise usage_of(error) from None


def oidc_config(settings: Settings) -> OidcConfig:
    """Return what the settings say of an issuer."""
    from kodo.access.oidc_config import OidcConfig

    return OidcConfig(
        settings.oidc_issuer or "",
        settings.oidc_audience or "",
        settings.oidc_client_id or "",
        roles_claim=settings.oidc_roles_claim,
        roles=settings.oidc_roles,
        bound=settings.auth_oidc_bound,
    ).check()


async def warn_of_unbound(context: Context, config: OidcConfig) -> None:
    """Warn where the issuer cannot bind tokens to keys, so that whoever is shown one can use it."""
    from kodo.access.http import binding_alg, discover

    try:
        said = await discover(config.issuer)
    except (KodoError, TimeoutError) as error:
        context.say(f"warning: the issuer {config.issuer} does not answer now: {error}")
        return
    if binding_alg(said) is None:
        then = (
            "nobody can log in, as auth_oidc_bound demands it"
            if config.bound
            else f"whoever is shown a token for {config.audience} can use it here until it ends"
        )
        context.say(f"warning: {config.issuer} cannot bind tokens to keys (DPoP with Ed25519): {then}")


def usage_of(error: ValidationError, flags: Mapping[str, str] | None = None) -> UsageError:
    """Return what is wrong with a configuration, for people.

    Args:
        flags: the flag that gives a field, where it has another name than that.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    field, *inner = map(str, first["loc"])
    name = (flags or {}).get(field) or ".".join([field, *inner])
    return UsageError(f"{name}: {first['msg'].removeprefix('Value error, ')}")


def samples_scope() -> Path:
    """Return the scope of the flows that come with kodo."""
    import kodo.samples

    return Path(next(iter(kodo.samples.__path__))) / "scope.yaml"


@contextlib.asynccontextmanager
async def running_node(
    config: NodeConfig, tell: Callable[[str], None] | None = None, **options: Any
) -> AsyncIterator[Node]:
    """Run a node for as long as the block lasts; `options` are those of `Node`.

    Args:
        tell: told what the start waits for, whenever that takes a moment.
    """
    from kodo.node.app import Node

    node = Node(config, **options)
    async with AsyncExitStack() as stack:
        async with telling(tell, lambda: node.waits_for):
            await stack.enter_async_context(node)
        with _rare_collections(), short_turns_of_threads():
            yield node


@contextlib.asynccontextmanager
async def telling(tell: Callable[[str], None] | None, waits_for: Callable[[], str]) -> AsyncIterator[None]:
    """Show what the block waits for, once that has not changed for a second."""

    async def watch(tell: Callable[[str], None]) -> None:
        told = ""
        while True:
            before = waits_for()
            await asyncio.sleep(PATIENCE_S)
            if before == waits_for() != told:
                told = before
                tell(f"waiting for {told}")

    task = asyncio.ensure_future(watch(tell)) if tell is not None else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage less often than Python does by default, and not among what has been imported.

    Events are made by the thousand and hardly ever in cycles: looking for some took half of a node's time.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


@contextlib.contextmanager
def short_turns_of_threads() -> Iterator[None]:
    """Make threads give way to the event loop soon, while they beside it compute.

    A thread that computes in Python keeps the others waiting for as long as this interval each time that they come
    back from a system call, and the loop makes several for every call that it answers.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextlib.contextmanager
def written_address(home: Path, node: Node) -> Iterator[None]:
    """Keep `node.json` in the home while the node runs: how this user's other commands find it."""
    path = home / HOME_NODE_FILE
    note = {
        "pid": os.getpid(),
        "peer_id": str(node.peer_id),
        "name": node.name,
        "addrs": [str(address) for address in node.addresses],
    }
    write_private(path, json.dumps(note).encode() + b"\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            # A node that was started since then has written its own.
            if json.loads(path.read_bytes()).get("pid") == os.getpid():
                path.unlink()


def print_ready(context: Context, node: Node, registries: Sequence[str], page: str | None = None) -> None:
    """Print that the node takes calls, what it offers, which flows are broken and why, and where `page` is."""
    addresses = [str(address) for address in node.addresses]
    broken = [flow for flow in node.flows if flow.error is not None]
    for flow in broken:
        context.say(f"warning: the flow {flow.path} is broken: {flow.error}")
    if context.json:
        context.emit(
            {
                "ready": True,
                "name": node.name,
                "peer_id": str(node.peer_id),
                "addrs": addresses,
                "registries": list(registries),
                "flows": len(node.flows) - len(broken),
                "broken": [flow.path for flow in broken],
                "executor": node.config.chosen_executor,
                "lets_in": node.describe_access(),
                **({} if page is None else {"page": page}),
            }
        )
        return
    at_terminal = sys.stdout.isatty()
    names = ", ".join(flow.name for flow in node.flows if flow.error is None)
    rows = [("node", node.name), ("peer id", str(node.peer_id))]
    rows += (
        [("reached at", ", ".join(_places(addresses)))] if at_terminal else [("address", each) for each in addresses]
    )
    rows += [("registry", url) for url in registries]
    rows.append(("offers", names or "no flow"))
    if node.config.chosen_executor == "process":
        rows.append(("runs", "each in a process of its own, without Ray"))
    rows.append(("lets in", node.describe_access()))
    rows += [("page", page)] if page is not None else []
    if at_terminal:
        for row in _laid_out(rows, shutil.get_terminal_size().columns):
            context.show(row)
    else:
        for name, value in rows:
            context.show(f"{name:<10}{value}")
    if page is not None:
        context.say("the page's address is for you alone: it lets a browser in")
    context.say(
        "Ctrl-C stops it; koco id shows the addresses as others enter them" if at_terminal else "Ctrl-C stops it"
    )


def _places(addresses: Sequence[str]) -> list[str]:
    """Return where addresses are, short: host and port, those of this machine alone last."""
    found: dict[str, bool] = {}
    for text in addresses:
        _, kind, host, _, port, *_ = [*text.split("/"), "", "", "", "", ""]
        place = f"[{host}]:{port}" if kind == "ip6" else f"{host}:{port}"
        found[place] = is_own_host(host)
    return sorted(found, key=found.__getitem__)


def _laid_out(rows: Sequence[tuple[str, str]], columns: int) -> list[str]:
    """Return rows for a terminal that is so wide: values one below the other, and nothing cut."""
    indent = max(len(name) for name, _ in rows) + 2
    told = []
    for name, value in rows:
        # A long word, as an address of a page, is not broken: it is there to be clicked, or copied.
        parts = textwrap.wrap(line(value), max(columns - indent, 20), break_long_words=False, break_on_hyphens=False)
        told += [f"{name if not number else '':<{indent}}{part}" for number, part in enumerate(parts or [""])]
    return told
