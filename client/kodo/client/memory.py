"""What flows of a node remember, for their developers: looked at, and published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kodo.client.peer import RemoteNode
from kodo.client.upload import send_file

__all__ = ["memories", "put_memory"]


async def memories(
    remote: RemoteNode, scope: str | None = None, of: str | None = None, *, prefix: str = ""
) -> list[dict[str, Any]]:
    """List what flows of a node remember: `scope, of, keys, files, bytes, modified` each.

    Args:
        remote: what `Client.node` gave.
        scope: `long` or `shared`.
        of: a flow's path (`long`) or the name of a shared memory: what that one holds is listed instead,
            `kind` (`value` or `file`), `key, bytes, modified` each.
        prefix: only keys that begin with this.

    Raises:
        CallError: 403 `developer-only`.
    """
    args = {name: value for name, value in (("scope", scope), ("of", of), ("prefix", prefix)) if value}
    return [row async for row in remote.pages("memory.list", args)]


async def put_memory(
    remote: RemoteNode, scope: str, of: str, key: str, value: Any = None, *, remove: bool = False
) -> dict[str, Any]:
    """Publish into the memory of a flow (`long`, by its path) or a `shared` one (by its name), as a developer.

    Args:
        remote: what `Client.node` gave.
        value: JSON-like; a `Path` stores that file under the name `key`.
        remove: remove what has this key instead, a value and a file.

    Raises:
        CallError: 403 `developer-only`, 404 `no-such-flow`, 413 `too-large`.
        UsageError: the file cannot be read.
    """
    place = {"scope": scope, "of": of, "key": key}
    if isinstance(value, Path) and not remove:
        return await send_file(remote, "memory.put", place, value)
    more = {"remove": True} if remove else {"value": value}
    return dict(await remote.request("memory.put", {**place, **more}))
