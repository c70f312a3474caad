"""A node that is told to end ends all of it: in order, once, whatever else it is told meanwhile."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from pathlib import Path

from tests.support.koco import eventually, koco_json, node, processes_of


def test_a_closed_terminal_and_an_impatient_user_end_a_node_with_locked_runs_in_order(base: Path) -> None:
    home = base / "signals"
    with node(home) as running:
        words = ("--detach", "--no-lan")
        [locked] = koco_json(home, "run", f"{running.address}/Ask", "topic=bikes", *words)
        marks = f"marks={home / 'marks'}"
        inputs = ("name=w", marks, "steps=1000", "pause_ms=100", "child=true")
        [walking] = koco_json(home, "run", f"{running.address}/Walk", *inputs, *words)

        def is_locked() -> bool:
            [state] = koco_json(home, "state", locked["fid"], "--node", running.address, "--no-lan")
            return bool(state["locks"])

        eventually(is_locked)
        eventually((home / "marks").exists)
        running.process.send_signal(signal.SIGHUP)
        for _ in range(3):
            time.sleep(0.2)
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert running.stop() == 0
        assert processes_of(home) == []
    with contextlib.closing(sqlite3.connect(home / "node.db")) as database:
        for launched in (locked, walking):
            query = "SELECT event FROM events JOIN runs USING (rid) WHERE fid=? ORDER BY seq DESC LIMIT 1"
            assert database.execute(query, (launched["fid"],)).fetchall() == [("fatal",)]
