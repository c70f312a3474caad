"""Schedules survive their node: each time is launched once, whenever it is killed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgpack

from kodo.client.sync import Client
from tests.support.koco import NodeProcess, end_all, eventually, koco_json

COUNT = 20

QUICK = '''
from kodo.flow import flow

@flow(name="Quick", author="a", organization="b", release="1")
def quick(number: int) -> int:
    """Return the number."""
    return number
'''


def launched(home: Path) -> Counter[str]:
    """Count the runs of each schedule, as they are stored."""
    with contextlib.closing(sqlite3.connect(home / "node.db")) as database:
        rows = database.execute("SELECT data FROM events WHERE event='flow'").fetchall()
    return Counter(msgpack.unpackb(data)["schedule"]["sid"] for (data,) in rows)


def test_a_node_that_is_killed_while_schedules_are_due_launches_each_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "quick.py").write_text(QUICK)
    (tmp_path / "scope.yaml").write_text("name: quick.example\nflows: [quick]\n")

    class Quick(NodeProcess):
        scope = tmp_path / "scope.yaml"

    words = ("--executor", "process", "--runners", "0")
    nodes = [Quick(home, *words)]
    try:
        with Client(home, lan=False) as client:
            moment = datetime.now(UTC) + timedelta(seconds=2)
            flow = f"{nodes[0].address}/Quick"
            made = [client.schedules.add(flow, at=moment, number=number)["sid"] for number in range(COUNT)]
        eventually(lambda: launched(home))
        nodes[0].kill()
        nodes.append(Quick(home, *words))
        asked = ("schedules", "--node", nodes[1].address, "--no-lan")
        eventually(lambda: sum(row["launches"] for row in koco_json(home, *asked)[0]["result"]) == COUNT)
        assert launched(home) == Counter(made)
        assert nodes[1].stop() == 0
    finally:
        for each in nodes:
            if each.process.poll() is None:
                each.kill()
        end_all(home)
