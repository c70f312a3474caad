"""What a node need not keep any more: found, shown, removed, in intervals and on call.

`stale` and `clean` go by the same list, so what is shown is what goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kodo.node import share_rows
from kodo.node.clock import Clock
from kodo.node.outputs import Outputs
from kodo.node.store import Store
from kodo.node.transaction import KEY_LIFE_MS
from kodo.p2p.errors import CallError, KodoError
from kodo.protocol.ids import is_id

__all__ = ["KINDS", "Housekeeping", "Stale"]

_log = logging.getLogger(__name__)

KINDS = ("run", "output", "key", "share")
"""`run`: acknowledged, its retention has passed, no live share. `output`: files whose run is gone. `key`: older than
24 h. `share`: revoked, used up, or expired 7 days ago; its id is `links` for what was kept to tell holders of ended
links, when those have expired."""

_LINKS = "links"


class Stale(NamedTuple):
    """One thing that can go: its id (a fid; for keys, how many), and the bytes that it takes."""

    kind: str
    id: str
    bytes: int


class Housekeeping:
    """Finds and removes.

    Args:
        delete: removes a run.
        retention_s: how long an acknowledged run stays.
        interval_s: seconds between two rounds.
    """

    def __init__(
        self,
        store: Store,
        outputs: Outputs,
        clock: Clock,
        delete: Callable[[str], Awaitable[bool]],
        *,
        retention_s: float = 7 * 86400.0,
        interval_s: float = 600.0,
    ):
        self._store = store
        self._outputs = outputs
        self._clock = clock
        self._delete = delete
        self._retention_s = retention_s
        self._interval_s = interval_s

    async def stale(self, kinds: Sequence[str] = KINDS) -> list[Stale]:
        """Give what can go now, the oldest runs first."""
        now = self._clock.now_ms()
        found: list[Stale] = []
        if "run" in kinds:
            before = now - int(self._retention_s * 1000)
            found += [Stale("run", fid, size) for fid, size in await self._store.obsolete(before)]
        if "output" in kinds:
            for fid, size in await asyncio.to_thread(_folders, self._outputs.root):
                if await self._store.run(fid) is None:
                    found.append(Stale("output", fid, size))
        if "key" in kinds:
            count, size = await self._store.old_keys(now - KEY_LIFE_MS)
            if count:
                found.append(Stale("key", str(count), size))
        if "share" in kinds:
            shares, (links, size) = await self._store.ask(lambda connection: share_rows.ended(connection, now))
            found += [Stale("share", sid, bytes) for sid, bytes in shares]
            if links:
                found.append(Stale("share", _LINKS, size))
        return found

    async def clean(self, kinds: Sequence[str] = KINDS) -> list[Stale]:
        """Remove what `stale` names and return the database's space to the disk; give what was removed."""
        gone: list[Stale] = []
        for each in await self.stale(kinds):
            try:
                if each.kind == "run":
                    await self._delete(each.id)
                elif each.kind == "output":
                    await self._outputs.remove(each.id)
                elif each.kind == "share":
                    sids = [] if each.id == _LINKS else [each.id]
                    await self._store.write(functools.partial(share_rows.forget, sids=sids))
                else:
                    await self._store.forget_keys()
            except KodoError as error:
                if not (isinstance(error, CallError) and error.code == 404):
                    _log.warning("housekeeping could not remove a stale %s: %s", each.kind, error)
                continue
            gone.append(each)
        if gone:
            await self._store.shrink()
            await self._store.scrub()
        return gone

    async def keep(self) -> None:
        """Clean in intervals, for ever."""
        while True:
            try:
                await self.clean()
            except KodoError as error:
                _log.warning("housekeeping failed, and tries again later: %s", error)
            await self._clock.sleep(self._interval_s)


def _folders(root: Path) -> list[tuple[str, int]]:
    found = []
    for folder in sorted(root.iterdir()):
        if is_id(folder.name) and folder.is_dir() and not folder.is_symlink():
            size = 0
            for place, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        size += (Path(place) / name).lstat().st_size
            found.append((folder.name, size))
    return found
