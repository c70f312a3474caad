"""Give every parser millions of inputs that are nearly right, and tell what it should not have done.

    fuzz.py [--seconds N] [--inputs N] [--seed S] [--processes N] [--only NAME [--batch N]]

Each parser reads golden bytes and texts that were changed in a few places, and values of the right shape with wrong
parts. What it raises that it does not name, and work that grows faster than the input (counted in bytecodes, not by a
clock), is shown with what finds it again. Ends with 1 when something was found.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzz.runner import Tally, fuzz, report, run_batch
from tests.fuzz.targets import Target, all_targets


def _some(names: Sequence[str]) -> list[Target]:
    found = [target for target in all_targets() if not names or target.name in names]
    unknown = set(names) - {target.name for target in found}
    if unknown:
        raise SystemExit(f"no such parser: {', '.join(sorted(unknown))}; there are {_names()}")
    return found


def _names() -> str:
    return ", ".join(target.name for target in all_targets())


def _tell(tallies: dict[str, Tally]) -> None:
    count, found = (sum(getattr(tally, name) for tally in tallies.values()) for name in ("inputs", "found"))
    print(f"{count:,} inputs, {found} found", file=sys.stderr, flush=True)


def _share(place: tuple[int, int, argparse.Namespace]) -> dict[str, Tally]:
    first, processes, arguments = place
    inputs = None if arguments.inputs is None else -(-arguments.inputs // processes)
    return fuzz(
        _some(arguments.only),
        arguments.seed,
        inputs=inputs,
        seconds=arguments.seconds,
        first=first,
        step=processes,
        tell=_tell,
    )


def _all(arguments: argparse.Namespace) -> dict[str, Tally]:
    places = [(first, arguments.processes, arguments) for first in range(arguments.processes)]
    if len(places) == 1:
        return _share(places[0])
    with multiprocessing.get_context("spawn").Pool(len(places)) as pool:
        shares = pool.map(_share, places)
    tallies = shares[0]
    for share in shares[1:]:
        for name, tally in share.items():
            tallies[name].add(tally)
    return tallies


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def main() -> int:
    """Read the command line and begin."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=None, help="end after this long; 60 when neither is given")
    parser.add_argument("--inputs", type=int, default=None, help="end after this many inputs in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of {_names()}")
    parser.add_argument("--batch", type=int, default=None, help="only this batch, as a finding names it")
    arguments = parser.parse_args()
    if arguments.seconds is None and arguments.inputs is None:
        arguments.seconds = 60.0
    arguments.seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {arguments.seed}, commit {_commit()}", flush=True)
    begin = time.monotonic()
    if arguments.batch is not None:
        tallies = {target.name: Tally() for target in _some(arguments.only)}
        for target in _some(arguments.only):
            run_batch(target, arguments.seed, arguments.batch, tallies[target.name])
    else:
        tallies = _all(arguments)
    print("\n".join(report(tallies)))
    print(f"{time.monotonic() - begin:.0f} s")
    return 1 if any(tally.found for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
