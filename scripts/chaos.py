"""Fail at random, and judge what a node made of it: chaos.py [store|node|links|all|soak|strangers] [OPTIONS]

store: each drill carries one run's events into a log of its own while statements fail (no room, EIO before or after
the fact) and the clock jumps; then the log, and what a follower was told, must hold each event once and in order.

node: a whole node, with Ray and clients that launch, follow, answer, kill and download, while the node, runners, the
raylet and the GCS are killed, the node is stopped (now and then for 60 s), the clock is set, and the disk is filled
to the last byte (where this user may mount one). 500 faults take about an hour on two cores.

links: one run is downloaded so many times by a link, over a way that loses packets and is cut at a random byte.

soak: `--count` of each life cycle (`--only` names some), and what each leaves behind in node, registry and client.

strangers: a user's calls, runs, downloads, searches and logins for `--seconds`, alone, beside all attacks (`--only`
names some), and beside processes that spin as much and talk to nobody; first with an account at the attacked node,
then at a node without logins (`--auth` names one). Tells what kept the event loops for more than 20 ms of CPU in one
piece. In a network of its own: it takes Linux, and root or user namespaces.
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

from tests.chaos.attacks import ATTACKS
from tests.chaos.link_cuts import cut_downloads
from tests.chaos.soak import soak
from tests.chaos.store_faults import drill
from tests.chaos.storm import FAULTS, Storm, StormPlan
from tests.chaos.strangers import AUTHS, GOAL, RESERVE_BYTES, beside_strangers, profile_by
from tests.support.life_cycles import CYCLES
from tests.support.own_network import enter_own_network
from tests.support.small_disk import small_disk

WEIGHTS = {"node": 2.0, "burst": 2.0, "runner": 3.0, "clock": 2.0, "stop": 0.7, "raylet": 0.7, "gcs_server": 0.7}


async def drills(faults: int, seed: int) -> None:
    """Drill until `faults` statements have failed."""
    begin = time.monotonic()
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        while failed < faults:
            place = Path(tempfile.mkdtemp(dir=folder))
            try:
                failed += await drill(place / "node.db", seed=seed + count, rate=0.2)
            except AssertionError:
                print(f"seed {seed + count} breaks a promise", file=sys.stderr)
                raise
            count += 1
            shutil.rmtree(place)
    took = time.monotonic() - begin
    print(f"{failed} faults in {count} runs, {took:.0f} s: no event lost, doubled or out of order")


async def links(faults: int, seed: int) -> None:
    """Cut downloads by a link."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cut = await cut_downloads(Path(folder), faults, seed)
    print(f"{cut} of {faults} downloads cut, {time.monotonic() - begin:.0f} s: all whole, counted once")


async def storm(faults: int, seed: int) -> int:
    """Let a storm rage over one node; give the number of broken promises."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        aside = Path(folder) / "aside"
        aside.mkdir()
        with small_disk(Path(folder) / "home", 700 << 20) as mounted:
            kinds = tuple(kind for kind in FAULTS if mounted or kind != "disk")
            if not mounted:
                print("the disk is not filled: mounting one takes root")
            plan = StormPlan(kinds, faults, weights=WEIGHTS)
            raging = Storm(Path(folder) / "home", aside, seed, plan, lambda text: print(text, flush=True))
            try:
                await raging.rage()
            finally:
                _tell(raging, time.monotonic() - begin)
    return sum(raging.walkers.wrong.values())


def _tell(raging: Storm, took: float) -> None:
    walkers = raging.walkers
    print(f"{sum(raging.struck.values())} faults in {took:.0f} s: {dict(sorted(raging.struck.items()))}")
    print(f"{raging.judged} runs judged: {dict(sorted(raging.ends.items()))}; {dict(sorted(walkers.done.items()))}")
    print(f"{raging.refused_full} launches were refused while the disk was full")
    for what, times in (("taken", sorted(raging.taken)), ("over", sorted(raging.back))):
        if times:
            middle, last = times[len(times) // 2], times[-1]
            print(f"a launch was {what} {middle:.1f} s after a fault (median), {last:.1f} s at most")
    for what, count in walkers.wrong.items():
        print(f"WRONG {count} x {what}: {walkers.first[what]}", file=sys.stderr)
    if not walkers.wrong:
        print("nothing lost, doubled, started twice, in a wrong state or left behind")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


async def soaked(cycles: list[str], count: int) -> int:
    """Go through life cycles."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        await soak(Path(folder), cycles, count, say)
    return 0


async def beside(attacks: list[str], seconds: float, profile: str, auth: str) -> int:
    """Make a user beside strangers; return whether the goal is missed."""
    say(f"the attacked node has the provider {auth}")
    with tempfile.TemporaryDirectory(prefix="strangers-") as folder:
        more = {"profile": profile_by(profile)} if profile else {}
        result = await beside_strangers(Path(folder), seconds, attacks, say, auth=auth, **more)
    worst = max(map(result.ratio, result.alone.took))
    say(f"the worst ratio is {worst:.1f}, the goal is under {GOAL:g}")
    spoiled = result.most["least free MiB"] < RESERVE_BYTES >> 20
    if spoiled:
        say("strangers wrote into the reserve of the disk")
    return int(worst >= GOAL or spoiled or bool(result.crowded.failed))


def main() -> int:
    """Read the command line and begin."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").splitlines()[0])
    what = ["store", "node", "links", "all", "soak", "strangers"]
    parser.add_argument("what", nargs="?", choices=what, default="all")
    parser.add_argument("--faults", type=int, default=500, help="how many, at least, of each")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--count", type=int, default=10_000, help="soak: how many of each life cycle")
    parser.add_argument("--seconds", type=float, default=100.0, help="strangers: how long, each time")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="soak, strangers: these only")
    parser.add_argument("--auth", choices=AUTHS, help="strangers: this provider of the attacked node only")
    parser.add_argument(
        "--profile",
        metavar="COMMAND",
        default="",
        help="strangers: begin this for each process once attacks are under way; {pid} and {name} stand for it",
    )
    arguments = parser.parse_args()
    known = {"soak": CYCLES, "strangers": ATTACKS}.get(arguments.what, {})
    if unknown := set(arguments.only) - set(known):
        parser.error(f"--only {' '.join(sorted(unknown))}: take some of {' '.join(known) or 'soak or strangers'}")
    if arguments.what == "soak":
        return asyncio.run(soaked(arguments.only or list(CYCLES), arguments.count))
    if arguments.what == "strangers":
        try:
            enter_own_network([sys.executable, *sys.argv])
        except OSError as error:
            parser.exit(2, f"strangers cannot have a network of their own here: {error}\n")
        given = arguments.only, arguments.seconds, arguments.profile
        auths = [arguments.auth] if arguments.auth else AUTHS
        return max([asyncio.run(beside(*given, auth)) for auth in auths])
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    if arguments.what in ("store", "all"):
        asyncio.run(drills(arguments.faults, seed))
    if arguments.what in ("links", "all"):
        asyncio.run(links(arguments.faults, seed))
    return 1 if arguments.what in ("node", "all") and asyncio.run(storm(arguments.faults, seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
