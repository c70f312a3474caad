"""Measure kodo beside its references: bench.py WHAT [--json] [--rounds N] [--rows GROUP,…]

Machines are shared and noisy: every figure is taken in turn with its reference (A B A B …) and given as a median
with its spread; what to quote is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the partners and the relay are those of the tests

from benchmarks import large, paths, registry, runs, sessions, web
from benchmarks.measure import Table

TABLES: dict[str, Callable[[int], Awaitable[Table]]] = {
    "sessions": sessions.measure,
    "runs": runs.measure,
    "registry": registry.measure,
    "web": web.measure,
    "large": large.measure,
    "paths": paths.measure,
}


async def measure(names: list[str], rounds: int, as_json: bool) -> None:
    """Measure the tables in turn and print each as soon as it is there."""
    for name in names:
        table = await TABLES[name](rounds)
        print(json.dumps(table.to_json()) if as_json else table.to_text(), flush=True)


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*TABLES, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON object per table")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure; the median counts")
    parser.add_argument("--nodes", type=int, default=100_000, help="of the registry; each with ten flows")
    parser.add_argument("--keep", type=Path, help="a folder for the registry's file, filled once and used again")
    parser.add_argument("--gib", type=int, default=1, help="of large: how large the file is, GiB")
    groups_of = {"sessions": list(sessions.GROUPS), "runs": list(runs.GROUPS), "paths": list(paths.GROUPS)}
    picks = "; ".join(f"of {what}: {', '.join(groups)}" for what, groups in groups_of.items())
    parser.add_argument("--rows", default="", metavar="GROUP,…", help=f"only some rows; {picks}")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds takes a number from 1")
    groups = [group for group in arguments.rows.split(",") if group]
    if set(groups) - set(groups_of.get(arguments.what, [])):
        parser.error(f"--rows picks rows {picks}")
    TABLES["sessions"] = partial(sessions.measure, groups=groups)
    TABLES["runs"] = partial(runs.measure, groups=groups)
    TABLES["paths"] = partial(paths.measure, groups=groups)
    TABLES["large"] = partial(large.measure, gib=arguments.gib)
    TABLES["registry"] = partial(registry.measure, nodes=arguments.nodes, keep=arguments.keep)
    names = [name for name in TABLES if name != "large"] if arguments.what == "all" else [arguments.what]
    asyncio.run(measure(names, arguments.rounds, arguments.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
