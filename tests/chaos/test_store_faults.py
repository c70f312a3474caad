"""Disk full and EIO at every write of the event log, and a clock that jumps: nothing lost, nothing doubled.

`scripts/chaos` does the same for as many seeds as it is given time for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.store_faults import FAULTS, drill


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_that_fails_anywhere_loses_and_doubles_no_event(tmp_path: Path, fault: str) -> None:
    positions = 0
    while await drill(tmp_path / f"{positions}.db", seed=positions, fault=fault, position=positions):
        positions += 1
    assert positions > 20  # every statement of every transaction of a run's life


@pytest.mark.parametrize("seed", range(5))
async def test_writes_that_fail_again_and_again_lose_and_double_no_event(tmp_path: Path, seed: int) -> None:
    assert await drill(tmp_path / "node.db", seed=seed, rate=0.2) > 2
