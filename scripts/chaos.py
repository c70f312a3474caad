"""Fail the disk of the event log at random, or cut downloads: chaos.py [--faults N | --cuts N] [--seed S]

Each drill carries one run's events into a log of its own while statements fail (no room, EIO before or after the
fact) and the clock jumps; then the log, and what a follower was told, must hold each event once and in order.
With `--cuts` a run is downloaded so many times by a link, over a way that loses packets and is cut at a random byte.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.chaos.link_cuts import cut_downloads
from tests.chaos.store_faults import drill


async def rage(faults: int, seed: int) -> tuple[int, int]:
    """Drill until `faults` statements have failed; give how many did, and in how many drills."""
    failed = drills = 0
    with tempfile.TemporaryDirectory() as folder:
        while failed < faults:
            place = Path(tempfile.mkdtemp(dir=folder))
            try:
                failed += await drill(place / "node.db", seed=seed + drills, rate=0.2)
            except AssertionError:
                print(f"seed {seed + drills} breaks a promise", file=sys.stderr)
                raise
            drills += 1
            shutil.rmtree(place)
    return failed, drills


def main() -> int:
    """Read the command line and begin."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=500, help="statements that fail, at least")
    parser.add_argument("--seed", type=int, default=None, help="of the first drill; each further one adds 1")
    parser.add_argument("--cuts", type=int, default=None, help="downloads by a link that are cut, instead")
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    begin = time.monotonic()
    if arguments.cuts is not None:
        with tempfile.TemporaryDirectory() as folder:
            cut = asyncio.run(cut_downloads(Path(folder), arguments.cuts, seed))
        print(f"{cut} of {arguments.cuts} downloads cut, {time.monotonic() - begin:.0f} s: all whole, counted once")
        return 0
    failed, drills = asyncio.run(rage(arguments.faults, seed))
    print(
        f"{failed} faults in {drills} runs, {time.monotonic() - begin:.0f} s: no event lost, doubled or out of order"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
