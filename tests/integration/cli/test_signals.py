"""A node that is told to end ends all of it: in order, once, whatever else it is told meanwhile."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from kodo.client.sync import Client
from tests.support.koco import (
    KOCO,
    SCOPE,
    NodeProcess,
    end_all,
    environment,
    eventually,
    koco_json,
    node,
    processes_of,
)


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
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            time.sleep(0.2)
            if running.process.poll() is None:
                running.process.send_signal(sent)
        assert running.process.wait(60) == 0
        assert running.stop() == 0
        assert "stopping: runs that have begun end (--keep-runs lets them go on): 2" in "".join(running.stderr)
        assert processes_of(home) == []
    with contextlib.closing(sqlite3.connect(home / "node.db")) as database:
        for launched in (locked, walking):
            query = "SELECT event FROM events JOIN runs USING (rid) WHERE fid=? ORDER BY seq DESC LIMIT 1"
            assert database.execute(query, (launched["fid"],)).fetchall() == [("fatal",)]


def test_a_node_that_keeps_runs_is_stopped_and_started_without_their_noticing(base: Path) -> None:
    home = base / "keeps"
    first = NodeProcess(home, "--keep-runs")
    try:
        with Client(home, lan=False) as client:
            asking = client.launch(f"{first.address}/Ask", topic="bikes")
            later = client.launch(f"{first.address}/Ask")
            counting = client.launch(f"{first.address}/Count", n=200, pause_ms=100)
            before, demanded = (eventually(lambda run=run: run.state()["locks"]) for run in (asking, later))
        koco_json(home, "down", "--drain", "1s", "--no-lan")
        assert first.process.wait(60) == 0
        first.stop()
        with node(home) as second, Client(home, lan=False) as client:
            assert second.ready["addrs"] == first.ready["addrs"]
            asking, later, counting = (client.run(run.address) for run in (asking, later, counting))
            assert [run.state()["locks"] for run in (asking, later)] == [before, demanded]
            words = ("answer", asking.fid, "approved=true", "why=good", "--node", second.address, "--no-lan")
            koco_json(home, *words)
            assert asking.wait().final["result"] == "bikes: True good"
            later.answer(demanded[0]["lid"], {"topic": "boats"})
            events = list(counting.follow())
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            numbers = [event.data["number"] for event in events if event.event == "result"]
            assert (numbers, counting.view.state) == (list(range(200)), "done")
            assert "boats" in eventually(lambda: later.state()["locks"])[0]["title"]
        assert processes_of(home) == []
    finally:
        end_all(home)


def test_a_node_that_is_interrupted_while_it_starts_leaves_no_ray_behind(base: Path) -> None:
    home = base / "early"
    small = {"KODO_NUM_CPUS": "1", "KODO_OBJECT_STORE": "100MB"}
    starting = subprocess.Popen([KOCO, "up", str(SCOPE), "--no-lan"], env=environment(home, **small))
    try:
        # From here on Ray's processes come into being.
        eventually((home / "ray" / "cluster.json").exists)
        starting.send_signal(signal.SIGINT)
        assert starting.wait(90) in (0, 130)
        assert processes_of(home) == []
    finally:
        starting.kill()
        starting.wait()
        end_all(home)
