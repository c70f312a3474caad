"""The node's side of uploads: files travel to the machine that runs the flow, by calls of its runner.

The runner may be on another machine of a Ray cluster, so nothing is shared but Ray. One piece is in memory at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from kodo.node.executors.executor import InputFile
from kodo.p2p.errors import IntegrityError

__all__ = ["RAY_PIECE_BYTES", "send_files"]

RAY_PIECE_BYTES = 4 << 20

Take = Callable[[str, str, int, bytes, str | None], Awaitable[None]]


async def send_files(files: Sequence[InputFile], take: Take) -> None:
    """Send each file in pieces; `take(id, name, offset, piece, sha256)`: the hash comes with the last piece.

    Raises:
        IntegrityError: a file is not there any more.
    """
    for file in files:
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise IntegrityError(
                f"the uploaded file {file.name!r} is gone: {error.strerror}; upload it again"
            ) from error
        try:
            offset = 0
            while True:
                reading = asyncio.get_running_loop().run_in_executor(
                    None, os.pread, descriptor, RAY_PIECE_BYTES, offset
                )
                try:
                    piece = await asyncio.shield(reading)
                except asyncio.CancelledError:
                    await asyncio.wait([reading])
                    raise
                last = offset + len(piece) >= file.size
                await take(file.id, file.name, offset, piece, file.sha256 if last else None)
                offset += len(piece)
                if last:
                    break
                if not piece:
                    raise IntegrityError(f"the uploaded file {file.name!r} is shorter than it was; upload it again")
        finally:
            os.close(descriptor)
