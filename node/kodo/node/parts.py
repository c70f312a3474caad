"""What a node is put together of, as its settings say: provider, executor, the account of its runners, its client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kodo.access.audit import AuditedTables
from kodo.access.local import LocalProvider
from kodo.access.null import NullProvider
from kodo.access.outgoing import use_proxy
from kodo.access.provider import Provider
from kodo.client.client import Client
from kodo.client.config import Loaded
from kodo.node.catalog.catalog import Catalog
from kodo.node.catalog.load import live_processes
from kodo.node.clock import Clock
from kodo.node.config import NodeConfig
from kodo.node.executors.executor import Executor
from kodo.node.housekeeping import cleanup
from kodo.p2p.core.identity import Identity
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import load_identity
from kodo.settings.home import Settings

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = [
    "access_provider",
    "apart_executor",
    "log_chore",
    "outgoing_client",
    "ray_executor",
    "settle_account",
]


def outgoing_client(config: NodeConfig, identity: Identity) -> Client:
    """Make the client by which the node's runs use other nodes: the node's key, pins and logins of its own."""
    settings = Settings.model_validate({"registry": config.registry, "lan": config.lan})
    return Client(settings=Loaded(config.home / "outgoing", settings, {}), identity=identity)


def settle_account(config: NodeConfig, home: Path, folders: list[Path]) -> Account | None:
    """Return the account that runs the flows, once it can; None: the node's own. Blocks."""
    if config.runner_user is not None and config.ray_address is not None:
        raise UsageError(
            "runner_user is for a node's own runners; the Ray at ray_address runs flows as whoever started it: "
            "leave one out"
        )
    from kodo.node.executors.apart.account import settle  # a node with an executor of its own does without

    return settle(home, config.runner_user, folders, needs_ray=config.chosen_executor == "ray")


def log_chore(config: NodeConfig, executor: Executor) -> cleanup.Chore:
    """Make the chore that removes old logs, wherever the executor keeps them."""
    if config.runner_user is not None:
        from kodo.node.executors.apart.executor import ApartExecutor

        if isinstance(executor, ApartExecutor):
            return cleanup.KeptLogs(executor)
    return cleanup.Logs(config.home / "ray" / "sessions", config.keep_logs_s, live_processes)


def apart_executor(
    config: NodeConfig, identity: Identity, roots: list[Path], catalog: Catalog, account: Account, *, on_ray: bool
) -> Executor:
    """Make the executor that runs flows as another account."""
    from kodo.node.executors.apart.account import FOLDER
    from kodo.node.executors.apart.executor import ApartExecutor
    from kodo.node.executors.apart.spawn import as_account

    return ApartExecutor(
        as_account(account),
        {
            "home": str(config.home / FOLDER),
            "on_ray": on_ray,
            "namespace": f"kodo-{identity.peer_id}",
            "roots": [str(root) for root in roots],
            "num_cpus": config.num_cpus,
            "object_store_bytes": config.object_store_bytes,
            "runners": config.runners,
            "log_s": config.keep_logs_s,
            "stays": config.outlive,
        },
        catalog.warmed,
    )


def ray_executor(
    config: NodeConfig, identity: Identity, roots: list[Path], catalog: Catalog, files: Sequence[str]
) -> Executor:
    """Make the executor that runs flows on Ray.

    Raises:
        UsageError: Ray is not installed.
    """
    # Imported here: a node with another executor, and every client, does without Ray.
    try:
        from kodo.node.executors.ray.executor import RayExecutor
    except ImportError as error:
        raise UsageError(f"this needs Ray, which is not installed ({error}); {how_to_install('node')}") from error
    return RayExecutor(
        config.home,
        f"kodo-{identity.peer_id}",
        roots=roots,
        preload=catalog.warmed,
        num_cpus=config.num_cpus,
        object_store_bytes=config.object_store_bytes,
        ray_address=config.ray_address,
        runners=config.runners,
        entries=lambda: [flow.entry for flow in catalog.flows if flow.error is None],
        files=files,
        wait_s=config.ray_wait_s,
        code=lambda: next((flow.code for flow in catalog.flows), ""),
    )


async def access_provider(
    config: NodeConfig, identity: Identity, home: Path, tables: AuditedTables, clock: Clock
) -> Provider:
    """Make the provider that says who may use the node, and open it."""
    use_proxy(config.proxy)
    operator = str(load_identity(home, "user").peer_id)
    if config.auth == "null":
        return NullProvider(operator, only=config.only, open=config.open)
    if config.auth == "oidc":
        from kodo.access.oidc import OidcProvider  # what signed tokens need takes a while to import

        if config.oidc is None:
            raise UsageError("the provider oidc needs an issuer, an audience and a client id")
        now = asyncio.get_running_loop().time
        return OidcProvider(operator, config.oidc, clock.now_ms, now, cache_s=config.access_s / 2)
    local = LocalProvider(operator, str(identity.peer_id), tables, clock.now_ms, cache_s=config.access_s / 2)
    await local.open()
    return local
