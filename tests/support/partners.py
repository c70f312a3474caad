"""Other implementations of WebRTC, each in a process of its own that takes commands as lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

INTEROP = Path(__file__).parents[1] / "interop"


def command(kind: str) -> list[str]:
    """What runs a partner: `libp2p`, `node-datachannel`, `aiortc` or `wrtc`.

    Raises:
        RuntimeError: where it is not installed.
    """
    if kind in ("libp2p", "node-datachannel"):
        node = shutil.which("node")
        if node is None or not (INTEROP / "node_modules" / "node-datachannel").is_dir():
            raise RuntimeError("Node.js or its packages are missing; scripts/test installs them")
        return [node, str(INTEROP / f"partner-{kind}.mjs")]
    return [sys.executable, str(INTEROP / "partner.py"), kind]


class Partner:
    """One process; `ask` may be called many times at once."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Hand the answers to who waits for them, until the process ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError("the partner's process ended"))
        self._waiting.clear()

    async def ask(self, op: str, **words: Any) -> dict[str, Any]:
        """Give the answer to one command.

        Raises:
            RuntimeError: the partner failed, or ended.
        """
        assert self.process.stdin is not None
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        if self.process.returncode is not None:
            raise RuntimeError("the partner's process ended")
        self.process.stdin.write(json.dumps({"id": number, "op": op, **words}).encode() + b"\n")
        answer = await future
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer)


@contextlib.asynccontextmanager
async def partner(kind: str) -> AsyncIterator[Partner]:
    """Run a partner; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *command(kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=INTEROP,
        limit=1 << 20,
    )
    running = Partner(process)
    reading = asyncio.ensure_future(running.read())
    try:
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading
