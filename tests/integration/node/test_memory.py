"""What flows remember, over a crash of the node; and what their developer publishes. Seen through `koco`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.koco import NodeProcess, end_all, eventually, koco, koco_json, node, processes_of

AT = ("--node", "tests.local", "--no-lan")


def run(home: Path, flow: str, *inputs: str) -> Any:
    [*_, end] = koco_json(home, "run", f"tests.local/abilities.{flow}", *inputs, "--no-lan")
    return end["final"]["result"]


def test_memory_outlives_a_killed_node_and_counts_each_change_once(tmp_path: Path) -> None:
    first = NodeProcess(tmp_path)
    try:
        inputs = ("n=25", "pause_ms=100")
        [launched] = koco_json(tmp_path, "run", "tests.local/abilities.remember", *inputs, "--detach", "--no-lan")
        fid = str(launched["fid"])

        def counted() -> bool:
            [state] = koco_json(tmp_path, "state", fid, *AT)
            return bool(state["progress"] and state["progress"]["done"] > 3)

        eventually(counted)
        first.kill()
        with node(tmp_path):
            [*_, end] = koco_json(tmp_path, "follow", fid, *AT)
            assert end["final"]["result"] == {"n": 26, "short": ["begun"], "file": 3000}
            a_developer_publishes_what_flows_then_find(tmp_path)
            nobody_else_may(tmp_path)
            everything_short_goes_with_its_run(tmp_path, fid)
    finally:
        end_all(tmp_path)
    assert processes_of(tmp_path) == []


def a_developer_publishes_what_flows_then_find(home: Path) -> None:
    (home / "facts.txt").write_text("facts")
    koco_json(home, "memory", "put", "--shared", "kb", "topic=bikes", "list=[1, 2]", f"facts=@{home}/facts.txt", *AT)
    assert run(home, "recall", "name=kb") == {
        "values": {"list": [1, 2], "run-26": 26, "topic": "bikes"},
        "files": {"facts": "facts"},
    }
    koco_json(home, "memory", "put", "--shared", "kb", "--remove", "run-26", "list", "facts", *AT)
    assert run(home, "recall", "name=kb") == {"values": {"topic": "bikes"}, "files": {}}
    [of_kb] = koco_json(home, "memory", "list", "--shared", "kb", *AT)
    assert [(row["kind"], row["key"]) for row in of_kb["result"]] == [("value", "topic")]
    [told] = koco_json(home, "memory", "list", *AT)
    assert [(row["scope"], row["of"], row["keys"], row["files"]) for row in told["result"]] == [
        ("long", "abilities.remember", 1, 1),
        ("shared", "kb", 1, 0),
    ]
    koco_json(home, "memory", "put", "--flow", "abilities.remember", "n=0", *AT)
    assert run(home, "remember", "n=1")["n"] == 2


def nobody_else_may(home: Path) -> None:
    stranger = home / "stranger"
    address = koco_json(home, "id")[0]["addrs"]
    place = next(each for each in address if each.startswith("/ip4/127.0.0.1/"))
    for words in (("list", "--shared", "kb"), ("put", "--shared", "kb", "topic=cars")):
        done = koco(stranger, "memory", *words, "--node", place, "--no-lan")
        assert (done.returncode, "only a developer" in done.stderr) == (4, True), done


def everything_short_goes_with_its_run(home: Path, fid: str) -> None:
    database = home / "memory" / "memory.db"
    assert fid.encode() in database.read_bytes() + database.with_name("memory.db-wal").read_bytes()
    koco_json(home, "delete", fid, *AT)
    assert all(fid.encode() not in path.read_bytes() for path in (home / "memory").rglob("*") if path.is_file())
