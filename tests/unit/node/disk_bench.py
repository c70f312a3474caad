"""All that writes files and events on a node, over one ledger and a disk of 20 MiB."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kodo.access.null import NullProvider
from kodo.client.client import Client
from kodo.client.run import Run
from kodo.client.transfer import ManifestPage, download
from kodo.node.executors.executor import Runner
from kodo.node.files.ledger import Ledger
from kodo.node.files.outputs import Outputs, size_of
from kodo.node.files.uploads import Uploads
from kodo.node.requests.delegation import Delegations, _Child
from kodo.node.requests.memories import Memories
from kodo.node.runs.flow_requests import Question
from kodo.node.store.rows import NewEvent
from kodo.node.store.store import Store
from kodo.protocol.args.files import InputWriteArgs
from kodo.protocol.ids import make_id
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from kodo.protocol.memory import MEMORY_PIECE_BYTES
from kodo.protocol.room import Room
from tests.unit.node.conftest import StillClock, fid_of, new_run

__all__ = ["MIB", "RESERVE", "ROOM", "WRITERS", "Bench", "Disk"]

MIB = 1 << 20
RESERVE = 4 * MIB
ROOM = 16 * MIB
"""What a `Disk` has beside its reserve."""


class Disk:
    """A disk of 20 MiB, which a home and others fill; `lowest` is what was free when it was asked."""

    def __init__(self, home: Path):
        self.home = home
        self.others = 0
        self.lowest = RESERVE + ROOM

    def __call__(self, root: Path) -> Any:
        free = RESERVE + ROOM - self.others - size_of(self.home)
        self.lowest = min(self.lowest, free)
        return SimpleNamespace(total=RESERVE + ROOM, free=free)


async def _nothing() -> None:
    await asyncio.sleep(0)


class Bench:
    """`midway` is awaited by each writer after a part of its bytes."""

    def __init__(self, home: Path, clock: StillClock):
        self.home = home
        self.clock = clock
        self.disk = Disk(home)
        self.ledger = Ledger(home, reserve_bytes=RESERVE, disk=self.disk)
        self.midway: Callable[[], Awaitable[None]] = _nothing
        self.fid = fid_of(1)
        self._numbers = itertools.count(1)

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        enter = stack.enter_async_context
        self.store = await enter(Store(self.home / "node.db", clock=self.clock, room=self.ledger))
        self.outputs = Outputs(self.home / "outputs", room=self.ledger)
        self.outputs.open()
        ids = (make_id(self.clock.ms, number.to_bytes(10, "big")) for number in self._numbers)
        self.uploads = Uploads(
            self.home / "uploads", clock=self.clock, new_id=lambda: next(ids), room_of=self.ledger.share_of
        )
        self.uploads.open()
        provider = NullProvider("home")
        self.memories = await enter(Memories(self.home / "memory", provider, self.clock, room=self.ledger))
        self.delegations = await enter(
            Delegations(
                lambda: cast(Client, None),
                provider,
                "peer",
                seal=lambda value: hashlib.sha256(repr(value).encode()).digest(),
                chain_of=lambda fid: [],
                folder=self.home / "delegated",
                store=self.store,
                clock=self.clock,
                room_of=self.ledger.share_of,
            )
        )
        self.ledger.count(lambda: self.store.taken + self.outputs.taken + self.uploads.taken)
        self.ledger.count(lambda: self.memories.taken + self.delegations.taken)
        self.ledger.owe(lambda: self.store.unfolded + self.memories.unfolded)
        await self.store.create(new_run(1), [])

    @property
    def room(self) -> int:
        """What may be promised."""
        unfolded = self.store.unfolded + self.memories.unfolded
        return int(self.disk(self.home).free) - RESERVE - self.ledger.promised - unfolded

    # --- the writers: each stores about `size` bytes ---

    async def upload(self, size: int) -> None:
        data = os.urandom(size)

        async def pieces() -> AsyncIterator[bytes]:
            yield data[: size // 2]
            await self.midway()
            yield data[size // 2 :]

        said = {"name": "a.bin", "size": size, "sha256": hashlib.sha256(data).hexdigest()}
        await self.uploads.write("ana", InputWriteArgs.model_validate(said), pieces())

    async def output(self, size: int) -> None:
        data = os.urandom(size)

        async def read_output(name: str, offset: int, length: int) -> bytes:
            if offset <= size // 2 < offset + length:
                await self.midway()
            return data[offset : offset + length]

        runner = cast(Runner, SimpleNamespace(fid=self.fid, read_output=read_output, open_output=lambda name: None))
        name, digest = f"{next(self._numbers)}.bin", hashlib.sha256(data).hexdigest()
        await self.outputs.fetch(runner, {"name": name, "size": size, "sha256": digest, "media_type": "x/y"})

    async def fetched(self, size: int) -> None:
        data, bench = os.urandom(size), self
        before = size_of(self.home)
        builder = ManifestBuilder()
        builder.update(data)
        manifest = builder.finish()

        class Source:
            async def manifest(self, name: str, first: int, count: int) -> ManifestPage:
                return ManifestPage(size, manifest.sha256, first, manifest.chunks[first : first + count])

            async def read(self, name: str, offset: int) -> AsyncGenerator[bytes, None]:
                yield data[offset : size // 2]
                # A thread writes the whole chunks that came: none shall be under way when the disk changes.
                for _ in range(10_000):
                    if size_of(bench.home) - before >= size // 2 // CHUNK_BYTES * CHUNK_BYTES:
                        break
                    await asyncio.sleep(0)
                await bench.midway()
                yield data[size // 2 :]

        async def download_to(folder: Path, *, names: list[str], room: Room, **_: Any) -> None:
            await download(Source(), names, folder, room=room)

        child = fid_of(next(self._numbers))
        run = SimpleNamespace(fid=child, download=download_to)
        self.delegations._children.setdefault(self.fid, {})[child] = _Child(cast(Run, run))
        handle = {"node": "n", "peer_id": "p", "fid": child}
        sealed = {**handle, "seal": self.delegations._sealed(self.fid, handle)}
        asked = {"run": sealed, "name": "a.bin", "offset": 0}
        await self.delegations.answer(Question(self.fid, "flows.a", "ana", 1, 1, "delegate.read", asked))

    async def memory_file(self, size: int) -> None:
        data, upload = os.urandom(size), f"u{next(self._numbers)}"
        said = {"name": f"{upload}.bin", "upload": upload, "size": size, "sha256": hashlib.sha256(data).hexdigest()}
        for at in range(0, size, MEMORY_PIECE_BYTES):
            if at >= size // 2 > at - MEMORY_PIECE_BYTES:
                await self.midway()
            piece = {**said, "offset": at, "data": data[at : at + MEMORY_PIECE_BYTES]}
            await self.memories.put("long", "flows.a", "file.write", piece)

    async def memory_values(self, size: int) -> None:
        for at in range(0, size, 100_000):
            if at >= size // 2 > at - 100_000:
                await self.midway()
            value = {"key": f"k{next(self._numbers)}", "value": os.urandom(min(100_000, size - at) // 2).hex()}
            await self.memories.put("long", "flows.a", "set", value)

    async def events(self, size: int) -> None:
        for at in range(0, size, 250_000):
            if at >= size // 2 > at - 250_000:
                await self.midway()
            text = os.urandom(min(250_000, size - at) // 2).hex()
            await self.store.append(self.fid, [NewEvent.make("log", {"text": text}, next(self._numbers))])


WRITERS = {
    "upload": Bench.upload,
    "output": Bench.output,
    "file fetched by delegation": Bench.fetched,
    "file of a memory": Bench.memory_file,
    "values of a memory": Bench.memory_values,
    "events": Bench.events,
}
"""The first four know before how much they will write."""
