"""`koco down`: the node of a home ends, its runs first."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.support.koco import koco, koco_json, node


def test_down_waits_for_runs_and_stops_the_node(base: Path, tmp_path: Path) -> None:
    home = base / "down"
    stranger = tmp_path / "stranger"
    with node(home) as running:
        refused = koco_json(stranger, "down", "--node", running.address, exit_code=4)
        assert refused[-1]["error"]["reason"] == "operator-only"
        words = ("run", f"{running.address}/Count", "n=10", "pause_ms=200", "--detach", "--no-lan")
        [launched] = koco_json(home, *words)
        [told] = koco_json(home, "down", "--drain", "60s", "--no-lan")
        assert (told["stopped"], told["peer_id"]) == (True, running.ready["peer_id"])
        assert running.process.wait(20) == 0
        assert running.stop() == 0
    with contextlib.closing(sqlite3.connect(home / "node.db")) as database:
        assert database.execute("SELECT state FROM runs WHERE fid=?", (launched["fid"],)).fetchall() == [("done",)]
    gone = koco(home, "down", "--no-lan")
    assert gone.returncode == 3
