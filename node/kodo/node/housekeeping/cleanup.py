"""What housekeeping does, one kind of things each: what need not be kept, how many bytes it takes, how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from kodo.node.executors.apart.executor import ApartExecutor
from kodo.node.executors.executor import Executor
from kodo.node.executors.ray.logs import stale_logs
from kodo.node.files.outputs import Outputs, size_of
from kodo.node.files.uploads import Uploads
from kodo.node.requests.memories import Memories
from kodo.node.store import share_changes, share_rows
from kodo.node.store.store import Store
from kodo.node.store.transaction import KEY_LIFE_MS
from kodo.p2p.errors import KodoError
from kodo.protocol.ids import is_id
from kodo.protocol.memory import Scope

__all__ = [
    "Chore",
    "KeptLogs",
    "Keys",
    "Logs",
    "LostFiles",
    "Parts",
    "Runners",
    "Runs",
    "Shares",
    "Stale",
    "Uploaded",
]

logger = logging.getLogger(__name__)

_LINKS = "links"


class Stale(NamedTuple):
    """One thing that can go: its id (a fid, a file's name; for keys, how many), and the bytes that it takes."""

    kind: str
    id: str
    bytes: int


class Chore(Protocol):
    """One kind."""

    kind: str

    async def stale(self, now: int) -> list[Stale]:
        """Return what can go at `now` (ms UTC), the oldest first."""
        ...

    async def remove(self, stale: Stale) -> None:
        """Remove one of them; what is gone already is no error.

        Raises:
            KodoError: it cannot be removed now.
        """
        ...


class Runs:
    """Runs that nobody needs: `run`, acknowledged `keep_s` ago; `unread`, over for `keep_s`, never acknowledged."""

    def __init__(
        self,
        kind: str,
        store: Store,
        delete: Callable[[str], Awaitable[bool]],
        keep_s: float,
        besides: Callable[[], Awaitable[Mapping[str, int]]],
    ):
        self.kind = kind
        self._find = store.unread if kind == "unread" else store.obsolete
        self._delete = delete
        self._keep_s = keep_s
        self._besides = besides

    async def stale(self, now: int) -> list[Stale]:
        """Leave out those that a live share needs; the bytes are those of events, outputs and memory."""
        found = await self._find(now - int(self._keep_s * 1000))
        besides = await self._besides() if found else {}
        return [Stale(self.kind, fid, size + besides.get(fid, 0)) for fid, size in found]

    async def remove(self, stale: Stale) -> None:
        """Delete the run without a trace."""
        await self._delete(stale.id)


class LostFiles:
    """`output`: files whose run is gone, as after a crash in the midst of a deletion."""

    kind = "output"

    def __init__(self, store: Store, outputs: Outputs):
        self._store = store
        self._outputs = outputs

    async def stale(self, now: int) -> list[Stale]:
        """Look at every folder."""
        folders = await asyncio.to_thread(_folders, self._outputs.root)
        return [Stale(self.kind, fid, size) for fid, size in folders if await self._store.run(fid) is None]

    async def remove(self, stale: Stale) -> None:
        """Remove the folder."""
        await self._outputs.remove(stale.id)


class Parts:
    """`part`: files that were being fetched, and are no more."""

    kind = "part"

    def __init__(self, outputs: Outputs):
        self._outputs = outputs

    async def stale(self, now: int) -> list[Stale]:
        """Leave out those that are being written."""
        return [Stale(self.kind, name, size) for name, size in await asyncio.to_thread(self._outputs.lost_parts)]

    async def remove(self, stale: Stale) -> None:
        """Remove the file."""
        await asyncio.to_thread(self._outputs.remove_part, stale.id)


class Uploaded:
    """`upload`: files that nobody sent on, or named in a launch, for a day, and that no unfinished run needs."""

    kind = "upload"

    def __init__(self, uploads: Uploads, needed: Callable[[], Iterable[str]]):
        self._uploads = uploads
        self._needed = needed

    async def stale(self, now: int) -> list[Stale]:
        """Ask the uploads."""
        return [Stale(self.kind, uid, size) for uid, size in self._uploads.stale(self._needed())]

    async def remove(self, stale: Stale) -> None:
        """Remove the upload."""
        await self._uploads.drop(stale.id)


class Keys:
    """`key`: idempotency keys older than 24 h, all as one."""

    kind = "key"

    def __init__(self, store: Store):
        self._store = store

    async def stale(self, now: int) -> list[Stale]:
        """Count them."""
        count, size = await self._store.old_keys(now - KEY_LIFE_MS)
        return [Stale(self.kind, str(count), size)] if count else []

    async def remove(self, stale: Stale) -> None:
        """Forget them."""
        await self._store.forget_keys()


class Shares:
    """`share`: revoked, used up, or expired 7 days ago.

    The id `links` stands for what was kept to tell holders of ended links, when those have expired.
    """

    kind = "share"

    def __init__(self, store: Store):
        self._store = store

    async def stale(self, now: int) -> list[Stale]:
        """Ask the database."""
        shares, (links, size) = await self._store.ask(lambda connection: share_rows.ended(connection, now))
        found = [Stale(self.kind, sid, taken) for sid, taken in shares]
        return [*found, Stale(self.kind, _LINKS, size)] if links else found

    async def remove(self, stale: Stale) -> None:
        """Forget it."""
        sids = [] if stale.id == _LINKS else [stale.id]
        await self._store.write(functools.partial(share_changes.forget, sids=sids))


class Logs:
    """`log`: what processes of Ray that have ended wrote, when nobody has looked into it for `keep_s`.

    Args:
        sessions: the folder of Ray's sessions.
        alive: gives the ids of all processes of this machine.
    """

    kind = "log"

    def __init__(self, sessions: Path, keep_s: float, alive: Callable[[], Iterable[int]]):
        self._sessions = sessions
        self._keep_s = keep_s
        self._alive = alive

    async def stale(self, now: int) -> list[Stale]:
        """Look at the files that are named after a process."""
        before = now - self._keep_s * 1000
        found = await asyncio.to_thread(lambda: stale_logs(self._sessions, before, self._alive()))
        return [Stale(self.kind, name, size) for name, size in found]

    async def remove(self, stale: Stale) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread((self._sessions / stale.id).unlink)


class KeptLogs:
    """`log`, as `Logs`: the files belong to another account, whose process looks at them and removes them."""

    kind = "log"

    def __init__(self, executor: ApartExecutor):
        self._executor = executor

    async def stale(self, now: int) -> list[Stale]:
        """Ask the process; one that is just being replaced has none."""
        try:
            return [Stale(self.kind, name, size) for name, size in await self._executor.logs(now)]
        except KodoError as error:
            logger.warning("housekeeping could not look at the logs of runners: %s", error)
            return []

    async def remove(self, stale: Stale) -> None:
        """Ask the process to remove it."""
        await self._executor.forget_log(stale.id)


class Runners:
    """`runner`: processes without a run: left over, dead, or warm for `warm_s`; their bytes are told as 0."""

    kind = "runner"

    def __init__(self, executor: Executor, warm_s: float):
        self._executor = executor
        self._warm_s = warm_s

    async def stale(self, now: int) -> list[Stale]:
        """Ask the executor; one that is just being replaced has none."""
        try:
            return [Stale(self.kind, name, 0) for name in await self._executor.spare(self._warm_s)]
        except KodoError as error:
            logger.warning("housekeeping could not look at the runners: %s", error)
            return []

    async def remove(self, stale: Stale) -> None:
        """End the process."""
        await self._executor.dismiss(stale.id)


class Memory:
    """`memory`: short-term of runs that have been over for long, long-term of flows that are not offered any more."""

    kind = "memory"

    def __init__(
        self, memories: Memories, live: Callable[[], Collection[str]], offered: Callable[[], Collection[str]]
    ):
        self._memories = memories
        self._live = live
        self._offered = offered

    async def stale(self, now: int) -> list[Stale]:
        """Ask the memories; an id is `short/<fid>` or `long/<path of the flow>`."""
        await self._memories.tidy(self._live())
        found = await self._memories.stale(self._live(), self._offered())
        return [Stale(self.kind, f"{each.scope}/{each.of}", each.bytes) for each in found]

    async def remove(self, stale: Stale) -> None:
        """Forget it."""
        scope, _, of = stale.id.partition("/")
        kind: Scope = "short" if scope == "short" else "long"
        await self._memories.forget_stale(kind, of, self._live(), self._offered())


def _folders(root: Path) -> list[tuple[str, int]]:
    return [
        (folder.name, size_of(folder))
        for folder in sorted(root.iterdir())
        if is_id(folder.name) and folder.is_dir() and not folder.is_symlink()
    ]
