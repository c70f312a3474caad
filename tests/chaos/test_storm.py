"""A node that is used while its parts are killed, stopped, starved and set to other times, judged run by run.

`scripts/chaos node` does the same at random for as long as it is told.
"""

from __future__ import annotations

from pathlib import Path

from tests.chaos.storm import Storm, StormPlan
from tests.support.small_disk import small_disk


async def test_whatever_fails_nothing_is_lost_doubled_or_left_behind(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    with small_disk(tmp_path / "home", 700 << 20) as mounted:
        faults = ["warm", "runner", "burst", "stop", "clock", "raylet", "gcs_server"]
        if mounted:
            faults.insert(4, "disk")
        plan = StormPlan(
            tuple(faults), len(faults), shuffled=False, stop_s=1.0, long_stop_s=1.0, haste=0.2, back_s=150
        )
        storm = Storm(tmp_path / "home", aside, 1, plan)
        await storm.rage()
        assert not storm.walkers.wrong, storm.walkers.first
        assert storm.judged > len(faults)
        assert storm.ends["done"] > 5
        assert not mounted or storm.refused_full
