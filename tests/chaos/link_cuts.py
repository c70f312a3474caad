"""Downloads by a link, over real sockets, each over a way that is cut at a random byte."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.support.links import download_with_cut, made_run, node_at, through, user
from tests.support.lossy_relay import lossy_relay

__all__ = ["cut_downloads"]


async def cut_downloads(folder: Path, cuts: int, seed: int, *, size: int = 2_500_000, loss: float = 0.002) -> int:
    """Download `cuts` times; give how many were cut on the way. All are by one peer, so they count as one.

    Raises:
        AssertionError: a file is not whole, a part stood under a final name, or they counted otherwise.
    """
    chance = random.Random(seed)
    cut = 0
    async with node_at(folder / "node") as node, user(folder / "ana") as ana, user(folder / "bob") as bob:
        run = await made_run(ana, node, size)
        share = await run.share(downloads=1)
        async with lossy_relay(("127.0.0.1", node.addresses[0].port), seed=seed, loss=loss) as relay:
            link = through(str(share), relay)
            for number in range(cuts):
                out = folder / f"out{number}"
                # The first are in the midst of the handshake.
                at = chance.randrange(1, 3000 if number % 12 == 0 else size)
                cut += await download_with_cut(bob, relay, link, out, size, at)
                shutil.rmtree(out)
                for session in list(bob._open_host()._sessions):
                    await session.aclose()
        [row] = await run.shares()
        assert (row["done"], row["under_way"], row["state"]) == (1, 0, "used-up"), row
    return cut
