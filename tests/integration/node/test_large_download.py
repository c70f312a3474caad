"""An output much larger than what a client may hold: the process dies in the middle, another one goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from kodo.client import Client
from kodo.client.transfer import Progress
from tests.support.links import expected, made_run, node_at, user

SIZE = 64_000_001
HELD = 24 << 20
"""Bytes that a client may need beside what it is before it begins."""


async def child(home: Path, run: str, to: Path, die_at: int) -> dict[str, Any] | None:
    """Download in a process of its own; None if it died."""
    words = [sys.executable, "-m", __name__, str(home), run, str(to), str(die_at)]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    out, _ = await process.communicate()
    return json.loads(out) if process.returncode == 0 else None


async def test_a_client_that_died_in_the_middle_is_followed_by_one_that_needs_the_rest_only(tmp_path: Path) -> None:
    async with node_at(tmp_path / "node") as node, user(tmp_path / "u") as client:
        run = await made_run(client, node, SIZE)
        where, to = f"{node.addresses[0]}/{run.fid}", tmp_path / "to"
        assert await child(tmp_path / "u", where, to, SIZE // 2) is None
        assert not (to / "data" / "big.bin").exists()
        found = await child(tmp_path / "u", where, to, 0)
    assert found is not None
    assert SIZE // 3 < found["received"] <= SIZE - SIZE // 2 + (1 << 20)
    assert found["held"] < HELD
    assert await asyncio.to_thread(lambda: sha256(to / "data" / "big.bin")) == expected(SIZE)


def sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def most() -> int:
    """Bytes of memory that this process had at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(home: str, run: str, to: str, die_at: str) -> None:
    def progress(so_far: Progress) -> None:
        if int(die_at) and so_far.name == "data/big.bin" and so_far.done >= int(die_at):
            os._exit(9)  # as by SIGKILL: nothing is tidied up

    async with Client(Path(home), registries=[], finders=[], timeout=20) as client:
        found = await client.run(run)
        before = most()
        files = await found.download(Path(to), keep=True, on_progress=progress)
        received = next(file.received for file in files if file.name == "data/big.bin")
        print(json.dumps({"received": received, "held": most() - before}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
