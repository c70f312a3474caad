"""The node's side of uploads: files travel to the machine that runs the flow, by calls of its runner.

The runner may be on another machine of a Ray cluster, so nothing is shared but Ray. One piece is in memory at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from kodo.node.executors.executor import InputFile
from kodo.p2p.errors import IntegrityError
from kodo.p2p.net.files import plain_descriptor

__all__ = ["RAY_PIECE_BYTES", "file_reader", "send_files"]

RAY_PIECE_BYTES = 4 << 20

Take = Callable[[str, str, int, bytes, str | None], Awaitable[None]]


async def send_files(files: Sequence[InputFile], take: Take) -> None:
    """Send each file in pieces; `take(id, name, offset, piece, sha256)`: the hash comes with the last piece.

    Raises:
        IntegrityError: a file is not there any more.
    """
    for file in files:
        async with file_reader(file) as read:
            offset = 0
            while True:
                piece = await read(offset, RAY_PIECE_BYTES)
                last = offset + len(piece) >= file.size
                await take(file.id, file.name, offset, piece, file.sha256 if last else None)
                offset += len(piece)
                if last:
                    break
                if not piece:
                    raise IntegrityError(f"the uploaded file {file.name!r} is shorter than it was; upload it again")


@contextlib.asynccontextmanager
async def file_reader(file: InputFile) -> AsyncIterator[Callable[[int, int], Awaitable[bytes]]]:
    """Open a file for as long as the block lasts; give what reads a part of it, from an offset on.

    Raises:
        IntegrityError: it is gone.
    """
    if file.read is not None:
        yield file.read
        return
    try:
        descriptor = plain_descriptor(file.path, os.O_RDONLY)
    except OSError as error:
        raise IntegrityError(f"the uploaded file {file.name!r} is gone: {error.strerror}; upload it again") from error

    async def read(offset: int, length: int) -> bytes:
        reading = asyncio.get_running_loop().run_in_executor(None, os.pread, descriptor, length, offset)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.wait([reading])
            raise

    try:
        yield read
    finally:
        os.close(descriptor)
