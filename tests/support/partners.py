"""Other implementations of WebRTC, each in a process of its own that takes commands as lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

INTEROP = Path(__file__).parents[1] / "interop"


def command(kind: str) -> list[str]:
    """What runs a partner: `libp2p`, `node-datachannel`, `aiortc`, `wrtc`, or `kodo` itself, for measuring.

    Raises:
        RuntimeError: where it is not installed.
    """
    if kind in ("libp2p", "node-datachannel"):
        node = shutil.which("node")
        if node is None or not (INTEROP / "node_modules" / "node-datachannel").is_dir():
            raise RuntimeError("Node.js or its packages are missing; scripts/test installs them")
        return [node, str(INTEROP / f"partner-{kind}.mjs")]
    if kind.startswith("kodo"):
        return [sys.executable, "-m", "tests.support.kodo_partner", *kind.split()[1:]]
    if importlib.util.find_spec({"wrtc": "webrtc"}.get(kind, kind)) is None:
        raise RuntimeError(f"{kind} is missing; scripts/test installs it")
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
            waiting = self._waiting.pop(answer["id"])
            if not waiting.done():
                waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("the partner's process ended"))
                waiting.exception()  # who asked may have gone
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
async def partner(kind: str, *, through: Sequence[str] = ()) -> AsyncIterator[Partner]:
    """Run a partner; it ends with the block. `through` stands before its command, to run it somewhere else."""
    process = await asyncio.create_subprocess_exec(
        *through,
        *command(kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=INTEROP.parents[1],
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
