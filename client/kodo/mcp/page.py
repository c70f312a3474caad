"""The page of `koco web`, where a person answers what no form of a host may ask for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import quote

from kodo.client.client import Client
from kodo.client.run import Run
from kodo.p2p.errors import KodoError
from kodo.web.port import ADDRESS, holder_of, last_port

__all__ = ["lock_page", "page_of"]


async def page_of(client: Client, home: Path, run: Run, node: str | None) -> str | None:
    """Return the address of a run's page, if one is served and its browser can be the same user.

    A browser has a key of its own: it sees this user's runs where the user logged in, not where nodes know users by
    their keys.
    """
    port = last_port(home)
    if port is None or not await _is_served(port):
        return None
    try:
        known = await client.whoami(node or str(run.peer_id))
    except KodoError:
        return None
    if not known.get("user"):
        return None
    return f"http://{ADDRESS}:{port}/#/run/{quote(str(run.peer_id), safe='')}/{quote(run.fid, safe='')}"


def lock_page(page: str, lid: str) -> str:
    """Return the address of one lock on its run's page: its form is opened there, and has the focus."""
    return f"{page}?lock={quote(lid, safe='')}"


async def _is_served(port: int) -> bool:
    """Return whether this account serves something at the port that the page had last."""
    if (holder := holder_of(port)) not in (None, os.getuid()):
        return False
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(ADDRESS, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return holder is not None or not os.path.exists("/proc/net/tcp")  # noqa: ASYNC240 - it is no disk
